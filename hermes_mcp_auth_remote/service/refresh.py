"""Obtain a token for a request: use the stored one, refresh it (RFC 6749 §6), or raise an error.

A caller waits in `current_token` or `token_other_than`. The work runs in a flight (`single_flight`), which
has its own thread; a session has at most one flight in each process. The flight holds the lease of the
credentials. Later versions of Hermes take that lease too when they write.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from hermes_mcp_auth_remote.commands import login_advice, logout_command, token_command
from hermes_mcp_auth_remote.errors import (
    NEVER_LOGGED_IN,
    AuthorizationRequired,
    MalformedResponse,
    McpAuthError,
    StoreBusy,
    StoreError,
    StoreUnwritable,
    TimedOut,
    TokenError,
    TokensRefused,
)
from hermes_mcp_auth_remote.exit_delay import ExitDelay
from hermes_mcp_auth_remote.oauth.authorization import select_resource
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client, with_auth_method
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.refresh_failure import (
    EXPIRED_TOKEN_PAUSE_SECONDS,
    VALID_TOKEN_PAUSE_SECONDS,
)
from hermes_mcp_auth_remote.oauth.token import Tokens, refresh_tokens, require_dpop
from hermes_mcp_auth_remote.oauth.token_refusal import next_refusal
from hermes_mcp_auth_remote.oauth.urls import host_of, is_same_address, safe_url
from hermes_mcp_auth_remote.service.cached_token import CachedToken, make_cached_token, refresh_at
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.leases import acquire_lease
from hermes_mcp_auth_remote.service.needed_scope import save_needed_scope
from hermes_mcp_auth_remote.service.refresh_backoff import RefreshFailureTracker
from hermes_mcp_auth_remote.service.single_flight import join
from hermes_mcp_auth_remote.service.unsaved_tokens import BufferedCredentialStore
from hermes_mcp_auth_remote.store.connection import session_ended_reason
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.protocol import ANY, UNKNOWN, Lease, StoreConflict, Stored, Unknown, Version
from hermes_mcp_auth_remote.threads import run_file_work, run_in_own_thread, submit_file_work
from hermes_mcp_auth_remote.values import CredentialKey, Secret, Server

# After a refresh that failed temporarily, the old token is used for this time before the next try.
BACKOFF_SECONDS = VALID_TOKEN_PAUSE_SECONDS
# The time before the next try if the old token has expired. It is short, because all callers wait.
RETRY_SECONDS = EXPIRED_TOKEN_PAUSE_SECONDS
# If an earlier holder of the lease has sent a token request and died, the refresh token may be used up. Send
# it again only after this time: the limit of an exchange and some more (`timeouts`).
SENT_REQUEST_SECONDS = 100.0


class TokenSource:
    """Obtains the tokens of one server and owner, and remembers failures to avoid useless requests."""

    def __init__(self, deps: Dependencies, server: Server, key: CredentialKey) -> None:
        self._deps = deps
        self._server = server
        self._key = key
        self._failures = RefreshFailureTracker(deps.store.refresh_failures, key)
        self._last_error: tuple[float, McpAuthError] | None = None
        # True if the last read found a login of this server: a command then finds the server by its name.
        self._has_stored_login = False
        self._refusals = deps.store.token_refusals
        self._buffered_store = BufferedCredentialStore(deps.store, key)
        # The proof key of the last tokens read, and its prover, which remembers the servers' nonces.
        self._key_and_prover: tuple[Secret, Prover] | None = None
        # Delays the exit of the process while the current flight waits for a token response.
        self._exit_delay = ExitDelay()

    @property
    def uses_machine_grant(self) -> bool:
        """True if the grant needs no user: an expired token is replaced by a new token request."""
        return self._server.options.grant != "authorization_code"

    async def current_token(self) -> CachedToken:
        """Return a fresh token. Raises AuthorizationRequired, TimedOut, and what a refresh raises."""
        return await self._wait_for_token(None)

    async def replace_refused(
        self, refused_header: Secret, status: int, challenge: Challenge
    ) -> CachedToken | None:
        """Return another token after a 401 or 403, or None if another token would not help.

        Raises as `current_token` does; an AuthorizationRequired contains the challenge.
        """
        if status == 403 and challenge.has_insufficient_scope:
            if self.uses_machine_grant:
                with suppress(TokensRefused):
                    return await self.token_other_than(refused_header, challenge)
                return None
            await save_needed_scope(self._deps, self._server, self._key, challenge)
            # RFC 6750 section 3.1; a refresh never widens a scope (RFC 6749 section 6).
            raise self._login_required_error(
                "this request needs more access",
                challenge=challenge,
                server_message=" ".join(sorted(challenge.scope or ())),
            )
        if status != 401:
            return None
        try:
            return await self.token_other_than(refused_header)
        except TokensRefused:
            # The caller gets the server's own response.
            return None
        except AuthorizationRequired as error:
            raise self._login_required_error(
                error.reason, challenge=challenge, server_message=error.server_message
            ) from None

    async def token_other_than(
        self, refused_header: Secret, challenge: Challenge | None = None
    ) -> CachedToken:
        """Return a token that replaces the refused one; raises as `current_token` does.

        `challenge` names the scope that the server requires from a grant without a user.
        """
        # Both waits together take at most `caller_seconds`.
        loop, limit_seconds = asyncio.get_running_loop(), self._deps.limits.caller_seconds
        ends_at = loop.time() + limit_seconds
        token = await self._wait_for_token(refused_header, challenge, limit_seconds)
        if Secret(token.authorization_header) == refused_header:
            # The caller joined a flight that had started before the refusal.
            token = await self._wait_for_token(refused_header, challenge, max(ends_at - loop.time(), 0.0))
        return token

    def report_retry(self, header: Secret, *, is_accepted: bool) -> None:
        """Record, in a thread, whether the server has accepted the token that replaced a refused one."""
        submit_file_work(self._record_retry, header, is_accepted)

    def _record_retry(self, header: Secret, is_accepted: bool) -> None:  # noqa: FBT001  called in a thread
        with suppress(StoreError):
            tokens = self._deps.store.read(self._key).credentials.tokens
            refusal = None if tokens is None else self._refusals.read(self._key, tokens)
            if tokens is None or refusal is None or not tokens.matches_header(header):
                return
            if is_accepted:
                self._refusals.clear(self._key)
            elif not refusal.is_refused:
                self._refusals.write(self._key, tokens, replace(refusal, is_refused=True))

    def refresh_in_background(self, on_token: Callable[[CachedToken], object]) -> None:
        """Start a flight for a valid token whose refresh is due; call `on_token` if it succeeds."""

        def on_flight_done(flight: Future[CachedToken]) -> None:
            # Ignore an error: if it persists, a caller gets it after this token has expired.
            if not flight.cancelled() and flight.exception() is None:
                on_token(flight.result())

        # RuntimeError: no thread can be started. The old token is still usable.
        with suppress(RuntimeError):
            self._submit_flight(None).add_done_callback(on_flight_done)

    def glance(self) -> Version | Unknown | None:
        """Return the version of the stored tokens; never waits."""
        return self._deps.store.glance(self._key)

    async def has_tokens(self) -> bool:
        """Return as `Session.has_tokens` does."""
        if self._buffered_store.has_unsaved:
            return True
        if (version := self.glance()) is not UNKNOWN:
            return version is not None
        try:
            return (await run_file_work(self._deps.store.read, self._key)).version is not None
        except StoreError:
            return True

    def cached_token_for(self, tokens: Tokens, proof_key: Secret | None) -> CachedToken:
        """Return the cached header of tokens that the caller has just stored."""
        version = self.glance()
        # UNKNOWN: the next check of the store reads them again.
        known_version = version if isinstance(version, str) else None
        return make_cached_token(tokens, known_version, self._deps.prover_for(proof_key))

    def read_credentials(self) -> Credentials:
        """Return the stored credentials, or newer ones that could not be written. Raises StoreError."""
        return self._buffered_store.read().credentials

    def has_token(self, refused_header: Secret | None, challenge: Challenge | None = None) -> bool:
        """True if the store has a fresh token that is not the refused one; blocks. Raises StoreError.

        If `challenge` demands more scope, the token must grant that scope.
        """
        demanded_scope = frozenset[str]()
        if challenge is not None and challenge.has_insufficient_scope:
            if not challenge.scope:
                # The server does not say what a new token must grant.
                return False
            demanded_scope = challenge.scope
        with suppress(AuthorizationRequired):
            token, stored = self._read_fresh_token(refused_header)
            tokens = stored.credentials.tokens
            granted_scope = (tokens.scope if tokens else None) or frozenset()
            return token is not None and demanded_scope <= granted_scope
        return False

    def discard_unsaved(self) -> None:
        """Discard credentials that could not be written."""
        self._buffered_store.discard_unsaved()

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
            # No thread can be started: the process is ending, or has reached its limit of threads. So only
            # this thread can read.
            return self.use_stored_token(refused_header)
        limit_seconds = self._deps.limits.caller_seconds if timeout_seconds is None else timeout_seconds
        try:
            return await join(flight, limit_seconds)
        except TokensRefused:
            if refused_header is not None:
                raise
            # This caller has joined the flight of a refused token, but can use any valid token.
            return await run_in_own_thread(self.use_stored_token, None)
        except TimeoutError:
            if flight.done():
                return flight.result()
            # In a thread of its own, because the shared file threads may wait for a lock.
            return await run_in_own_thread(self._use_stored_token_after_timeout, refused_header)

    def _submit_flight(
        self, refused_header: Secret | None, challenge: Challenge | None = None
    ) -> Future[CachedToken]:
        # The key includes the URL: tokens of one URL must not go to another URL of the same name.
        flight_key = (self._key, self._server.url)
        return self._deps.refresh_flights.submit(
            flight_key, lambda: self.obtain_token(refused_header, challenge), self._server.url
        )

    async def obtain_token(
        self, refused_header: Secret | None, challenge: Challenge | None = None
    ) -> CachedToken:
        """Return a fresh token that differs from the refused one; runs in a flight.

        `challenge` names the scope that the server requires. Raises AuthorizationRequired if a user must log
        in, a NetworkError or a StoreError; for grants without a user also a ServerError or ConfigError.
        """
        self._exit_delay = ExitDelay()
        with self._exit_delay:
            try:
                return await self._obtain_token(refused_header, challenge)
            except asyncio.CancelledError:
                # Raised by `hold_exit_for_response`: no caller cancels a flight.
                return self.use_stored_token(refused_header)

    def use_stored_token(self, refused_header: Secret | None) -> CachedToken:
        """Return the stored token when this process can send no more token requests; reads files.

        Raises TimedOut if that token is not valid, AuthorizationRequired, StoreError.
        """
        token, stored = self._read_fresh_token(refused_header)
        if token is None and (token := self._unexpired_token(stored, refused_header)) is None:
            raise TimedOut(
                f"No token request for {self._key.server_name} was sent: this process is ending, "
                "or can start no thread.",
                "Run it again.",
            )
        return token

    def _use_stored_token_after_timeout(self, refused_header: Secret | None) -> CachedToken:
        """Return the stored token for a caller that stops waiting for the flight; reads files.

        Raises TimedOut if that token is not valid, AuthorizationRequired, StoreError.
        """
        token, stored = self._read_fresh_token(refused_header)
        if token is not None or (token := self._unexpired_token(stored, refused_header)) is not None:
            return token
        host, name = self._exit_delay.host, self._key.server_name
        if host is not None:
            raise TimedOut(
                f"{host} got a token request for {name} but did not respond in time.",
                "Try again in a minute: if it responds by then, its tokens are stored and used.",
            )
        raise TimedOut(
            f"No token for {name} came in time: another process is refreshing it, or the network hangs.",
            "Try again in a minute.",
        )

    async def _obtain_token(self, refused_header: Secret | None, challenge: Challenge | None) -> CachedToken:
        token, stored = self._read_fresh_token(refused_header)
        # If there are unsaved tokens, take the lock to write them.
        if token is not None and not self._buffered_store.has_unsaved:
            return token
        self._check_refusal(stored.credentials.tokens, refused_header, challenge)
        limits, interim_token = self._deps.limits, token or self._token_for_lock_wait(stored, refused_header)
        # With a valid token, wait only briefly: the process that holds the lock may be stopped.
        seconds = limits.lock_seconds if interim_token is None else limits.due_lock_seconds
        unwritable: StoreUnwritable | None = None
        async with AsyncExitStack() as stack:
            lease: Lease | None = None
            try:
                lease = await stack.enter_async_context(acquire_lease(self._deps.store, self._key, seconds))
                # A refresh uses up the refresh token. So check first that the new one can be stored.
                self._deps.store.check_can_store(self._key)
            except StoreBusy:
                if interim_token is None:
                    raise
                return self._read_fresh_token(refused_header)[0] or interim_token
            except StoreUnwritable as error:
                unwritable = error
            else:
                self._buffered_store.retry_save()
            token, stored = self._read_fresh_token(refused_header)
            if token is not None:
                return token
            if self.uses_machine_grant:
                return await self._request_machine_tokens(stored, refused_header, challenge)
            if unwritable is None or self._buffered_store.has_unsaved:
                return await self._refresh_tokens(stored, refused_header, lease)
            # If the new refresh token could not be stored, the session would end for all processes.
            if stored.credentials.tokens is None:
                raise unwritable
            self._buffered_store.warn_unwritable(unwritable)
            return self._use_old_token(stored, refused_header, unwritable)

    def _read_fresh_token(self, refused_header: Secret | None) -> tuple[CachedToken | None, Stored]:
        """Read the store; return a fresh token or None, and what is stored."""
        stored = self._buffered_store.read()
        return self._fresh_token(stored, refused_header), stored

    def _check_refusal(
        self, tokens: Tokens | None, refused_header: Secret | None, challenge: Challenge | None
    ) -> None:
        """Raise TokensRefused if the refused token is itself the result of a recent refresh after a 401."""
        if tokens is None or not tokens.matches_header(refused_header) or self._is_due(tokens):
            return
        required_scope = frozenset[str]() if challenge is None else challenge.scope or frozenset()
        if not required_scope <= (tokens.scope or frozenset()):
            # A token with more scope may help.
            return
        refusal = self._refusals.read(self._key, tokens)
        if refusal is None or refusal.can_retry(self._deps.clock()):
            return
        if not refusal.is_refused:
            self._refusals.write(self._key, tokens, replace(refusal, is_refused=True))
        raise TokensRefused(f"{host_of(self._server.url)} refuses tokens that were refreshed just now.")

    def _is_due(self, tokens: Tokens) -> bool:
        """True if the clock says that a refresh is due: the server may refuse tokens because of their age."""
        return refresh_at(tokens) <= self._deps.clock()

    def _record_refresh(self, old_tokens: Tokens | None, new_tokens: Tokens, header: Secret | None) -> None:
        """Record that new tokens replace refused ones, or keep the record of the previous tokens."""
        previous = None if old_tokens is None else self._refusals.read(self._key, old_tokens)
        if old_tokens is not None and old_tokens.matches_header(header) and not self._is_due(old_tokens):
            refusal = next_refusal(previous, self._deps.clock())
            self._refusals.write(self._key, new_tokens, refusal)
        elif previous is not None and previous.is_refused:
            self._refusals.write(self._key, new_tokens, previous)

    def _fresh_token(self, stored: Stored, refused_header: Secret | None) -> CachedToken | None:
        """Return the stored token if it is for this server, needs no refresh and is not the refused one."""
        # A program may pass any URL. Without a binding, nothing else refuses an unsafe one.
        safe_url(self._server.url, "server address")
        binding, tokens = stored.credentials.binding, stored.credentials.tokens
        self._has_stored_login = binding is not None and is_same_address(binding.server_url, self._server.url)
        if binding is not None and not self._has_stored_login:
            # The tokens belong to another server of this name, or of a name with the same Hermes file stem.
            raise self._login_required_error(
                "the stored tokens are for another address than the configured one", has_other_tokens=True
            )
        if (
            tokens is None
            or tokens.matches_header(refused_header)
            or refresh_at(tokens) <= self._deps.clock()
        ):
            return None
        if tokens.scheme == "DPoP" and stored.credentials.proof_key is None:
            if self.uses_machine_grant:
                return None
            raise self._login_required_error("the key that its tokens are bound to is gone")
        return self._make_cached_token(tokens, stored.version, stored.credentials.proof_key)

    def _make_cached_token(
        self, tokens: Tokens, version: Version | None, proof_key: Secret | None
    ) -> CachedToken:
        """Return a cached header; if its tokens are unsaved, it must be refreshed soon to retry the write."""
        token = make_cached_token(
            tokens, version, self._prover_for(proof_key) if tokens.scheme == "DPoP" else None
        )
        if not self._buffered_store.has_unsaved:
            return token
        return replace(token, refresh_at=min(token.refresh_at, self._deps.clock() + BACKOFF_SECONDS))

    def _prover_for(self, proof_key: Secret | None) -> Prover | None:
        if proof_key is None:
            return None
        key_and_prover = self._key_and_prover
        if key_and_prover is None or key_and_prover[0] != proof_key:
            prover = self._deps.prover_for(proof_key)
            key_and_prover = self._key_and_prover = None if prover is None else (proof_key, prover)
        return None if key_and_prover is None else key_and_prover[1]

    async def _request_machine_tokens(
        self, stored: Stored, refused_header: Secret | None, challenge: Challenge | None
    ) -> CachedToken:
        """Request new tokens by a grant without a user, and store them."""
        credentials, now = stored.credentials, self._deps.clock()
        # Imported here: few servers use such a grant.
        from hermes_mcp_auth_remote.service.machine_tokens import request_machine_tokens  # noqa: PLC0415

        try:
            if (recent_error := self._recent_error(now)) is not None:
                raise recent_error
            new_credentials = await request_machine_tokens(
                self._deps, self._server, self._key, credentials, challenge
            )
        except McpAuthError as error:
            if self._recent_error(now) is None:
                self._last_error = self._deps.clock() + RETRY_SECONDS, error
            if credentials.tokens is None:
                raise
            return self._use_old_token(stored, refused_header, error)
        if new_credentials.tokens is None:
            raise self._login_required_error()
        token = self._save_new_tokens(stored, new_credentials, new_credentials.tokens, is_new_login=True)
        self._record_refresh(credentials.tokens, new_credentials.tokens, refused_header)
        return token

    async def _refresh_tokens(
        self, stored: Stored, refused_header: Secret | None, lease: Lease | None
    ) -> CachedToken:
        """Refresh the stored tokens, unless no refresh may be sent now (`_refresh_obstacle`)."""
        credentials, binding = stored.credentials, stored.credentials.binding
        tokens, client, authorization_server = (
            credentials.tokens,
            credentials.client,
            credentials.authorization_server,
        )
        if tokens is None:
            raise self._login_required_error()
        login_needed = None if binding is None else binding.login_needed
        has_client = client is not None and authorization_server is not None
        if login_needed is not None or tokens.refresh_token is None or not has_client:
            error = self._login_required_error(login_needed or "its access token has ended")
            return self._use_old_token(stored, refused_header, error)
        now = self._deps.clock()
        is_token_valid = _is_token_valid(tokens, refused_header, now)
        obstacle = self._refresh_obstacle(
            stored, tokens, lease, now, is_token_valid=is_token_valid
        ) or _record_request(lease)
        if obstacle is not None:
            return self._use_old_token(stored, refused_header, obstacle)
        try:
            new_tokens = await self._send_refresh(credentials, now)
        except McpAuthError as error:
            return self._handle_refresh_error(stored, refused_header, error, is_token_valid=is_token_valid)
        if tokens.scheme == "DPoP":
            try:
                require_dpop(new_tokens, self._server.options, _authorization_host(credentials))
            except MalformedResponse as error:
                # The old refresh token is used up, even though the new access token is rejected here.
                rotated = replace(credentials, tokens=replace(tokens, refresh_token=new_tokens.refresh_token))
                version = stored.version
                with suppress(StoreConflict):
                    version = self._buffered_store.save_credentials(credentials, rotated, expect=version)
                stored = Stored(rotated, version)
                return self._handle_refresh_error(
                    stored, refused_header, error, is_token_valid=is_token_valid
                )
        if binding is not None:
            binding = replace(
                binding, refreshed_at=now, refresh_expires_at=new_tokens.refresh_expires_at, login_needed=None
            )
        client, auth_method = credentials.client, new_tokens.client_auth_method
        if client is not None and auth_method is not None:
            client = with_auth_method(client, auth_method)
        # Store the new tokens before their first use: losing a rotated refresh token ends the session.
        token = self._save_new_tokens(
            stored,
            replace(credentials, tokens=new_tokens, binding=binding, client=client),
            new_tokens,
            # The next refresh uses the method that worked.
            is_new_login=client is not credentials.client,
        )
        self._failures.clear()
        self._record_refresh(tokens, new_tokens, refused_header)
        return token

    async def _send_refresh(self, credentials: Credentials, now: float) -> Tokens:
        """Send the refresh; `credentials` contain tokens, client and metadata. Raises McpAuthError."""
        tokens, client, authorization_server = (
            credentials.tokens,
            credentials.client,
            credentials.authorization_server,
        )
        if tokens is None or client is None or authorization_server is None:
            raise self._login_required_error()
        request = refresh_tokens(
            authorization_server,
            client,
            tokens,
            now,
            resource=credentials.binding.resource if credentials.binding else self._resource(),
            sign=self._deps.signer_for(self._server),
            prover=self._prover_for(credentials.proof_key),
        )
        return await self._deps.run_exchange(request, self._server)

    def _refresh_obstacle(
        self, stored: Stored, tokens: Tokens, lease: Lease | None, now: float, *, is_token_valid: bool
    ) -> McpAuthError | None:
        """Return why no refresh may be sent now, or None."""
        if (last_failure := self._failures.last_failure(tokens)) is not None:
            failure, last_error = last_failure
            if not failure.can_retry(now, is_token_valid=is_token_valid):
                if failure.is_final:
                    return self._session_ended_error(stored, failure.server_message)
                return last_error
        sent_at = None if lease is None else lease.request_sent_at
        if sent_at is not None and sent_at <= now < sent_at + SENT_REQUEST_SECONDS:
            return TimedOut(
                f"A process that was refreshing the tokens of {self._key.server_name} has ended.",
                "Try again in two minutes.",
            )
        return None

    def _save_new_tokens(
        self, stored: Stored, new: Credentials, tokens: Tokens, *, is_new_login: bool = False
    ) -> CachedToken:
        """Store new credentials and return their header, or the header of a login that replaced `stored`.

        Hermes 0.19 takes no lease, so the user may have logged in there meanwhile. Tokens that were refreshed
        from the earlier session must not replace that login, and must not be stored with its client.
        """
        old = stored.credentials
        try:
            version = self._buffered_store.save_credentials(
                old, new, expect=stored.version, is_new_login=is_new_login
            )
        except StoreConflict as conflict:
            spent_header = None if old.tokens is None else Secret(old.tokens.authorization_header)
            newer_token = self._fresh_token(conflict.found, spent_header)
            if newer_token is not None:
                return newer_token
            # The other program's tokens have expired already.
            version = self._buffered_store.save_credentials(
                conflict.found.credentials, new, expect=ANY, is_new_login=is_new_login
            )
        return self._make_cached_token(tokens, version, new.proof_key)

    def _handle_refresh_error(
        self, stored: Stored, refused_header: Secret | None, error: McpAuthError, *, is_token_valid: bool
    ) -> CachedToken:
        """Record a failed refresh; return the old token if valid, else raise the error."""
        tokens = stored.credentials.tokens
        if tokens is None:
            raise error
        failure = self._failures.save_failure(
            tokens, error, self._deps.clock(), is_token_valid=is_token_valid
        )
        if not failure.is_final:
            # A temporary server error or a local setting does not end the session.
            return self._use_old_token(stored, refused_header, error)
        is_unknown = isinstance(error, TokenError) and error.error == "invalid_client"
        return self._end_session(
            stored,
            refused_header,
            self._session_ended_error(stored, error.server_message),
            stored.credentials.client if is_unknown else None,
        )

    def _end_session(
        self,
        stored: Stored,
        refused_header: Secret | None,
        error: AuthorizationRequired,
        unknown_client: Client | None,
    ) -> CachedToken:
        """Record that the session is over, unless a newer session is stored; forget `unknown_client`.

        While the access token is valid, use it and record nothing: one more refresh follows at its expiry.
        """
        credentials = stored.credentials
        tokens = credentials.tokens
        if tokens is None:
            raise error
        # Hermes 0.19 takes no lease and may have rotated the refresh token meanwhile.
        if (newer_token := self._read_fresh_token(Secret(tokens.authorization_header))[0]) is not None:
            return newer_token
        if _is_token_valid(tokens, refused_header, self._deps.clock()):
            return self._use_old_token(stored, refused_header, error)
        if credentials.binding is not None:
            ended_binding = replace(credentials.binding, login_needed=error.reason)
            self._buffered_store.save_binding(ended_binding, stored.version)
        if unknown_client is not None:
            # The next login registers a new client.
            with suppress(StoreError):
                self._deps.store.drop_client(self._key, unknown_client)
        raise error

    def _recent_error(self, now: float) -> McpAuthError | None:
        """Return the last error if it is only seconds old and the clock was not set back since, else None."""
        recent_until, error = self._last_error or (-math.inf, None)
        is_recent = error is not None and now < recent_until <= now + RETRY_SECONDS + 1
        return error.with_traceback(None) if error is not None and is_recent else None

    def _use_old_token(
        self, stored: Stored, refused_header: Secret | None, error: McpAuthError
    ) -> CachedToken:
        """Return the old token with a pause before the next refresh; raise `error` for an expired token."""
        token = self._unexpired_token(stored, refused_header)
        if token is None:
            raise error
        return token

    def _token_for_lock_wait(self, stored: Stored, refused_header: Secret | None) -> CachedToken | None:
        """Return the stored token if it stays valid much longer than the short lock wait, else None."""
        token = self._unexpired_token(stored, refused_header)
        needed_until = self._deps.clock() + 2 * self._deps.limits.due_lock_seconds
        return token if token is not None and token.usable_until > needed_until else None

    def _unexpired_token(self, stored: Stored, refused_header: Secret | None) -> CachedToken | None:
        """Return the stored token if it is valid and not the refused one. The next refresh is due soon."""
        tokens, proof_key, now = stored.credentials.tokens, stored.credentials.proof_key, self._deps.clock()
        if tokens is None or not _is_token_valid(tokens, refused_header, now):
            return None
        if tokens.scheme == "DPoP" and proof_key is None:
            return None
        expires_at = math.inf if tokens.expires_at is None else tokens.expires_at
        return CachedToken(
            tokens.authorization_header,
            min(expires_at, now + BACKOFF_SECONDS),
            expires_at,
            stored.version,
            self._prover_for(proof_key),
        )

    def _resource(self) -> str | None:
        return select_resource(self._server.url, None, self._server.options.resource)

    def _session_ended_error(self, stored: Stored, server_message: str) -> AuthorizationRequired:
        authorization_server = stored.credentials.authorization_server
        error = self._login_required_error(
            "its session has ended"
            if authorization_server is None
            else session_ended_reason(authorization_server)
        )
        error.server_message = server_message
        return error

    def _login_required_error(
        self,
        reason: str = NEVER_LOGGED_IN,
        *,
        challenge: Challenge | None = None,
        server_message: str = "",
        has_other_tokens: bool = False,
    ) -> AuthorizationRequired:
        """Return the error. `has_other_tokens` is True if tokens of another server have this name."""
        name, owner, server = self._key.server_name, self._key.owner, self._server
        if server.known_from != "config":
            # After a logout, a command no longer finds the server by its name.
            server = replace(server, known_from="login" if self._has_stored_login else None)
        advice = login_advice(server, owner)
        if self.uses_machine_grant:
            advice = f"Run `{logout_command(name, owner)}`, then `{token_command(name, owner)}`."
        elif has_other_tokens and not server.is_known:
            # `login` replaces the tokens of another address only if config.yaml has the new one.
            advice = f"Run `{logout_command(name, owner)}`. {advice.replace('Run', 'Then run', 1)}"
        return AuthorizationRequired(
            name, reason=reason, challenge=challenge, server_message=server_message, advice=advice
        )


def _record_request(lease: Lease | None) -> StoreError | None:
    """Record that a token request is sent now, or return the error that prevents it.

    Without the record, the next holder of the lease could send the same refresh token again.
    """
    try:
        if lease is not None:
            lease.record_request()
    except StoreError as error:
        return error
    return None


def _is_token_valid(tokens: Tokens, refused_header: Secret | None, now: float) -> bool:
    """True if the access token has not expired and is not the one that the server refused."""
    return not tokens.matches_header(refused_header) and (
        tokens.expires_at is None or tokens.expires_at > now
    )


def _authorization_host(credentials: Credentials) -> str:
    authorization_server = credentials.authorization_server
    return "" if authorization_server is None else host_of(authorization_server.issuer)
