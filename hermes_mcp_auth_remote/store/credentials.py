"""What lasts for a server and an owner: tokens, client, authorization server, and our binding of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.urls import canonical_resource
from hermes_mcp_auth_remote.values import Secret


@dataclass(frozen=True, slots=True)
class Binding:
    """What Hermes's files do not say: whom the tokens are for and who issued them. Times in epoch seconds.

    `server` is the name as configured (a file's stem is not reversible); `login_needed` says why the session
    is over, while its tokens stay on disk. `config_files` is the identity (`hermes.config_identity`) of a
    config.yaml and a .env that give the server this address in any environment; None: not known.
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


@dataclass(frozen=True, slots=True)
class Credentials:
    """All that is stored for one server and owner; every part may be missing.

    `binding` is None where somebody else wrote the tokens: Hermes, or whoever logged in since with another
    client or at another issuer. Where it is not, nothing here contradicts it. `proof_key`
    is the private JWK that DPoP tokens are bound to (RFC 9449).
    """

    tokens: Tokens | None = None
    client: Client | None = None
    authorization_server: AuthorizationServer | None = None
    binding: Binding | None = None
    proof_key: Secret | None = None


def reconcile(credentials: Credentials, *, matches_tokens: bool) -> Credentials:
    """Return what belongs together of files that several programs write.

    `is_of_tokens` is True where the binding says that it speaks of these very tokens. Then it counts, and a
    client or metadata of somebody else is left out: a refresh token is for its own issuer alone (RFC 9700
    section 4.4). Else whoever wrote other tokens wrote the other client or metadata as well.
    """
    binding, client, server = credentials.binding, credentials.client, credentials.authorization_server
    if binding is None:
        return credentials
    if client is not None and client.client_id != binding.client_id:
        client = None
    if server is not None:
        # Hermes's rewriting appends a slash to a bare issuer; the server's own spelling is what counts.
        server = replace(server, issuer=binding.issuer) if _matches_issuer(binding, server) else None
    is_contradicted = (client is None, server is None) != (
        credentials.client is None,
        credentials.authorization_server is None,
    )
    if is_contradicted and not matches_tokens:
        return replace(credentials, binding=None)
    tokens = credentials.tokens
    if tokens is not None:
        tokens = replace(tokens, account=binding.account, refresh_expires_at=binding.refresh_expires_at)
    return replace(credentials, tokens=tokens, client=client, authorization_server=server)


def infer_binding(credentials: Credentials, server_name: str, server_url: str) -> Binding:
    """Return the binding of stored tokens; one that Hermes wrote is made of what lies beside them."""
    issuer, client = credentials.authorization_server, credentials.client
    return credentials.binding or Binding(
        server_name=server_name,
        server_url=server_url,
        issuer=issuer.issuer if issuer else "",
        client_id=client.client_id if client else "",
    )


def _matches_issuer(binding: Binding, authorization_server: AuthorizationServer) -> bool:
    if authorization_server.issuer == binding.issuer:
        return True
    try:
        return canonical_resource(authorization_server.issuer) == canonical_resource(binding.issuer)
    except McpAuthError:
        return False
