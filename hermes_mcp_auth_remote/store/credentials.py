"""The credentials of one server and owner: tokens, client, authorization server and binding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.urls import is_same_address
from hermes_mcp_auth_remote.values import Secret


@dataclass(frozen=True, slots=True)
class UnansweredClient:
    """A stored client that the server may have forgotten: a login with it got no response (quirk 49).

    `replacement` is the client that a later login registered instead, None if there was no later login.
    """

    client_id: str
    replacement: Client | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """Facts about tokens that Hermes's files do not contain. Times are in epoch seconds.

    `server_name` is the name in config.yaml; it cannot be derived from a file's stem. `login_needed` says why
    the session is over; the tokens of that session stay on disk. `config_files` identifies the
    config.yaml and .env that define the URL (`hermes_home.config_identity`). It is None if they are unknown,
    or if the URL also depends on environment variables. `needed_scope` is the scope that the server has
    demanded by `insufficient_scope` since the login. It is empty if the server named no scope, and None if
    there was no such challenge. `is_public_only` is that of the server (`values.Server`).
    `unanswered_client` is set after a login that reused a client and got no response.
    """

    server_name: str
    server_url: str
    issuer: str
    client_id: str
    resource: str | None = None
    requested_scope: frozenset[str] | None = None
    account: str | None = None
    connected_at: float | None = None
    refreshed_at: float | None = None
    refresh_expires_at: float | None = None
    login_needed: str | None = None
    config_files: str | None = None
    needed_scope: frozenset[str] | None = None
    is_public_only: bool = False
    unanswered_client: UnansweredClient | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """Everything that is stored for one server and owner; every part may be missing.

    `binding` is None if Hermes wrote the tokens, or if another program has stored a later login with another
    client or issuer. If there is a binding, the other parts agree with it. `proof_key` is the private JWK
    that DPoP tokens are bound to (RFC 9449).
    """

    tokens: Tokens | None = None
    client: Client | None = None
    authorization_server: AuthorizationServer | None = None
    binding: Binding | None = None
    proof_key: Secret | None = None

    @property
    def unanswered_client(self) -> UnansweredClient | None:
        """The mark of the binding if it is about the stored client; else None."""
        mark = self.binding.unanswered_client if self.binding else None
        is_stored_client = mark and self.client and mark.client_id == self.client.client_id
        return mark if is_stored_client else None


def reconcile(credentials: Credentials, matches_tokens: Callable[[], bool]) -> Credentials:
    """Return the parts of credentials that belong together: several programs write the files.

    `matches_tokens` returns True if the binding was written for these tokens. Then the binding decides, and a
    client or metadata of another login is left out: only the issuer of a refresh token may receive it (RFC
    9700 section 4.4). If it returns False, the program that wrote the tokens also wrote the client
    and the metadata, so a binding that contradicts them is left out.
    """
    binding, client = credentials.binding, credentials.client
    authorization_server = credentials.authorization_server
    if binding is None:
        return credentials
    if client is not None and client.client_id != binding.client_id:
        client = None
    if authorization_server is not None:
        # Hermes appends a slash to an issuer without a path. Use the spelling of the authorization server.
        if not _matches_issuer(binding, authorization_server):
            authorization_server = None
        elif authorization_server.issuer != binding.issuer:
            authorization_server = replace(authorization_server, issuer=binding.issuer)
    is_contradicted = (client is None, authorization_server is None) != (
        credentials.client is None,
        credentials.authorization_server is None,
    )
    if is_contradicted and not matches_tokens():
        return replace(credentials, binding=None)
    tokens = credentials.tokens
    account, refresh_expires_at = binding.account, binding.refresh_expires_at
    # A copy costs more than a comparison, and most credentials agree with their binding.
    if tokens is not None and (tokens.account, tokens.refresh_expires_at) != (account, refresh_expires_at):
        tokens = replace(tokens, account=account, refresh_expires_at=refresh_expires_at)
    elif client is credentials.client and authorization_server is credentials.authorization_server:
        return credentials
    return Credentials(tokens, client, authorization_server, binding, credentials.proof_key)


def infer_binding(credentials: Credentials, server_name: str, server_url: str) -> Binding:
    """Return the binding of stored tokens; for tokens of Hermes, derive it from client and metadata."""
    authorization_server, client = credentials.authorization_server, credentials.client
    return credentials.binding or Binding(
        server_name=server_name,
        server_url=server_url,
        issuer=authorization_server.issuer if authorization_server else "",
        client_id=client.client_id if client else "",
    )


def _matches_issuer(binding: Binding, authorization_server: AuthorizationServer) -> bool:
    # The binding of Hermes's tokens may have no issuer, which is no safe URL.
    issuer = authorization_server.issuer
    return issuer == binding.issuer or is_same_address(issuer, binding.issuer)
