"""A plain OAuth client for tests/parts_test. It uses no code of the packages under test."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from tests.parts.oidc_provider import OidcProvider

REDIRECT_URI = "http://127.0.0.1:8765/callback"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
JsonObject = dict[str, object]


@dataclass(slots=True)
class OauthClient:
    """A registered public client of the provider `op`; `metadata` is the provider's RFC 8414 document."""

    http: httpx.Client
    metadata: JsonObject
    client_id: str = ""
    code_verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)

    def register(self, **overrides: object) -> httpx.Response:
        """Register as a native public client; `overrides` replace members of the request."""
        grants = ["authorization_code", "refresh_token"]
        if "device_authorization_endpoint" in self.metadata:
            grants.append(DEVICE_GRANT)
        document = {
            "client_name": "a test",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": grants,
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "application_type": "native",
        } | overrides
        response = self.http.post(self.endpoint("registration"), json=document)
        if response.status_code == 201:
            self.client_id = response.json()["client_id"]
        return response

    def endpoint(self, name: str) -> str:
        return str(self.metadata[f"{name}_endpoint"])

    def authorization_parameters(self, scope: str, resource: str, **overrides: str) -> dict[str, str]:
        """Return the parameters of an authorization request."""
        digest = hashlib.sha256(self.code_verifier.encode()).digest()
        return {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": REDIRECT_URI,
            "state": "the-state",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
            "scope": scope,
            "prompt": "consent",
            "resource": resource,
        } | overrides

    def authorization_url(self, parameters: dict[str, str]) -> str:
        return f"{self.endpoint('authorization')}?{urlencode(parameters)}"

    def exchange_code(self, redirect_url: str, redirect_uri: str = REDIRECT_URI) -> httpx.Response:
        """Exchange the code in a redirect URI for tokens."""
        code = dict(parse_qsl(urlsplit(redirect_url).query))["code"]
        return self.request_token(
            "authorization_code", code=code, redirect_uri=redirect_uri, code_verifier=self.code_verifier
        )

    def request_token(self, grant_type: str, **form: str) -> httpx.Response:
        data = {"grant_type": grant_type, "client_id": self.client_id} | form
        return self.http.post(self.endpoint("token"), data=data)


@contextmanager
def register_oauth_client(op: OidcProvider) -> Iterator[OauthClient]:
    """Read the authorization server's metadata and register a client."""
    verify = op.certificates.client_context() if op.certificates else True
    with httpx.Client(verify=verify, trust_env=False, timeout=30) as http:
        response = http.get(f"{op.issuer}/.well-known/oauth-authorization-server")
        client = OauthClient(http, cast("JsonObject", response.raise_for_status().json()))
        client.register().raise_for_status()
        yield client
