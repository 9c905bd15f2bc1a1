"""A session: the tokens of one (server, owner) as they are used. RFC 6750 §2.1, RFC 6749 §6.

The hot path, `header_now`, takes no lock and does no I/O: one comparison with the clock. Everything else
happens when that finds nothing: the store is read again, for another process may have refreshed; then we
refresh, once for all who wait, under the lock that Hermes uses; only when nothing is left is a person needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

from hermes_mcp_auth_remote.errors import (
    AuthorizationRequired,
    McpAuthError,
    StoreError,
    TokenRefused,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge, read_challenge
from hermes_mcp_auth_remote.oauth.token import Tokens, refresh
from hermes_mcp_auth_remote.oauth.urls import canonical_resource, host_of
from hermes_mcp_auth_remote.service.flights import Flights, landed
from hermes_mcp_auth_remote.service.waiting import held
from hermes_mcp_auth_remote.service.world import World
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.values import Key, Secret, Server

# A request on its way must not outlive its token; a tenth of a short life is enough.
REFRESH_AHEAD_SECONDS = 60.0
REFRESH_AHEAD_SHARE = 0.1
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


class Session:
    """The tokens of one server and owner, for any number of callers in any thread or event loop."""

    __slots__ = (
        "_authorization",
        "_dead",
        "_flights",
        "_fresh_until",
        "_trouble",
        "_unkept",
        "_world",
        "key",
        "server",
    )

    def __init__(self, world: World, server: Server, key: Key) -> None:
        self._world = world
        self._flights: Flights[str] = world.refreshes
        self._authorization = ""
        self._fresh_until = 0.0
        self._dead: Secret | None = None
        self._trouble: tuple[float, McpAuthError] | None = None
        self._unkept: _Unkept | None = None
        self.server = server
        self.key = key

    def header_now(self) -> str | None:
        """Return the Authorization header's value where a fresh token is in memory, else None."""
        return self._authorization if self._world.clock() < self._fresh_until else None

    async def header(self) -> str:
        """Return the Authorization header's value, reading the store or refreshing first where need be.

        Raises AuthorizationRequired where only a person can help, a NetworkError or StoreError else.
        """
        now = self.header_now()
        return now if now is not None else await landed(self._flight(None))

    def header_blocking(self) -> str:
        """Do what `header` does, for a caller without an event loop."""
        return self.header_now() or self._flight(None).result()

    async def challenged(self, refused: str, status: int, www_authenticate: Sequence[str]) -> str | None:
        """Return another header after a 401, or None where another token would change nothing.

        `refused` is the header that was sent. Raises as `header` does.
        """
        if not self._is_renewable(status, www_authenticate):
            return None
        if (header := self._other_than(refused)) is not None:
            return header
        renewed = await landed(self._flight(refused))
        if renewed == refused:
            # It joined a flight that knew nothing of the refusal yet.
            renewed = await landed(self._flight(refused))
        return renewed

    def challenged_blocking(self, refused: str, status: int, www_authenticate: Sequence[str]) -> str | None:
        """Do what `challenged` does, for a caller without an event loop."""
        if not self._is_renewable(status, www_authenticate):
            return None
        renewed = self._other_than(refused) or self._flight(refused).result()
        return renewed if renewed != refused else self._flight(refused).result()

    def adopt(self, tokens: Tokens) -> str:
        """Use these tokens from now on; returns the header's value."""
        authorization = tokens.authorization
        # In this order: a reader between the two sees an old header with an old time, never a wrong one.
        self._fresh_until = 0.0
        self._authorization = authorization
        self._fresh_until = fresh_until(tokens)
        return authorization

    def forget(self) -> None:
        """Use nothing from memory any more."""
        self._fresh_until = 0.0

    def _is_renewable(self, status: int, lines: Sequence[str]) -> bool:
        challenge = read_challenge(lines)
        if status == 403 and challenge.insufficient_scope:
            # RFC 6750 section 3.1; a refresh never widens a scope (RFC 6749 section 6).
            raise AuthorizationRequired(self.key.server, reason=_wider(challenge))
        return status == 401

    def _other_than(self, refused: str) -> str | None:
        header = self.header_now()
        return header if header != refused else None

    def _flight(self, refused: str | None) -> Future[str]:
        # By address, too: under one name, what one address may have is not for another.
        return self._flights.join((self.key, self.server.url), lambda: self._renew(refused))

    async def _renew(self, refused: str | None) -> str:
        """Find or make a token that is fresh and is not the refused one.

        Runs in a flight's own thread, where reading and writing files blocks nobody.
        """
        store = self._world.store
        if (header := self._adopted(self._usable(store.read(self.key)), refused)) is not None:
            return header
        async with held(store.lock(self.key)):
            stored = self._usable(store.read(self.key))
            if (header := self._adopted(stored, refused)) is not None:
                return header
            return await self._refreshed(stored, refused)

    def _usable(self, stored: Credentials) -> Credentials:
        binding = stored.binding
        if binding is not None and not _same_server(binding, self.server.url):
            # Another server by this name, or by one that Hermes writes alike: its token is not for us.
            raise AuthorizationRequired(
                self.key.server, reason="the stored tokens are for another address than the configured one"
            )
        return stored

    def _adopted(self, stored: Credentials, refused: str | None) -> str | None:
        tokens = stored.tokens
        if tokens is None or tokens.authorization == refused or fresh_until(tokens) <= self._world.clock():
            return None
        return self.adopt(tokens)

    async def _refreshed(self, stored: Credentials, refused: str | None) -> str:
        """Refresh what is stored, unless it is known already what would come of that."""
        tokens, client, issuer, binding = (
            stored.tokens,
            stored.client,
            stored.authorization_server,
            stored.binding,
        )
        if tokens is None:
            raise AuthorizationRequired(self.key.server)
        if binding is not None and binding.login_needed is not None:
            raise _over(self.key, binding.login_needed)
        if tokens.refresh_token is None or client is None or issuer is None:
            return self._old(tokens, refused, _over(self.key, "its access token has ended"))
        if self._unkept is not None and self._unkept.in_place_of == tokens.refresh_token:
            return self._kept(self._unkept)
        ended = _over(self.key, f"{host_of(issuer.issuer)} has ended the session")
        if tokens.refresh_token == self._dead:
            raise ended
        now = self._world.clock()
        if self._trouble is not None and now < self._trouble[0]:
            return self._old(tokens, refused, self._trouble[1].with_traceback(None))
        resource = binding.resource if binding else self._resource()
        try:
            fresh = await self._world.run(
                refresh(issuer, client, tokens, now, resource=resource), self.server
            )
        except McpAuthError as trouble:
            if isinstance(trouble, TokenRefused) and trouble.error in _ENDED:
                return self._ended(stored, ended)
            # A hiccup over there, or a setting here, ends nothing.
            self._trouble = self._world.clock() + RETRY_SECONDS, trouble
            return self._old(tokens, refused, trouble)
        if binding is not None:
            binding = replace(
                binding, refreshed_at=now, refresh_expires_at=fresh.refresh_expires_at, login_needed=None
            )
        return self._kept(_Unkept(tokens.refresh_token, fresh, binding))

    def _ended(self, stored: Credentials, ended: AuthorizationRequired) -> str:
        """Note that the session is over, unless there is another by now."""
        tokens = stored.tokens
        if tokens is None:
            raise ended
        # A writer that takes no lock (Hermes 0.19) may have rotated it under our hands.
        found = self._usable(self._world.store.read(self.key))
        if (header := self._adopted(found, tokens.authorization)) is not None:
            return header
        self._dead = tokens.refresh_token
        self._mark(stored.binding, ended.reason)
        raise ended

    def _kept(self, unkept: _Unkept) -> str:
        """Store refreshed tokens, then use them; where the disk refuses, the next caller tries again.

        On the disk before their first use: a rotated refresh token that is lost ends the session.
        """
        self._unkept = unkept
        self._world.store.replace_tokens(self.key, unkept.tokens, unkept.binding)
        self._unkept = None
        return self.adopt(unkept.tokens)

    def _old(self, tokens: Tokens, refused: str | None, why: McpAuthError) -> str:
        """Go on with the old token while it lives, and do not ask again at once; else raise."""
        now = self._world.clock()
        ends = math.inf if tokens.expires_at is None else tokens.expires_at
        if ends <= now or tokens.authorization == refused:
            raise why
        header = self.adopt(tokens)
        self._fresh_until = min(ends, now + BACK_OFF_SECONDS)
        return header

    def _mark(self, binding: Binding | None, why: str) -> None:
        if binding is None:
            return
        try:
            self._world.store.mark(self.key, replace(binding, login_needed=why))
        except StoreError:
            return  # a note for other processes, which will find out by themselves

    def _resource(self) -> str | None:
        override = self.server.options.resource
        return canonical_resource(self.server.url) if override is None else (override or None)


def fresh_until(tokens: Tokens) -> float:
    """Return until when tokens need no refresh, in epoch seconds; infinite where they say no end."""
    if tokens.expires_at is None:
        return math.inf
    ahead = REFRESH_AHEAD_SECONDS
    if tokens.obtained_at is not None:
        ahead = min(ahead, (tokens.expires_at - tokens.obtained_at) * REFRESH_AHEAD_SHARE)
    return tokens.expires_at - max(ahead, 0.0)


def _same_server(binding: Binding, url: str) -> bool:
    return canonical_resource(binding.server_url) == canonical_resource(url)


def _wider(challenge: Challenge) -> str:
    wanted = " ".join(sorted(challenge.scope or ()))
    return f"this request needs more access ({wanted})" if wanted else "this request needs more access"


def _over(key: Key, reason: str) -> AuthorizationRequired:
    return AuthorizationRequired(key.server, reason=reason)
