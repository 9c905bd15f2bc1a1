"""An OAuth client that a test drives step by step, so that each step can go wrong."""

from __future__ import annotations

import base64
import hashlib
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx

from tests.consent_form import approve
from tests.parts.authorization_server import Demo

VERIFIER = "a-code-verifier-that-is-long-enough-for-RFC-7636"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
REDIRECT_URI = "http://127.0.0.1:33418/callback"
STATE = "a-state"


def parameters_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, strict_parsing=True))


class ManualClock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class ManualClient:
    def __init__(self, demo: Demo, **registration: object) -> None:
        self.demo = demo
        self.issuer = demo.issuer
        response = self.register(**registration)
        assert response.status_code == 201, response.text
        self.registration: dict[str, Any] = response.json()

    def register(self, **changes: object) -> httpx.Response:
        document = {
            "client_name": "Player",
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            **changes,
        }
        present = {name: value for name, value in document.items() if value is not None}
        return httpx.post(f"{self.demo.authorization_server.origin}/register", json=present)

    def authorization_parameters(self, **changes: str | None) -> dict[str, str]:
        parameters: dict[str, str | None] = {
            "response_type": "code",
            "client_id": self.registration["client_id"],
            "redirect_uri": REDIRECT_URI,
            "state": STATE,
            "code_challenge": CHALLENGE,
            "code_challenge_method": "S256",
            "scope": "mcp:tools",
            "resource": self.demo.mcp_url,
            **changes,
        }
        return {name: value for name, value in parameters.items() if value is not None}

    def authorization_url(self, **changes: str | None) -> str:
        query = urlencode(self.authorization_parameters(**changes))
        return f"{self.demo.authorization_server.origin}/authorize?{query}"

    def authorize(self, **changes: str | None) -> httpx.Response:
        return httpx.get(self.authorization_url(**changes))

    def obtain_code(self, **changes: str | None) -> str:
        return parameters_of(approve(self.authorization_url(**changes)))["code"]

    def post_form(self, path: str, form: dict[str, str | None], **kwargs: Any) -> httpx.Response:
        client_id = None if "auth" in kwargs else self.registration["client_id"]
        fields = {"client_id": client_id, **form}
        present = {name: value for name, value in fields.items() if value is not None}
        return httpx.post(self.demo.authorization_server.origin + path, data=present, **kwargs)

    def exchange(self, code: str, /, **changes: str | None) -> httpx.Response:
        return self.post_form("/token", self.exchange_form(code, **changes))

    def exchange_basic(self, code: str, secret: str, /, **changes: str | None) -> httpx.Response:
        form = self.exchange_form(code, **changes)
        return self.post_form("/token", form, auth=(self.registration["client_id"], secret))

    def exchange_form(self, code: str, /, **changes: str | None) -> dict[str, str | None]:
        return {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT_URI,
            "code_verifier": VERIFIER,
            "resource": self.demo.mcp_url,
            **changes,
        }

    def obtain_tokens(self, **changes: str | None) -> dict[str, Any]:
        response = self.exchange(self.obtain_code(**changes))
        assert response.status_code == 200, response.text
        tokens: dict[str, Any] = response.json()
        return tokens

    def refresh(self, refresh_token: str, **changes: str | None) -> httpx.Response:
        form: dict[str, str | None] = {
            "grant_type": "refresh_token",
            "refresh_token": refresh_token,
            "resource": self.demo.mcp_url,
            **changes,
        }
        return self.post_form("/token", form)

    def call_mcp(
        self, access_token: str | None, url: str | None = None, method: str = "ping"
    ) -> httpx.Response:
        headers = {"Accept": "application/json, text/event-stream"}
        if access_token is not None:
            headers["Authorization"] = f"Bearer {access_token}"
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": "add", "arguments": {}}}
        return httpx.post(url or self.demo.mcp_url, json=message, headers=headers)


def error_of(response: httpx.Response) -> tuple[int, str]:
    """Return the status and the error code of an error response, after a check of its format."""
    document = response.json()
    assert set(document) == {"error", "error_description"}
    assert response.headers["cache-control"] == "no-store"
    return response.status_code, document["error"]
