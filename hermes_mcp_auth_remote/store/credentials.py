"""What lasts for a server and an owner: tokens, client, authorization server, and our binding of them."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.values import Secret


@dataclass(frozen=True, slots=True)
class Binding:
    """What Hermes's files do not say: whom the tokens are for and who issued them. Times in epoch seconds.

    `server` is the name as configured (a file's stem is not reversible); `login_needed` says why the session
    is over, while its tokens stay on disk.
    """

    server: str
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


@dataclass(frozen=True, slots=True)
class Credentials:
    """All that is stored for one server and owner; every part may be missing.

    `binding` is None where somebody else wrote the rest: Hermes, or whoever logged in since with another
    client or at another issuer. `proof_key` is the private JWK that DPoP tokens are bound to (RFC 9449).
    """

    tokens: Tokens | None = None
    client: Client | None = None
    authorization_server: AuthorizationServer | None = None
    binding: Binding | None = None
    proof_key: Secret | None = None
