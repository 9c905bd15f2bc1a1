"""A session: the tokens of one (server, owner) as they are used. RFC 6750 §2.1, RFC 6749 §6.

The hot path, `header_now`, takes no lock and does no I/O: one comparison with the clock. Everything else
happens when that finds nothing: the store is read again, for another process may have refreshed; then we
refresh, once for all who wait, under the lock that Hermes uses; only when nothing is left is a person needed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

from hermes_mcp_auth_remote.errors import (
    AuthorizationRequired,
    McpAuthError,
    NetworkError,
    StoreUnwritable,
    TokenRefused,
    UnreadableAnswer,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge, read_challenge
from hermes_mcp_auth_remote.oauth.token import Tokens, refresh
from hermes_mcp_auth_remote.oauth.urls import canonical_resource, host_of, origin_of
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
# What a token endpoint says when asking again is of no use.
_ENDED = frozenset({"invalid_grant", "invalid_client", "unauthorized_client"})


class Session:
    """The tokens of one server and owner, for any number of callers in any thread or event loop."""

    __slots__ = ("_authorization", "_dead", "_flights", "_fresh_until", "_world", "key", "origin", "server")

    def __init__(self, world: World, server: Server, key: Key) -> None:
        self._world = world
        self._flights: Flights[str] = world.refreshes
        self._authorization = ""
        self._fresh_until = 0.0
        self._dead: Secret | None = None
        self.server = server
        self.key = key
        self.origin = origin_of(server.url)

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
        flight = self._renewal(refused, status, www_authenticate)
        if flight is None:
            return None
        return await landed(flight)

    def challenged_blocking(self, refused: str, status: int, www_authenticate: Sequence[str]) -> str | None:
        """Do what `challenged` does, for a caller without an event loop."""
        flight = self._renewal(refused, status, www_authenticate)
        return flight.result() if flight is not None else None

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

    def _renewal(self, refused: str, status: int, lines: Sequence[str]) -> Future[str] | None:
        challenge = read_challenge(lines)
        if status == 403 and challenge.insufficient_scope:
            # RFC 6750 section 3.1; a refresh never widens a scope (RFC 6749 section 6).
            raise AuthorizationRequired(self.key.server, reason=_wider(challenge))
        return self._flight(refused) if status == 401 else None

    def _flight(self, refused: str | None) -> Future[str]:
        return self._flights.join((self.key, self.origin), lambda: self._renew(refused))

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
        tokens, client, issuer, binding = (
            stored.tokens,
            stored.client,
            stored.authorization_server,
            stored.binding,
        )
        if tokens is None:
            raise AuthorizationRequired(self.key.server)
        if binding is not None and binding.login_needed is not None:
            raise AuthorizationRequired(self.key.server, reason=binding.login_needed)
        if tokens.refresh_token is None or client is None or issuer is None:
            return self._while_it_lives(tokens, refused, _over(self.key, "its access token has ended"))
        ended = _over(self.key, f"{host_of(issuer.issuer)} has ended the session")
        if tokens.refresh_token == self._dead:
            raise ended
        resource = binding.resource if binding else self._resource()
        now = self._world.clock()
        try:
            fresh = await self._world.run(
                refresh(issuer, client, tokens, now, resource=resource), self.server
            )
        except TokenRefused as refusal:
            if refusal.error not in _ENDED:
                return self._while_it_lives(tokens, refused, refusal)
            # A writer that takes no lock (Hermes 0.19) may have rotated it under our hands.
            if (header := self._adopted(self._world.store.read(self.key), tokens.authorization)) is not None:
                return header
            self._dead = tokens.refresh_token
            self._mark(binding, ended.reason)
            raise ended from None
        except (NetworkError, UnreadableAnswer) as trouble:
            # A hiccup over there ends nothing here.
            return self._while_it_lives(tokens, refused, trouble)
        if binding is not None:
            binding = replace(
                binding, refreshed_at=now, refresh_expires_at=fresh.refresh_expires_at, login_needed=None
            )
        # On the disk before its first use: a rotated refresh token that is lost ends the session.
        self._world.store.replace_tokens(self.key, fresh, binding)
        return self.adopt(fresh)

    def _while_it_lives(self, tokens: Tokens, refused: str | None, why: McpAuthError) -> str:
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
        except StoreUnwritable:
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
