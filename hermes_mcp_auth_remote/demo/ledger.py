"""Clients, codes and tokens in memory, with their lifetimes. RFC 6749 §4.1.2, RFC 9700 §4.14."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field, replace

from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.values import Clock, Entropy


class OAuthError(Exception):
    """An error response: `error`, its description and the HTTP status (RFC 6749 section 5.2)."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description
        self.status = status


@dataclass(frozen=True, slots=True)
class DemoClient:
    """A registered client."""

    client_id: str
    name: str
    redirect_uris: tuple[str, ...]
    auth_method: str = "none"
    secret: str | None = field(default=None, repr=False)
    grant_types: tuple[str, ...] = ("authorization_code", "refresh_token")


@dataclass(frozen=True, slots=True)
class ValidatedRequest:
    """A valid authorization request, which the user is asked to approve."""

    client: DemoClient
    redirect_uri: str
    state: str | None = field(repr=False)
    code_challenge: str
    scope: frozenset[str]
    resource: str | None


@dataclass(slots=True)
class AuthorizationCode:
    """An authorization code. `family` is the token family that its redemption created."""

    request: ValidatedRequest
    expires_at: float
    family: TokenFamily | None = None
    is_used: bool = False


@dataclass(slots=True)
class TokenFamily:
    """All tokens of one approval. The server revokes them together."""

    client_id: str
    scope: frozenset[str]
    resource: str | None
    revoked: bool = False


@dataclass(slots=True)
class AccessToken:
    """An access token, valid or not."""

    family: TokenFamily
    scope: frozenset[str]
    expires_at: float
    revoked: bool = False


@dataclass(slots=True)
class RefreshToken:
    """A refresh token. `used_at` is set when the server rotates it."""

    family: TokenFamily
    used_at: float | None = None


@dataclass(frozen=True, slots=True)
class IssuedTokens:
    """The content of a token response."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    scope: frozenset[str]


class Ledger:
    """Issues and stores secrets. The tests search their output for each secret in `minted_secrets`."""

    def __init__(self, clock: Clock = time.time, entropy: Entropy = secrets.token_urlsafe) -> None:
        self.clock = clock
        self.entropy = entropy
        self.minted_secrets: set[str] = set()
        self.clients: dict[str, DemoClient] = {}
        self.codes: dict[str, AuthorizationCode] = {}
        self.access_tokens: dict[str, AccessToken] = {}
        self.refresh_tokens: dict[str, RefreshToken] = {}

    def mint(self, prefix: str, size_bytes: int = 24) -> str:
        """Create a secret of `size_bytes` random bytes and record it in `minted_secrets`."""
        secret = f"{prefix}_{self.entropy(size_bytes)}"
        self.minted_secrets.add(secret)
        return secret

    def issue_code(self, request: ValidatedRequest, behaviour: Behaviour) -> str:
        """Issue a code for an approved request."""
        code = self.mint("code")
        self.codes[code] = AuthorizationCode(request, self.clock() + behaviour.code_seconds)
        return code

    def redeem_code(
        self, client: DemoClient, text: str, behaviour: Behaviour
    ) -> tuple[ValidatedRequest, TokenFamily]:
        """Use a code and return its request and a new token family. Raises OAuthError.

        The code stays used even if a later check of the token request fails.

        RFC 6749 section 4.1.2: if a code is used more than once, the server "SHOULD revoke (when possible)
        all tokens previously issued based on that authorization code".
        """
        code = self.codes.get(text)
        if code is None or code.request.client.client_id != client.client_id:
            raise OAuthError("invalid_grant", "The code is unknown, or another client's.")
        if code.is_used:
            if code.family is not None:
                code.family.revoked = True
            raise OAuthError("invalid_grant", "The code was used before; its tokens are revoked.")
        code.is_used = True
        if self.clock() >= code.expires_at:
            raise OAuthError("invalid_grant", "The code has expired.")
        scope = code.request.scope
        if behaviour.grant_scopes is not None:
            scope &= behaviour.grant_scopes
        code.family = TokenFamily(client.client_id, scope, code.request.resource)
        return code.request, code.family

    def redeem_refresh_token(self, client: DemoClient, text: str, behaviour: Behaviour) -> RefreshToken:
        """Return a valid refresh token, or raise OAuthError. If it was rotated before, revoke its family."""
        token = self.refresh_tokens.get(text)
        if token is None or token.family.client_id != client.client_id or token.family.revoked:
            raise OAuthError("invalid_grant", "The refresh token is unknown, revoked, or another client's.")
        if token.used_at is not None and self.clock() >= token.used_at + behaviour.reuse_grace_seconds:
            # RFC 9700 section 4.14.2: the server cannot tell if the client or an attacker used it first.
            token.family.revoked = True
            raise OAuthError("invalid_grant", "The refresh token was used before; its family is revoked.")
        return token

    def issue_tokens(
        self,
        family: TokenFamily,
        scope: frozenset[str],
        behaviour: Behaviour,
        previous: RefreshToken | None = None,
    ) -> IssuedTokens:
        """Issue an access token and, if configured, a refresh token that replaces `previous`."""
        now = self.clock()
        if previous is not None and behaviour.refresh_revokes_access:
            self.revoke_access_tokens(family)
        access_token, refresh_token = self.mint("at"), None
        self.access_tokens[access_token] = AccessToken(family, scope, now + behaviour.access_token_seconds)
        if behaviour.issue_refresh_token and (previous is None or behaviour.rotates_refresh_tokens):
            refresh_token = self.mint("rt")
            self.refresh_tokens[refresh_token] = RefreshToken(family)
            if previous is not None and previous.used_at is None:
                previous.used_at = now
        return IssuedTokens(access_token, refresh_token, scope)

    def find_live_token(self, access_token: str) -> AccessToken | None:
        """Return an access token if it is valid now, otherwise None."""
        token = self.access_tokens.get(access_token)
        is_live = token and not token.revoked and not token.family.revoked and self.clock() < token.expires_at
        return token if is_live else None

    def revoke(self, client: DemoClient, text: str) -> None:
        """Revoke one access token, or a refresh token with all its family (RFC 7009 section 2.1)."""
        token = self.refresh_tokens.get(text) or self.access_tokens.get(text)
        if token is None:
            return
        if token.family.client_id != client.client_id:
            raise OAuthError("unauthorized_client", "The token is another client's.")
        if isinstance(token, RefreshToken):
            token.family.revoked = True
        else:
            token.revoked = True

    def revoke_access_tokens(self, family: TokenFamily | None = None) -> None:
        """Revoke all access tokens, or those of one family. Refresh tokens stay valid."""
        for token in list(self.access_tokens.values()):
            if family is None or token.family is family:
                token.revoked = True

    def revoke_everything(self) -> None:
        """Revoke all tokens. Clients stay registered."""
        for access_token in list(self.access_tokens.values()):
            access_token.family.revoked = True
        for refresh_token in list(self.refresh_tokens.values()):
            refresh_token.family.revoked = True

    def forget_clients(self) -> None:
        """Remove all clients, as a server does when registrations expire. They then get `invalid_client`."""
        self.clients.clear()

    def add_client(self, client: DemoClient) -> DemoClient:
        """Register a client. Create an id if it has none, and a secret if its method needs one."""
        client_id = client.client_id or f"client-{self.entropy(9)}"
        secret = client.secret
        if client.auth_method != "none" and secret is None:
            secret = self.mint("secret")
        elif secret is not None:
            self.minted_secrets.add(secret)
        client = replace(client, client_id=client_id, secret=secret)
        self.clients[client_id] = client
        return client
