"""Sample servers, clients and requests for logins, and the first steps of their exchange scripts."""

from __future__ import annotations

from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest, authorization_request
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import (
    AuthorizationServer,
    Discovery,
    authorization_server_from_document,
    discover_metadata,
)
from hermes_mcp_auth_remote.oauth.redirect import read_authorization_response
from hermes_mcp_auth_remote.oauth.token import Tokens, exchange_code, refresh_tokens
from hermes_mcp_auth_remote.values import Secret
from tests.exchange_script import ExchangeScript, script_exchange

ISSUER = "https://as.example"
REDIRECT_URI = "http://127.0.0.1:8765/callback"
STATE = "St4te-of-this-login_and-of-no-other-0123456"
VERIFIER = "V3rifier-of-this-login_and-of-no-other-0123456789-0123456789"
NOW = 1_800_000_000.0

URL = "https://mcp.example/mcp"
PRM = "GET https://mcp.example/.well-known/oauth-protected-resource"
CHALLENGE = Challenge((f"{PRM[4:]}/mcp",))
RFC8414 = "/.well-known/oauth-authorization-server"
OPENID = "/.well-known/openid-configuration"
HTML = "<!doctype html><title>Not found</title>"

TOKEN_REQUEST = f"POST {ISSUER}/token"
CODE = "c0de-that-was-minted"
OLD_TOKENS = Tokens(
    Secret("old-access"),
    Secret("old-refresh"),
    frozenset({"read"}),
    expires_at=NOW - 1,
    refresh_expires_at=NOW + 9,
    account="ada@example",
)
TOKEN_RESPONSE: dict[str, object] = {
    "access_token": "fresh-access",
    "token_type": "Bearer",
    "expires_in": 3600,
}


def metadata(issuer: str = ISSUER, **members: object) -> dict[str, object]:
    """Build a metadata document; leave out each member whose value is None."""
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
    """Build an authorization server; the members override its metadata."""
    return authorization_server_from_document(metadata(**{"issuer": ISSUER, **members}))  # type: ignore[arg-type]


def client(**members: object) -> Client:
    """Build a client, by default a public one; the members override its fields."""
    return Client(**{"client_id": "client-1", "redirect_uris": (REDIRECT_URI,), **members})  # type: ignore[arg-type]


def request(**members: object) -> AuthorizationRequest:
    """Build the authorization request of a login; the members override its arguments."""
    arguments: dict[str, object] = {
        "authorization_server": server(),
        "client": client(),
        "redirect_uri": REDIRECT_URI,
        "state": Secret(STATE),
        "code_verifier": Secret(VERIFIER),
        **members,
    }
    return authorization_request(**arguments)  # type: ignore[arg-type]


def prm(*issuers: str, resource: str = URL, **members: object) -> dict[str, object]:
    return {"resource": resource, "authorization_servers": list(issuers), **members}


def script_discovery(
    issuer: str, *, resource: str = URL, trusted_issuers: tuple[str, ...] = ()
) -> ExchangeScript[Discovery]:
    """Script discovery up to the protected resource metadata, which names the issuer."""
    script = script_exchange(discover_metadata(URL, CHALLENGE, trusted_issuers=trusted_issuers))
    return script.expects(f"{PRM}/mcp").responds(200, prm(issuer, resource=resource))


def script_code_exchange(**members: object) -> ExchangeScript[Tokens]:
    login_request = request(**members)
    response = read_authorization_response(f"{REDIRECT_URI}?code={CODE}&state={STATE}", login_request)
    return script_exchange(exchange_code(response, login_request, NOW))


def script_refresh(*, scope: frozenset[str] | None = None, **members: object) -> ExchangeScript[Tokens]:
    oauth_client = client(**members)
    return script_exchange(
        refresh_tokens(server(), oauth_client, OLD_TOKENS, NOW, resource="https://mcp.example", scope=scope)
    )
