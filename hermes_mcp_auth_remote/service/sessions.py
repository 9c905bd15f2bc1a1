"""A session: the access token of one server and owner, for use on requests (RFC 6750 §2.1).

The hot path, `header_now`, takes no lock and does no I/O: it compares one time with the clock. At most once a
second, one `stat` shows whether another process has written new tokens. If there is no fresh token, one
flight obtains it for all waiting callers (`refresh`). If that needs a login, `prompting` asks the user.
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

# How long this process may miss another process's new tokens while its own are still valid.
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
        # If it is set, a request needs a DPoP proof beside the header (RFC 9449).
        self.prover: Prover | None = None
        self.server = server
        self.key = key

    def header_now(self) -> str | None:
        """Return the Authorization header's value if a fresh token is in memory, else None."""
        return self._authorization_header if self._deps.clock() < self._recheck_at else None

    @with_hidden_locals
    async def header(self) -> str:
        """Return the Authorization header's value; read the store or refresh the token first if needed.

        If a login is needed, prompts the user (`prompting`) or raises AuthorizationRequired. Raises a
        NetworkError or StoreError.
        """
        if (cached_header := self._cached_header()) is not None:
            return cached_header
        try:
            return self._set_cached_token(await self._wait_for_token(None))
        except AuthorizationRequired as error:
            await self._interactive_logins.request_login(self.server, self.key, error)
        return self._set_cached_token(await self._wait_for_token(None))

    @with_hidden_locals
    def header_blocking(self) -> str:
        """Do what `header` does, for a caller without an event loop."""
        cached_header = self._cached_header()
        return cached_header if cached_header is not None else _run_blocking(self.header)

    @with_hidden_locals
    async def handle_challenge(
        self, refused_header: str | Secret, status: int, www_authenticate: Sequence[str]
    ) -> str | None:
        """Return another header after a 401 or 403, or None if another token would not help.

        `refused_header` is the header that was sent. Prompts and raises as `header` does.
        """
        refused_header, challenge = as_secret(refused_header), read_challenge(www_authenticate)
        if status == 403 and challenge.has_insufficient_scope:
            if self._refresher.uses_machine_grant:
                return await self._header_other_than(refused_header, challenge)
            # RFC 6750 section 3.1; a refresh never widens a scope (RFC 6749 section 6).
            error = _insufficient_scope_error(self.key.server_name, challenge)
        elif status != 401:
            return None
        else:
            current_header = self.header_now()
            if current_header is not None and Secret(current_header) != refused_header:
                return current_header
            del current_header
            try:
                return await self._header_other_than(refused_header)
            except AuthorizationRequired as refresh_error:
                error = AuthorizationRequired(
                    self.key.server_name,
                    reason=refresh_error.reason,
                    challenge=challenge,
                    server_message=refresh_error.server_message,
                )
        await self._interactive_logins.request_login(self.server, self.key, error)
        return await self._header_other_than(refused_header)

    @with_hidden_locals
    def handle_challenge_blocking(
        self, refused_header: str | Secret, status: int, www_authenticate: Sequence[str]
    ) -> str | None:
        """Do what `handle_challenge` does, for a caller without an event loop."""
        secret_header = as_secret(refused_header)
        # Do not keep the plain text in this frame while it waits.
        del refused_header
        return _run_blocking(lambda: self.handle_challenge(secret_header, status, www_authenticate))

    @with_hidden_locals
    def adopt(self, tokens: Tokens, proof_key: Secret | None = None) -> str:
        """Use these stored tokens from now on; return the header's value."""
        return self._set_cached_token(
            make_cached_token(tokens, self._deps.store.version(self.key), self._deps.prover_for(proof_key))
        )

    def read_credentials(self) -> Credentials:
        """Return the stored credentials, or newer ones that could not be written. Raises StoreError."""
        return self._refresher.read_credentials()

    def clear_cache(self) -> None:
        """Discard all tokens in memory."""
        self._recheck_at = -math.inf
        self._cached_token = _NO_TOKEN
        self._refresher.discard_unsaved()

    def _cached_header(self) -> str | None:
        """Return the cached header, or None if it has expired or another process has written new tokens.

        Does at most one `stat`.
        """
        now = self._deps.clock()
        if now < self._recheck_at:
            return self._authorization_header
        token = self._cached_token
        if now >= token.usable_until or self._deps.store.version(self.key) != token.version:
            return None
        if now >= token.refresh_at:
            # Refresh in the background, before the token expires.
            # RuntimeError: no thread can be started. This token is still usable.
            with suppress(RuntimeError):
                self._submit_flight(None).add_done_callback(self._on_flight_done)
        self._recheck_at = min(token.usable_until, now + STORE_CHECK_SECONDS)
        return token.authorization_header

    def _set_cached_token(self, token: CachedToken) -> str:
        # Assign in this order, so that a concurrent reader never uses a header with the time of another.
        self._recheck_at = -math.inf
        self._cached_token = token
        self._authorization_header = token.authorization_header
        self.prover = token.prover
        self._recheck_at = min(token.refresh_at, self._deps.clock() + STORE_CHECK_SECONDS)
        return token.authorization_header

    def _on_flight_done(self, flight: Future[CachedToken]) -> None:
        # Ignore an error: the next caller gets it again when this token has expired.
        if not flight.cancelled() and flight.exception() is None:
            self._set_cached_token(flight.result())

    async def _header_other_than(self, refused_header: Secret, challenge: Challenge | None = None) -> str:
        # Both waits together take at most `caller_seconds`.
        loop, limit_seconds = asyncio.get_running_loop(), self._deps.limits.caller_seconds
        ends_at = loop.time() + limit_seconds
        token = await self._wait_for_token(refused_header, challenge, limit_seconds)
        if Secret(token.authorization_header) == refused_header:
            # The caller joined a flight that had started before the refusal.
            token = await self._wait_for_token(refused_header, challenge, max(ends_at - loop.time(), 0.0))
        return self._set_cached_token(token)

    async def _wait_for_token(
        self,
        refused_header: Secret | None,
        challenge: Challenge | None = None,
        timeout_seconds: float | None = None,
    ) -> CachedToken:
        """Wait for a flight and return its token; the flight goes on if the caller stops waiting.

        `timeout_seconds` None means the limit `caller_seconds`. After that time, returns the stored token if
        it is still valid. Raises TimedOut, and what the flight raises.
        """
        try:
            flight = self._submit_flight(refused_header, challenge)
        except RuntimeError:
            # No thread can be started: the process is ending, or has reached its limit of threads.
            return self._refresher.use_stored_token(refused_header)
        limit_seconds = self._deps.limits.caller_seconds if timeout_seconds is None else timeout_seconds
        try:
            return await join(flight, limit_seconds)
        except TimeoutError:
            if flight.done():
                return flight.result()
            # In a thread of its own, because the shared file threads may wait for a lock.
            return await run_in_own_thread(self._refresher.use_stored_token_after_timeout, refused_header)

    def _submit_flight(
        self, refused_header: Secret | None, challenge: Challenge | None = None
    ) -> Future[CachedToken]:
        # The key includes the URL: tokens of one URL must not go to another URL of the same name.
        flight_key = (self.key, self.server.url)
        return self._refresh_flights.submit(
            flight_key, lambda: self._refresher.obtain_token(refused_header, challenge), self.server.url
        )


def _run_blocking(start: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run a coroutine in a new thread and wait for it: the caller blocks its own event loop, if any."""
    outcome: Future[T] = Future()
    context = copy_context()

    def run_in_thread() -> None:
        try:
            outcome.set_result(context.run(asyncio.run, start()))
        except BaseException as error:  # noqa: BLE001  the caller gets it
            hide_locals(error)
            outcome.set_exception(error)

    # A daemon thread: waiting for a user must not keep a program from ending.
    Thread(target=run_in_thread, name="mcp-auth-call", daemon=True).start()
    return outcome.result()


def _insufficient_scope_error(server_name: str, challenge: Challenge) -> AuthorizationRequired:
    return AuthorizationRequired(
        server_name,
        reason="this request needs more access",
        challenge=challenge,
        server_message=" ".join(sorted(challenge.scope or ())),
    )
