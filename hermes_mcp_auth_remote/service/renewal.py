"""Finding or making a token that is good: the store first, then a refresh, then nobody but a person.

Runs in a flight (`flights`): in a thread of its own, one at a time per session and process, and under the
lock that Hermes takes where it writes. RFC 6749 §6.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace

from hermes_mcp_auth_remote.errors import AuthorizationRequired, McpAuthError, StoreError, TokenRefused
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.token import Tokens, refresh
from hermes_mcp_auth_remote.oauth.urls import canonical_resource, host_of
from hermes_mcp_auth_remote.service.granting import granted
from hermes_mcp_auth_remote.service.ready import Ready, fresh_until, ready
from hermes_mcp_auth_remote.service.waiting import held
from hermes_mcp_auth_remote.service.world import World
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.values import Key, Secret, Server

# How long an old token is used without another try, after a refresh that failed for the moment.
BACK_OFF_SECONDS = 15.0
# How long nobody asks again where the old token has ended, too: short, for everybody waits for it.
RETRY_SECONDS = 5.0
# What a token endpoint says when asking again is of no use.
_ENDED = frozenset({"invalid_grant", "invalid_client", "unauthorized_client"})


@dataclass(frozen=True, slots=True)
class _Unkept:
    """Refreshed tokens that the disk did not take: the only ones that are good, so they are not let go."""

    in_place_of: Secret
    tokens: Tokens
    binding: Binding | None


class Renewal:
    """Renews the tokens of one server and owner, and remembers what is of no use to try again."""

    def __init__(self, world: World, server: Server, key: Key) -> None:
        self._world = world
        self._server = server
        self._key = key
        self._dead: Secret | None = None
        self._trouble: tuple[float, McpAuthError] | None = None
        self._unkept: _Unkept | None = None
        # The key of the tokens that were read last, and its prover, which knows what nonces are wanted.
        self._proving: tuple[Secret, Prover] | None = None

    @property
    def needs_nobody(self) -> bool:
        """True where the grant is one without a person: who needs a token asks the server again."""
        return self._server.options.grant != "authorization_code"

    async def renewed(self, refused: str | None, challenge: Challenge | None = None) -> Ready:
        """Find or make a token that is fresh and is not the refused one.

        `challenge` is what the server wants beyond it. Raises AuthorizationRequired where only a person can
        help, a NetworkError or StoreError else; without a person also a ServerError or ConfigError.
        """
        if (found := self._found(refused)[0]) is not None:
            return found
        async with held(self._world.store.lock(self._key)):
            found, stored = self._found(refused)
            if found is not None:
                return found
            if self.needs_nobody:
                return await self._granted(stored, refused, challenge)
            return await self._refreshed(stored, refused)

    def _found(self, refused: str | None) -> tuple[Ready | None, Credentials]:
        """Read the store: what can be used at once, and all that is there."""
        version = self._world.store.version(self._key)
        stored = self._world.store.read(self._key)
        binding = stored.binding
        if binding is not None and not _same_server(binding, self._server.url):
            # Another server by this name, or by one that Hermes writes alike: its token is not for us.
            raise AuthorizationRequired(
                self._key.server, reason="the stored tokens are for another address than the configured one"
            )
        tokens = stored.tokens
        if tokens is None or tokens.authorization == refused or fresh_until(tokens) <= self._world.clock():
            return None, stored
        if tokens.scheme == "DPoP" and stored.proof_key is None:
            if self.needs_nobody:
                return None, stored
            raise self._over("the key that its tokens are bound to is gone")
        return ready(tokens, version, self._prover(stored.proof_key)), stored

    def _prover(self, proof_key: Secret | None) -> Prover | None:
        if proof_key is None:
            return None
        known = self._proving
        if known is None or known[0] != proof_key:
            prover = self._world.prover(proof_key)
            known = self._proving = None if prover is None else (proof_key, prover)
        return None if known is None else known[1]

    async def _granted(self, stored: Credentials, refused: str | None, challenge: Challenge | None) -> Ready:
        """Ask for tokens again, and store them; the grant needs no person."""
        tokens, now = stored.tokens, self._world.clock()
        try:
            if self._trouble is not None and now < self._trouble[0]:
                raise self._trouble[1].with_traceback(None)
            fresh = await granted(self._world, self._server, self._key, stored, challenge)
        except McpAuthError as trouble:
            if self._trouble is None or now >= self._trouble[0]:
                self._trouble = self._world.clock() + RETRY_SECONDS, trouble
            if tokens is None:
                raise
            return self._old(stored, tokens, refused, trouble)
        if fresh.tokens is None:
            raise AuthorizationRequired(self._key.server)
        self._world.store.replace(self._key, fresh)
        version = self._world.store.version(self._key)
        return ready(fresh.tokens, version, self._prover(fresh.proof_key))

    async def _refreshed(self, stored: Credentials, refused: str | None) -> Ready:
        """Refresh what is stored, unless it is known already what would come of that."""
        tokens, client, issuer, binding = (
            stored.tokens,
            stored.client,
            stored.authorization_server,
            stored.binding,
        )
        if tokens is None:
            raise AuthorizationRequired(self._key.server)
        if binding is not None and binding.login_needed is not None:
            raise self._over(binding.login_needed)
        if tokens.refresh_token is None or client is None or issuer is None:
            return self._old(stored, tokens, refused, self._over("its access token has ended"))
        prover = self._prover(stored.proof_key)
        if self._unkept is not None and self._unkept.in_place_of == tokens.refresh_token:
            return self._kept(self._unkept, prover)
        ended = self._over(f"{host_of(issuer.issuer)} has ended the session")
        if tokens.refresh_token == self._dead:
            raise ended
        now = self._world.clock()
        if self._trouble is not None and now < self._trouble[0]:
            return self._old(stored, tokens, refused, self._trouble[1].with_traceback(None))
        resource = binding.resource if binding else self._resource()
        try:
            fresh = await self._world.run(
                refresh(
                    issuer,
                    client,
                    tokens,
                    now,
                    resource=resource,
                    sign=self._world.signer(self._server),
                    prover=prover,
                ),
                self._server,
            )
        except McpAuthError as trouble:
            if isinstance(trouble, TokenRefused) and trouble.error in _ENDED:
                return self._ended(stored, ended, client if trouble.error == "invalid_client" else None)
            # A hiccup over there, or a setting here, ends nothing.
            self._trouble = self._world.clock() + RETRY_SECONDS, trouble
            return self._old(stored, tokens, refused, trouble)
        if binding is not None:
            binding = replace(
                binding, refreshed_at=now, refresh_expires_at=fresh.refresh_expires_at, login_needed=None
            )
        return self._kept(_Unkept(tokens.refresh_token, fresh, binding), prover)

    def _ended(self, stored: Credentials, ended: AuthorizationRequired, unknown: Client | None) -> Ready:
        """Note that the session is over, unless there is another by now; `unknown` is a client to forget."""
        tokens = stored.tokens
        if tokens is None:
            raise ended
        # A writer that takes no lock (Hermes 0.19) may have rotated it under our hands.
        if (found := self._found(tokens.authorization)[0]) is not None:
            return found
        self._dead = tokens.refresh_token
        self._mark(stored.binding, ended.reason)
        if unknown is not None:
            # The next login registers anew.
            with contextlib.suppress(StoreError):
                self._world.store.drop_client(self._key, unknown)
        raise ended

    def _kept(self, unkept: _Unkept, prover: Prover | None) -> Ready:
        """Store refreshed tokens, then use them; where the disk refuses, the next caller tries again.

        On the disk before their first use: a rotated refresh token that is lost ends the session.
        """
        self._unkept = unkept
        self._world.store.replace_tokens(self._key, unkept.tokens, unkept.binding)
        self._unkept = None
        bound = prover if unkept.tokens.scheme == "DPoP" else None
        return ready(unkept.tokens, self._world.store.version(self._key), bound)

    def _old(self, stored: Credentials, tokens: Tokens, refused: str | None, why: McpAuthError) -> Ready:
        """Go on with the old token while it lives, and do not ask again at once; else raise."""
        now = self._world.clock()
        ends = math.inf if tokens.expires_at is None else tokens.expires_at
        if ends <= now or tokens.authorization == refused:
            raise why
        version, prover = self._world.store.version(self._key), self._prover(stored.proof_key)
        return Ready(tokens.authorization, min(ends, now + BACK_OFF_SECONDS), ends, version, prover)

    def _mark(self, binding: Binding | None, why: str) -> None:
        if binding is not None:
            # A note for other processes, which would find out by themselves.
            with contextlib.suppress(StoreError):
                self._world.store.mark(self._key, replace(binding, login_needed=why))

    def _resource(self) -> str | None:
        override = self._server.options.resource
        return canonical_resource(self._server.url) if override is None else (override or None)

    def _over(self, reason: str) -> AuthorizationRequired:
        return AuthorizationRequired(self._key.server, reason=reason)


def _same_server(binding: Binding, url: str) -> bool:
    return canonical_resource(binding.server_url) == canonical_resource(url)
