"""The parties of a login as values: an authorization server, a client, a request. All made up."""

from __future__ import annotations

from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest, authorization_request
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer, authorization_server
from hermes_mcp_auth_remote.values import Secret

ISSUER = "https://as.example"
REDIRECT_URI = "http://127.0.0.1:8765/callback"
STATE = "St4te-of-this-login_and-of-no-other-0123456"
VERIFIER = "V3rifier-of-this-login_and-of-no-other-0123456789-0123456789"
NOW = 1_800_000_000.0


def metadata(issuer: str = ISSUER, **members: object) -> dict[str, object]:
    """Build a metadata document; a member given as None is left out."""
    base = issuer.rstrip("/")
    document: dict[str, object] = {
        "issuer": issuer,
        "authorization_endpoint": f"{base}/authorize",
        "token_endpoint": f"{base}/token",
        "registration_endpoint": f"{base}/register",
        "code_challenge_methods_supported": ["S256"],
        **members,
    }
    return {name: value for name, value in document.items() if value is not None}


def server(**members: object) -> AuthorizationServer:
    """Build an authorization server whose metadata differs by these members."""
    return authorization_server(metadata(**{"issuer": ISSUER, **members}))  # type: ignore[arg-type]


def client(**members: object) -> Client:
    """Build a public client, or another by these members."""
    return Client(**{"client_id": "client-1", "redirect_uris": (REDIRECT_URI,), **members})  # type: ignore[arg-type]


def request(**members: object) -> AuthorizationRequest:
    """Build the request of one waiting login, or another by these members."""
    arguments: dict[str, object] = {
        "server": server(),
        "client": client(),
        "redirect_uri": REDIRECT_URI,
        "state": Secret(STATE),
        "code_verifier": Secret(VERIFIER),
        **members,
    }
    return authorization_request(**arguments)  # type: ignore[arg-type]
