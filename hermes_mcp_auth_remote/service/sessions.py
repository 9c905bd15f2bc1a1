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
from hermes_mcp_auth_remote.service.cached_token import CachedToken, make_cached_token
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.prompting import InteractiveLogins
from hermes_mcp_auth_remote.service.refresh import TokenRefresher
from hermes_mcp_auth_remote.service.single_flight import SingleFlight, join
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.threads import run_in_own_thread
from hermes_mcp_auth_remote.traceback_redaction import hide_locals, with_hidden_locals
from hermes_mcp_auth_remote.values import CredentialKey, Secret, Server, as_secret

T = TypeVar("T")

# How long another writer's tokens may go unnoticed while ours are still good.
STORE_CHECK_SECONDS = 1.0
_NO_TOKEN = CachedToken("", -math.inf, -math.inf, None)


class Session:
    """The tokens of one server and owner, for any number of callers in any thread or event loop."""

    __slots__ = (
        "_authorization_header",
        "_cached_token",
        "_deps",
        "_interactive_logins",
        "_recheck_at",
        "_refresh_flights",
        "_refresher",
        "key",
        "prover",
        "server",
    )

    def __init__(
        self, deps: Dependencies, interactive_logins: InteractiveLogins, server: Server, key: CredentialKey
    ) -> None:
        self._deps = deps
        self._interactive_logins = interactive_logins
        self._refresh_flights: SingleFlight[CachedToken] = deps.refresh_flights
        self._refresher = TokenRefresher(deps, server, key)
        self._cached_token = _NO_TOKEN
        self._authorization_header = ""
        self._recheck_at = -math.inf
        # Where it is set, a request needs a proof beside the header (RFC 9449).
        self.prover: Prover | None = None
        self.server = server
        self.key = key

    def header_now(self) -> str | None:
        """Return the Authorization header's value where a fresh token is in memory, else None."""
        return self._authorization_header if self._deps.clock() < self._recheck_at else None

    @with_hidden_locals
    async def header(self) -> str:
        """Return the Authorization header's value, reading the store or refreshing first where need be.

        Where only a person can help, asks one (`asking`) or raises AuthorizationRequired; raises a
        NetworkError or StoreError else.
        """
        if (known := self._cached_header()) is not None:
            return known
        try:
            return self._set_cached_token(await self._wait_for_token(None))
        except AuthorizationRequired as needed:
            await self._interactive_logins.request_login(self.server, self.key, needed)
        return self._set_cached_token(await self._wait_for_token(None))

    @with_hidden_locals
    def header_blocking(self) -> str:
        """Do what `header` does, for a caller without an event loop."""
        known = self._cached_header()
        return known if known is not None else _run_blocking(self.header)

    @with_hidden_locals
    async def handle_challenge(
        self, refused_header: str | Secret, status: int, www_authenticate: Sequence[str]
    ) -> str | None:
        """Return another header after a 401 or 403, or None where another token would change nothing.

        `refused` is the header that was sent. Asks and raises as `header` does.
        """
        refused_header, challenge = as_secret(refused_header), read_challenge(www_authenticate)
        if status == 403 and challenge.has_insufficient_scope:
            if self._refresher.uses_machine_grant:
                return await self._header_other_than(refused_header, challenge)
            # RFC 6750 section 3.1; a refresh never widens a scope (RFC 6749 section 6).
            needed = _insufficient_scope_error(self.key.server_name, challenge)
        elif status != 401:
            return None
        else:
            other = self.header_now()
            if other is not None and Secret(other) != refused_header:
                return other
            del other
            try:
                return await self._header_other_than(refused_header)
            except AuthorizationRequired as over:
                needed = AuthorizationRequired(
                    self.key.server_name,
                    reason=over.reason,
                    challenge=challenge,
                    server_message=over.server_message,
                )
        await self._interactive_logins.request_login(self.server, self.key, needed)
        return await self._header_other_than(refused_header)

    @with_hidden_locals
    def handle_challenge_blocking(
        self, refused_header: str | Secret, status: int, www_authenticate: Sequence[str]
    ) -> str | None:
        """Do what `challenged` does, for a caller without an event loop."""
        known = as_secret(refused_header)
        # Not for as long as this waits.
        del refused_header
        return _run_blocking(lambda: self.handle_challenge(known, status, www_authenticate))

    @with_hidden_locals
    def adopt(self, tokens: Tokens, proof_key: Secret | None = None) -> str:
        """Use these tokens, which are in the store, from now on; returns the header's value."""
        return self._set_cached_token(
            make_cached_token(tokens, self._deps.store.version(self.key), self._deps.prover_for(proof_key))
        )

    def read_credentials(self) -> Credentials:
        """Return what counts: what is stored, or newer tokens that the disk refused. Raises StoreError."""
        return self._refresher.read_credentials()

    def clear_cache(self) -> None:
        """Use nothing from memory any more."""
        self._recheck_at = -math.inf
        self._cached_token = _NO_TOKEN
        self._refresher.discard_unsaved()

    def _cached_header(self) -> str | None:
        """Return a good token in memory unless somebody has written another one; one `stat` at most."""
        now = self._deps.clock()
        if now < self._recheck_at:
            return self._authorization_header
        held = self._cached_token
        if now >= held.usable_until or self._deps.store.version(self.key) != held.version:
            return None
        if now >= held.refresh_at:
            # Ahead of the end, and without making this request wait for it.
            # RuntimeError: no thread can be started, and this token is good.
            with suppress(RuntimeError):
                self._submit_flight(None).add_done_callback(self._on_flight_done)
        self._recheck_at = min(held.usable_until, now + STORE_CHECK_SECONDS)
        return held.authorization_header

    def _set_cached_token(self, token: CachedToken) -> str:
        # In this order: a reader between the two sees an old header with an old time, never a wrong one.
        self._recheck_at = -math.inf
        self._cached_token = token
        self._authorization_header = token.authorization_header
        self.prover = token.prover
        self._recheck_at = min(token.refresh_at, self._deps.clock() + STORE_CHECK_SECONDS)
        return token.authorization_header

    def _on_flight_done(self, flight: Future[CachedToken]) -> None:
        # What went wrong is met again by whoever needs a token once this one has ended.
        if not flight.cancelled() and flight.exception() is None:
            self._set_cached_token(flight.result())

    async def _header_other_than(self, refused_header: Secret, challenge: Challenge | None = None) -> str:
        # One limit for both flights: the caller waits no longer because there are two.
        loop, limit = asyncio.get_running_loop(), self._deps.limits.caller_seconds
        ends = loop.time() + limit
        found = await self._wait_for_token(refused_header, challenge, limit)
        if Secret(found.authorization_header) == refused_header:
            # It joined a flight that knew nothing of the refusal yet.
            found = await self._wait_for_token(refused_header, challenge, max(ends - loop.time(), 0.0))
        return self._set_cached_token(found)

    async def _wait_for_token(
        self,
        refused_header: Secret | None,
        challenge: Challenge | None = None,
        timeout_seconds: float | None = None,
    ) -> CachedToken:
        """Wait for a flight for `seconds` (None: as long as a caller waits); it goes on without the caller.

        Returns the old token where that is still good. Raises TimedOut, and what the flight raises.
        """
        try:
            flight = self._submit_flight(refused_header, challenge)
        except RuntimeError:
            # No thread can be started: the process is ending, or may have no more of them.
            return self._refresher.use_stored_token(refused_header)
        limit = self._deps.limits.caller_seconds if timeout_seconds is None else timeout_seconds
        try:
            return await join(flight, limit)
        except TimeoutError:
            if flight.done():
                return flight.result()
            # Not among the file work of all others, which may wait for a lock.
            return await run_in_own_thread(self._refresher.use_stored_token_after_timeout, refused_header)

    def _submit_flight(
        self, refused_header: Secret | None, challenge: Challenge | None = None
    ) -> Future[CachedToken]:
        # By address, too: under one name, what one address may have is not for another.
        place = (self.key, self.server.url)
        return self._refresh_flights.submit(
            place, lambda: self._refresher.obtain_token(refused_header, challenge), self.server.url
        )


def _run_blocking(start: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run a coroutine for a caller whose thread has no event loop, or one that the caller keeps busy."""
    outcome: Future[T] = Future()
    context = copy_context()

    def run_in_thread() -> None:
        try:
            outcome.set_result(context.run(asyncio.run, start()))
        except BaseException as trouble:  # noqa: BLE001  the caller gets it
            hide_locals(trouble)
            outcome.set_exception(trouble)

    # A daemon: a person who is waited for must not keep a program from ending.
    Thread(target=run_in_thread, name="mcp-auth-call", daemon=True).start()
    return outcome.result()


def _insufficient_scope_error(server_name: str, challenge: Challenge) -> AuthorizationRequired:
    return AuthorizationRequired(
        server_name,
        reason="this request needs more access",
        challenge=challenge,
        server_message=" ".join(sorted(challenge.scope or ())),
    )
