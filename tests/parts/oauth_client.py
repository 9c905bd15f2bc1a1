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
Answer = dict[str, object]


@dataclass(slots=True)
class OauthClient:
    """A registered public client of `op`; `metadata` is the RFC 8414 document."""

    http: httpx.Client
    metadata: Answer
    client_id: str = ""
    code_verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48), repr=False)

    def register(self, **changes: object) -> httpx.Response:
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
        } | changes
        answer = self.http.post(self.endpoint("registration"), json=document)
        if answer.status_code == 201:
            self.client_id = answer.json()["client_id"]
        return answer

    def endpoint(self, name: str) -> str:
        return str(self.metadata[f"{name}_endpoint"])

    def parameters(self, scope: str, resource: str, **changes: str) -> dict[str, str]:
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
        } | changes

    def authorization_url(self, parameters: dict[str, str]) -> str:
        return f"{self.endpoint('authorization')}?{urlencode(parameters)}"

    def redeem(self, redirected: str, redirect_uri: str = REDIRECT_URI) -> httpx.Response:
        """Exchange the code in a redirect URI for tokens."""
        code = dict(parse_qsl(urlsplit(redirected).query))["code"]
        return self.token(
            "authorization_code", code=code, redirect_uri=redirect_uri, code_verifier=self.code_verifier
        )

    def token(self, grant_type: str, **form: str) -> httpx.Response:
        data = {"grant_type": grant_type, "client_id": self.client_id} | form
        return self.http.post(self.endpoint("token"), data=data)


@contextmanager
def oauth_client(op: OidcProvider) -> Iterator[OauthClient]:
    """Read the authorization server's metadata and register a client."""
    trust = op.certificates.trust() if op.certificates else True
    with httpx.Client(verify=trust, trust_env=False, timeout=30) as http:
        answer = http.get(f"{op.issuer}/.well-known/oauth-authorization-server")
        client = OauthClient(http, cast("Answer", answer.raise_for_status().json()))
        client.register().raise_for_status()
        yield client
