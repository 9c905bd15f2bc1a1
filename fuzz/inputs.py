"""Inputs that the harnesses share: samples, responses made from bytes, and an authorization request."""

from __future__ import annotations

from pathlib import Path

from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest, authorization_request
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer, authorization_server_from_document
from hermes_mcp_auth_remote.oauth.wire import Response
from hermes_mcp_auth_remote.values import Secret

SAMPLES = Path(__file__).resolve().parents[1] / "tests" / "samples"
ISSUER = "https://as.example"
REDIRECT_URI = "http://127.0.0.1:8765/callback"
STATE = "the-state-of-this-login"
NOW = 1_800_000_000.0

_STATUSES = (200, 201, 400, 401, 403, 429, 500, 302)
_CONTENT_TYPES = ("application/json", "application/x-www-form-urlencoded", "text/html; charset=utf-8", "")
OK_JSON, OK_FORM, BAD_JSON = b"\x00\x00", b"\x00\x01", b"\x02\x00"


def read_sample(name: str) -> bytes:
    """Return a recorded response of a real server."""
    return (SAMPLES / name).read_bytes()


def make_response(data: bytes) -> Response:
    """Make a response: one byte selects the status, one the content type, and the rest is the body."""
    head, body = data[:2].ljust(2, b"\0"), data[2:]
    content_type = _CONTENT_TYPES[head[1] % len(_CONTENT_TYPES)]
    return Response(
        _STATUSES[head[0] % len(_STATUSES)], (("content-type", content_type),) if content_type else (), body
    )


def make_authorization_server() -> AuthorizationServer:
    """Return an authorization server with all endpoints."""
    return authorization_server_from_document(
        {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "registration_endpoint": f"{ISSUER}/register",
            "device_authorization_endpoint": f"{ISSUER}/device",
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
        }
    )


def make_client() -> Client:
    """Return a public client of this authorization server."""
    return Client("client-1", redirect_uris=(REDIRECT_URI,))


def make_authorization_request() -> AuthorizationRequest:
    """Return the authorization request of a waiting login."""
    return authorization_request(
        make_authorization_server(),
        make_client(),
        redirect_uri=REDIRECT_URI,
        state=Secret(STATE),
        code_verifier=Secret("the-verifier-of-this-login"),
    )


def check(condition: object, message: str) -> None:
    """Raise AssertionError unless the condition holds."""
    if not condition:
        raise AssertionError(message)
