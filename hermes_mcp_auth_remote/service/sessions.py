"""A session: the tokens of one (server, owner) as they are used. RFC 6750 §2.1.

The hot path, `header_now`, takes no lock and does no I/O: one comparison with the clock. Once a second at
most, one `stat` tells whether somebody else has written new tokens. Everything else happens when that finds
nothing good (`renewal`), once for all who wait; and only when nothing is left is a person asked (`asking`).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from threading import Thread
from typing import TypeVar

from hermes_mcp_auth_remote.errors import AuthorizationRequired
from hermes_mcp_auth_remote.oauth.challenge import Challenge, read_challenge
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.service.cached_token import Ready, ready
from hermes_mcp_auth_remote.service.dependencies import World
from hermes_mcp_auth_remote.service.prompting import Asking
from hermes_mcp_auth_remote.service.refresh import Renewal
from hermes_mcp_auth_remote.service.single_flight import Flights, landed
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.threads import run_in_own_thread
from hermes_mcp_auth_remote.traceback_redaction import hide_locals, hides_locals
from hermes_mcp_auth_remote.values import Key, Secret, Server, secret_of

T = TypeVar("T")

# How long another writer's tokens may go unnoticed while ours are still good.
LOOK_SECONDS = 1.0
_NOTHING = Ready("", -math.inf, -math.inf, None)


class Session:
    """The tokens of one server and owner, for any number of callers in any thread or event loop."""

    __slots__ = (
        "_asking",
        "_authorization",
        "_flights",
        "_ready",
        "_renewal",
        "_until",
        "_world",
        "key",
        "prover",
        "server",
    )

    def __init__(self, world: World, asking: Asking, server: Server, key: Key) -> None:
        self._world = world
        self._asking = asking
        self._flights: Flights[Ready] = world.refreshes
        self._renewal = Renewal(world, server, key)
        self._ready = _NOTHING
        self._authorization = ""
        self._until = -math.inf
        # Where it is set, a request needs a proof beside the header (RFC 9449).
        self.prover: Prover | None = None
        self.server = server
        self.key = key

    def header_now(self) -> str | None:
        """Return the Authorization header's value where a fresh token is in memory, else None."""
        return self._authorization if self._world.clock() < self._until else None

    @hides_locals
    async def header(self) -> str:
        """Return the Authorization header's value, reading the store or refreshing first where need be.

        Where only a person can help, asks one (`asking`) or raises AuthorizationRequired; raises a
        NetworkError or StoreError else.
        """
        if (known := self._known()) is not None:
            return known
        try:
            return self._use(await self._renewed(None))
        except AuthorizationRequired as needed:
            await self._asking.ask(self.server, self.key, needed)
        return self._use(await self._renewed(None))

    @hides_locals
    def header_blocking(self) -> str:
        """Do what `header` does, for a caller without an event loop."""
        known = self._known()
        return known if known is not None else _blocking(self.header)

    @hides_locals
    async def challenged(
        self, refused: str | Secret, status: int, www_authenticate: Sequence[str]
    ) -> str | None:
        """Return another header after a 401 or 403, or None where another token would change nothing.

        `refused` is the header that was sent. Asks and raises as `header` does.
        """
        refused, challenge = secret_of(refused), read_challenge(www_authenticate)
        if status == 403 and challenge.insufficient_scope:
            if self._renewal.needs_nobody:
                return await self._other_than(refused, challenge)
            # RFC 6750 section 3.1; a refresh never widens a scope (RFC 6749 section 6).
            needed = _needs_wider_scope(self.key.server, challenge)
        elif status != 401:
            return None
        else:
            other = self.header_now()
            if other is not None and Secret(other) != refused:
                return other
            del other
            try:
                return await self._other_than(refused)
            except AuthorizationRequired as over:
                needed = AuthorizationRequired(
                    self.key.server, reason=over.reason, challenge=challenge, server_words=over.server_words
                )
        await self._asking.ask(self.server, self.key, needed)
        return await self._other_than(refused)

    @hides_locals
    def challenged_blocking(
        self, refused: str | Secret, status: int, www_authenticate: Sequence[str]
    ) -> str | None:
        """Do what `challenged` does, for a caller without an event loop."""
        known = secret_of(refused)
        # Not for as long as this waits.
        del refused
        return _blocking(lambda: self.challenged(known, status, www_authenticate))

    @hides_locals
    def adopt(self, tokens: Tokens, proof_key: Secret | None = None) -> str:
        """Use these tokens, which are in the store, from now on; returns the header's value."""
        return self._use(ready(tokens, self._world.store.version(self.key), self._world.prover(proof_key)))

    def read_credentials(self) -> Credentials:
        """Return what counts: what is stored, or newer tokens that the disk refused. Raises StoreError."""
        return self._renewal.read()

    def forget(self) -> None:
        """Use nothing from memory any more."""
        self._until = -math.inf
        self._ready = _NOTHING
        self._renewal.forget()

    def _known(self) -> str | None:
        """Return a good token in memory unless somebody has written another one; one `stat` at most."""
        now = self._world.clock()
        if now < self._until:
            return self._authorization
        held = self._ready
        if now >= held.good_until or self._world.store.version(self.key) != held.version:
            return None
        if now >= held.fresh_until:
            # Ahead of the end, and without making this request wait for it.
            # RuntimeError: no thread can be started, and this token is good.
            with suppress(RuntimeError):
                self._flight(None).add_done_callback(self._landed)
        self._until = min(held.good_until, now + LOOK_SECONDS)
        return held.authorization

    def _use(self, found: Ready) -> str:
        # In this order: a reader between the two sees an old header with an old time, never a wrong one.
        self._until = -math.inf
        self._ready = found
        self._authorization = found.authorization
        self.prover = found.prover
        self._until = min(found.fresh_until, self._world.clock() + LOOK_SECONDS)
        return found.authorization

    def _landed(self, flight: Future[Ready]) -> None:
        # What went wrong is met again by whoever needs a token once this one has ended.
        if not flight.cancelled() and flight.exception() is None:
            self._use(flight.result())

    async def _other_than(self, refused: Secret, challenge: Challenge | None = None) -> str:
        # One limit for both flights: the caller waits no longer because there are two.
        loop, limit = asyncio.get_running_loop(), self._world.limits.caller_seconds
        ends = loop.time() + limit
        found = await self._renewed(refused, challenge, limit)
        if Secret(found.authorization) == refused:
            # It joined a flight that knew nothing of the refusal yet.
            found = await self._renewed(refused, challenge, max(ends - loop.time(), 0.0))
        return self._use(found)

    async def _renewed(
        self, refused: Secret | None, challenge: Challenge | None = None, seconds: float | None = None
    ) -> Ready:
        """Wait for a flight for `seconds` (None: as long as a caller waits); it goes on without the caller.

        Returns the old token where that is still good. Raises TimedOut, and what the flight raises.
        """
        try:
            flight = self._flight(refused, challenge)
        except RuntimeError:
            # No thread can be started: the process is ending, or may have no more of them.
            return self._renewal.use_stored(refused)
        limit = self._world.limits.caller_seconds if seconds is None else seconds
        try:
            return await landed(flight, limit)
        except TimeoutError:
            if flight.done():
                return flight.result()
            # Not among the file work of all others, which may wait for a lock.
            return await run_in_own_thread(self._renewal.use_meanwhile, refused)

    def _flight(self, refused: Secret | None, challenge: Challenge | None = None) -> Future[Ready]:
        # By address, too: under one name, what one address may have is not for another.
        place = (self.key, self.server.url)
        return self._flights.join(place, lambda: self._renewal.renewed(refused, challenge), self.server.url)


def _blocking(make: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run a coroutine for a caller whose thread has no event loop, or one that the caller keeps busy."""
    outcome: Future[T] = Future()
    context = copy_context()

    def work() -> None:
        try:
            outcome.set_result(context.run(asyncio.run, make()))
        except BaseException as trouble:  # noqa: BLE001  the caller gets it
            hide_locals(trouble)
            outcome.set_exception(trouble)

    # A daemon: a person who is waited for must not keep a program from ending.
    Thread(target=work, name="mcp-auth-call", daemon=True).start()
    return outcome.result()


def _needs_wider_scope(server: str, challenge: Challenge) -> AuthorizationRequired:
    return AuthorizationRequired(
        server,
        reason="this request needs more access",
        challenge=challenge,
        server_words=" ".join(sorted(challenge.scope or ())),
    )
