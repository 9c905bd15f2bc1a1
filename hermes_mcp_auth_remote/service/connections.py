"""What stored credentials amount to, and how they end. RFC 7009 for revocation."""

from __future__ import annotations

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.oauth.client import Signer
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.oauth.token import revocation_request
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.values import CredentialKey


def connection_from_credentials(
    key: CredentialKey,
    server_url: str,
    credentials: Credentials,
    refresh_failure: RefreshFailure | None = None,
) -> Connection:
    """Say what stored credentials amount to, for people; `failure` is what came of the last refresh."""
    tokens, binding, issuer = credentials.tokens, credentials.binding, credentials.authorization_server
    asked = binding.requested_scope if binding else None
    granted = tokens.scope if tokens else None
    return Connection(
        key=key,
        server_url=server_url,
        issuer=binding.issuer if binding else (issuer.issuer if issuer else ""),
        account=binding.account if binding else None,
        scope=granted,
        expires_at=tokens.expires_at if tokens else None,
        can_refresh=bool(tokens and tokens.refresh_token and credentials.client and issuer)
        and not (refresh_failure and refresh_failure.is_final),
        missing_scope=(asked or frozenset()) - granted if granted is not None else frozenset(),
        login_needed=_login_needed_reason(credentials, refresh_failure),
        refreshed_at=_refreshed_at(credentials),
        refresh_expires_at=tokens.refresh_expires_at if tokens else None,
        obtained_at=tokens.obtained_at if tokens else None,
        refresh_failure=refresh_failure,
    )


def session_ended_reason(authorization_server: AuthorizationServer) -> str:
    """Say why a login is needed once an authorization server has refused the refresh token for good."""
    return f"{host_of(authorization_server.issuer)} has ended the session"


def _login_needed_reason(credentials: Credentials, refresh_failure: RefreshFailure | None) -> str | None:
    binding, issuer = credentials.binding, credentials.authorization_server
    if binding is not None and binding.login_needed is not None:
        return binding.login_needed
    # Tokens that Hermes wrote have no binding that could say it.
    is_over = refresh_failure is not None and refresh_failure.is_final and not refresh_failure.was_alive
    return session_ended_reason(issuer) if is_over and issuer is not None else None


def _refreshed_at(credentials: Credentials) -> float | None:
    tokens, binding = credentials.tokens, credentials.binding
    if tokens is None or binding is None:
        return None
    noted = binding.refreshed_at
    # Hermes refreshes too, and notes it nowhere; the lifetime on the disk is in whole seconds.
    known = noted or binding.connected_at
    obtained = tokens.obtained_at if tokens.expires_at is not None else None
    is_later = obtained is not None and known is not None and obtained > known + 1
    return obtained if is_later else noted


def revoke_tokens(credentials: Credentials, sign: Signer | None = None) -> Exchange[bool]:
    """Revoke the refresh token, then the access token (RFC 7009 §2.1); True where that ended the session.

    Best effort: a server without the endpoint, or out of reach, stops nobody from logging out. Some servers
    cannot revoke access tokens; what counts is the refresh token, where there is one.
    """
    client, issuer, tokens = credentials.client, credentials.authorization_server, credentials.tokens
    if client is None or issuer is None or tokens is None:
        return False
    outcomes: list[bool] = []
    for token, hint in ((tokens.refresh_token, "refresh_token"), (tokens.access_token, "access_token")):
        try:
            request = (
                revocation_request(issuer, client, token, hint, sign=sign) if token is not None else None
            )
            if request is not None:
                response = yield request
                outcomes.append(response.ok)
        except McpAuthError:
            outcomes.append(False)
    return bool(outcomes) and outcomes[0]
