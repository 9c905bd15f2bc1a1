"""The connection that stored credentials describe, and when its user must be reminded."""

from __future__ import annotations

from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.oauth.token_refusal import TokenRefusal
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.status import remind_at
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.store.protocol import DueSession, Stored
from hermes_mcp_auth_remote.values import CredentialKey


def connection_from_credentials(
    key: CredentialKey,
    server_url: str,
    credentials: Credentials,
    refresh_failure: RefreshFailure | None = None,
    token_refusal: TokenRefusal | None = None,
) -> Connection:
    """Return the connection of stored credentials; both records must be about the stored tokens."""
    tokens, binding, authorization_server = (
        credentials.tokens,
        credentials.binding,
        credentials.authorization_server,
    )
    requested_scope = binding.requested_scope if binding else None
    granted_scope = tokens.scope if tokens else None
    return Connection(
        key=key,
        server_url=server_url,
        issuer=binding.issuer if binding else (authorization_server.issuer if authorization_server else ""),
        account=binding.account if binding else None,
        scope=granted_scope,
        expires_at=tokens.expires_at if tokens else None,
        can_refresh=bool(tokens and tokens.refresh_token and credentials.client and authorization_server)
        and not (refresh_failure and refresh_failure.is_final),
        missing_scope=(requested_scope or frozenset()) - granted_scope
        if granted_scope is not None
        else frozenset(),
        login_needed=_login_needed_reason(credentials, refresh_failure),
        refreshed_at=_refreshed_at(credentials),
        refresh_expires_at=tokens.refresh_expires_at if tokens else None,
        obtained_at=tokens.obtained_at if tokens else None,
        refresh_failure=refresh_failure,
        # If the server has not refused these tokens, it may still accept them.
        token_refusal=token_refusal if token_refusal is not None and token_refusal.is_refused else None,
        needed_scope=_needed_scope(binding, granted_scope),
        lacks_offline_access=_lacks_offline_access(credentials),
    )


def due_session(
    key: CredentialKey,
    stored: Stored,
    refresh_failure: RefreshFailure | None,
) -> DueSession | None:
    """Return when the user of a stored session must act, None if time alone never requires it.

    A store calls it with each write, also of a refresh failure, because none of them may be missed.
    """
    if stored.version is None:
        return None
    connection = connection_from_credentials(key, "", stored.credentials, refresh_failure)
    moment = remind_at(connection)
    return None if moment is None else DueSession(key, stored.version, moment)


def _lacks_offline_access(credentials: Credentials) -> bool:
    """True if the login got no refresh token and did not ask for `offline_access`, which the server lists."""
    tokens, binding, authorization_server = (
        credentials.tokens,
        credentials.binding,
        credentials.authorization_server,
    )
    if tokens is None or tokens.refresh_token is not None or authorization_server is None or binding is None:
        return False
    requested_scope = binding.requested_scope or frozenset({"offline_access"})
    is_listed = "offline_access" in (authorization_server.scopes_supported or ())
    return is_listed and "offline_access" not in requested_scope


def _needed_scope(binding: Binding | None, granted_scope: frozenset[str] | None) -> frozenset[str] | None:
    needed_scope = binding.needed_scope if binding else None
    if not needed_scope:
        return needed_scope
    return needed_scope - (granted_scope or frozenset()) or None


def session_ended_reason(authorization_server: AuthorizationServer) -> str:
    """Return why a login is needed after an authorization server has rejected the refresh token."""
    return f"{host_of(authorization_server.issuer)} has ended the session"


def _login_needed_reason(credentials: Credentials, refresh_failure: RefreshFailure | None) -> str | None:
    binding, authorization_server = credentials.binding, credentials.authorization_server
    if binding is not None and binding.login_needed is not None:
        return binding.login_needed
    # Tokens that Hermes wrote have no binding, so only the refresh failure says that the session is over.
    is_session_over = (
        refresh_failure is not None and refresh_failure.is_final and not refresh_failure.was_alive
    )
    return (
        session_ended_reason(authorization_server)
        if is_session_over and authorization_server is not None
        else None
    )


def _refreshed_at(credentials: Credentials) -> float | None:
    tokens, binding = credentials.tokens, credentials.binding
    if tokens is None or binding is None:
        return None
    recorded_at = binding.refreshed_at
    # Hermes does not record when it refreshes tokens. Lifetimes on the disk are in whole seconds.
    last_known_at = recorded_at or binding.connected_at
    obtained_at = tokens.obtained_at if tokens.expires_at is not None else None
    is_later = obtained_at is not None and last_known_at is not None and obtained_at > last_known_at + 1
    return obtained_at if is_later else recorded_at
