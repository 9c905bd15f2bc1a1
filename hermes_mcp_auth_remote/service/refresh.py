"""Obtain a valid token: from the store, or by a refresh (RFC 6749 §6), or else require a login.

Runs in a flight (`single_flight`): in a thread of its own, one at a time per session and process, and under
the lock that later versions of Hermes take when they write.
"""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from hermes_mcp_auth_remote.errors import (
    AuthorizationRequired,
    MalformedResponse,
    McpAuthError,
    StoreBusy,
    StoreError,
    StoreUnwritable,
    TimedOut,
    TokenError,
)
from hermes_mcp_auth_remote.exit_delay import ExitDelay
from hermes_mcp_auth_remote.oauth.authorization import select_resource
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.refresh_failure import (
    EXPIRED_TOKEN_PAUSE_SECONDS,
    VALID_TOKEN_PAUSE_SECONDS,
)
from hermes_mcp_auth_remote.oauth.token import Tokens, refresh_tokens, require_dpop
from hermes_mcp_auth_remote.oauth.urls import canonical_resource, host_of
from hermes_mcp_auth_remote.service.cached_token import CachedToken, make_cached_token, refresh_at
from hermes_mcp_auth_remote.service.connections import session_ended_reason
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.refresh_backoff import RefreshFailureTracker
from hermes_mcp_auth_remote.service.single_flight import acquire_lock
from hermes_mcp_auth_remote.service.unsaved_tokens import BufferedCredentialStore
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.store.files.credential_files import Version
from hermes_mcp_auth_remote.values import CredentialKey, Secret, Server

# How long the old token is used before the next try, after a refresh that failed temporarily.
BACKOFF_SECONDS = VALID_TOKEN_PAUSE_SECONDS
# The same if the old token has expired: short, because all callers wait.
RETRY_SECONDS = EXPIRED_TOKEN_PAUSE_SECONDS


class TokenRefresher:
    """Refreshes the tokens of one server and owner, and remembers failures that need no retry."""

    def __init__(self, deps: Dependencies, server: Server, key: CredentialKey) -> None:
        self._deps = deps
        self._server = server
        self._key = key
        self._failures = RefreshFailureTracker(deps.store, key)
        self._last_error: tuple[float, McpAuthError] | None = None
        self._buffered_store = BufferedCredentialStore(deps.store, key)
        # The proof key of the last tokens read, and its prover, which remembers the servers' nonces.
        self._key_and_prover: tuple[Secret, Prover] | None = None
        # The exit hold of the current flight.
        self._exit_delay = ExitDelay()

    @property
    def uses_machine_grant(self) -> bool:
        """True if the grant needs no user: an expired token is replaced by a new token request."""
        return self._server.options.grant != "authorization_code"

    async def obtain_token(
        self, refused_header: Secret | None, challenge: Challenge | None = None
    ) -> CachedToken:
        """Return a fresh token that differs from the refused one.

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

    def use_stored_token_after_timeout(self, refused_header: Secret | None) -> CachedToken:
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
                "Try again in a minute: if it answers until then, its tokens are stored and used.",
            )
        raise TimedOut(
            f"No token for {name} came in time: another process is refreshing it, or the network hangs.",
            "Try again in a minute.",
        )

    async def _obtain_token(self, refused_header: Secret | None, challenge: Challenge | None) -> CachedToken:
        token, stored = self._read_fresh_token(refused_header)
        # With unsaved tokens, take the lock to try the write again.
        if token is not None and not self._buffered_store.has_unsaved:
            return token
        limits, interim_token = self._deps.limits, token or self._token_for_lock_wait(stored, refused_header)
        # With a valid token, wait only briefly: the process that holds the lock may be stopped.
        seconds = limits.lock_seconds if interim_token is None else limits.due_lock_seconds
        unwritable: StoreUnwritable | None = None
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(acquire_lock(self._deps.store.lock(self._key), seconds))
                # Check before the refresh token is used up: its successor must be storable.
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
                return await self._refresh_tokens(stored, refused_header)
            # If the new refresh token could not be stored, the session would end for all processes.
            if stored.tokens is None:
                raise unwritable
            self._buffered_store.warn_unwritable(unwritable)
            return self._use_old_token(stored, stored.tokens, refused_header, unwritable)

    def read_credentials(self) -> Credentials:
        """Return the stored credentials, or newer ones that could not be written. Raises StoreError."""
        return self._buffered_store.read()

    def discard_unsaved(self) -> None:
        """Discard credentials that could not be written."""
        self._buffered_store.discard_unsaved()

    def _read_fresh_token(self, refused_header: Secret | None) -> tuple[CachedToken | None, Credentials]:
        """Read the store; return a fresh token or None, and the stored credentials."""
        version = self._deps.store.version(self._key)
        stored = self._buffered_store.read()
        binding = stored.binding
        if binding is not None and not _is_same_server(binding, self._server.url):
            # The tokens belong to another server of this name, or of a name with the same Hermes file stem.
            raise AuthorizationRequired(
                self._key.server_name,
                reason="the stored tokens are for another address than the configured one",
            )
        tokens = stored.tokens
        if (
            tokens is None
            or tokens.matches_header(refused_header)
            or refresh_at(tokens) <= self._deps.clock()
        ):
            return None, stored
        if tokens.scheme == "DPoP" and stored.proof_key is None:
            if self.uses_machine_grant:
                return None, stored
            raise self._login_required_error("the key that its tokens are bound to is gone")
        return self._make_cached_token(tokens, version, stored.proof_key), stored

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
        self, credentials: Credentials, refused_header: Secret | None, challenge: Challenge | None
    ) -> CachedToken:
        """Request new tokens by a grant without a user, and store them."""
        tokens, now = credentials.tokens, self._deps.clock()
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
            if tokens is None:
                raise
            return self._use_old_token(credentials, tokens, refused_header, error)
        if new_credentials.tokens is None:
            raise AuthorizationRequired(self._key.server_name)
        self._buffered_store.save_credentials(credentials, new_credentials, is_new_login=True)
        return self._make_cached_token(
            new_credentials.tokens, self._deps.store.version(self._key), new_credentials.proof_key
        )

    async def _refresh_tokens(self, credentials: Credentials, refused_header: Secret | None) -> CachedToken:
        """Refresh the stored tokens, unless an earlier failure says that it cannot succeed now."""
        tokens, client, authorization_server, binding = (
            credentials.tokens,
            credentials.client,
            credentials.authorization_server,
            credentials.binding,
        )
        if tokens is None:
            raise AuthorizationRequired(self._key.server_name)
        if binding is not None and binding.login_needed is not None:
            return self._use_old_token(
                credentials, tokens, refused_header, self._login_required_error(binding.login_needed)
            )
        if tokens.refresh_token is None or client is None or authorization_server is None:
            return self._use_old_token(
                credentials, tokens, refused_header, self._login_required_error("its access token has ended")
            )
        prover = self._prover_for(credentials.proof_key)
        ended_error = self._login_required_error(session_ended_reason(authorization_server))
        now = self._deps.clock()
        is_token_valid = _is_token_valid(tokens, refused_header, now)
        if (last_failure := self._failures.last_failure(tokens)) is not None:
            failure, last_error = last_failure
            if not failure.can_retry(now, is_token_valid=is_token_valid):
                reason_error = ended_error if failure.is_final else last_error
                ended_error.server_message = failure.server_message
                return self._use_old_token(credentials, tokens, refused_header, reason_error)
        resource = binding.resource if binding else self._resource()
        try:
            sign = self._deps.signer_for(self._server)
            request = refresh_tokens(
                authorization_server, client, tokens, now, resource=resource, sign=sign, prover=prover
            )
            new_tokens = await self._deps.run_exchange(request, self._server)
        except McpAuthError as error:
            return self._handle_refresh_error(
                credentials, refused_header, error, ended_error, is_token_valid=is_token_valid
            )
        if tokens.scheme == "DPoP":
            try:
                require_dpop(new_tokens, self._server.options, host_of(authorization_server.issuer))
            except MalformedResponse as error:
                # The old refresh token is used up, even though the new access token is rejected here.
                rotated = replace(credentials, tokens=replace(tokens, refresh_token=new_tokens.refresh_token))
                self._buffered_store.save_credentials(credentials, rotated)
                return self._handle_refresh_error(
                    rotated, refused_header, error, ended_error, is_token_valid=is_token_valid
                )
        return self._read_newer_token(tokens) or self._save_refreshed_tokens(credentials, new_tokens, now)

    def _save_refreshed_tokens(self, credentials: Credentials, new_tokens: Tokens, now: float) -> CachedToken:
        """Store the tokens of a refresh made at `now` (epoch seconds), and return their header."""
        binding = credentials.binding
        if binding is not None:
            binding = replace(
                binding, refreshed_at=now, refresh_expires_at=new_tokens.refresh_expires_at, login_needed=None
            )
        # Write them before their first use: losing a rotated refresh token ends the session.
        self._buffered_store.save_credentials(
            credentials, replace(credentials, tokens=new_tokens, binding=binding)
        )
        self._failures.clear()
        return self._make_cached_token(new_tokens, self._deps.store.version(self._key), credentials.proof_key)

    def _read_newer_token(self, old_tokens: Tokens) -> CachedToken | None:
        """Return a fresh token that replaced `old_tokens` during the refresh, or None.

        Hermes 0.19 takes no lock, so the user may have logged in there meanwhile. The tokens of a refresh of
        the earlier session must not replace that login or be stored with its client.
        """
        try:
            return self._read_fresh_token(Secret(old_tokens.authorization_header))[0]
        except StoreError:
            return None

    def _handle_refresh_error(
        self,
        credentials: Credentials,
        refused_header: Secret | None,
        error: McpAuthError,
        final_error: AuthorizationRequired,
        *,
        is_token_valid: bool,
    ) -> CachedToken:
        """Record a failed refresh; return the old token if valid, else raise `error` or `final_error`."""
        tokens = credentials.tokens
        if tokens is None:
            raise final_error
        failure = self._failures.save_failure(
            tokens, error, self._deps.clock(), is_token_valid=is_token_valid
        )
        if not failure.is_final:
            # A temporary server error or a local setting does not end the session.
            return self._use_old_token(credentials, tokens, refused_header, error)
        final_error.server_message = error.server_message
        is_unknown = isinstance(error, TokenError) and error.error == "invalid_client"
        return self._end_session(
            credentials, refused_header, final_error, credentials.client if is_unknown else None
        )

    def _end_session(
        self,
        credentials: Credentials,
        refused_header: Secret | None,
        error: AuthorizationRequired,
        unknown_client: Client | None,
    ) -> CachedToken:
        """Record that the session is over, unless a newer one is stored; forget `unknown_client`.

        While the access token is valid, use it and record nothing: one more refresh follows at its expiry.
        """
        tokens = credentials.tokens
        if tokens is None:
            raise error
        # Hermes 0.19 takes no lock and may have rotated the refresh token meanwhile.
        if (newer_token := self._read_fresh_token(Secret(tokens.authorization_header))[0]) is not None:
            return newer_token
        if _is_token_valid(tokens, refused_header, self._deps.clock()):
            return self._use_old_token(credentials, tokens, refused_header, error)
        if credentials.binding is not None:
            self._buffered_store.save_binding(replace(credentials.binding, login_needed=error.reason))
        if unknown_client is not None:
            # The next login registers a new client.
            with suppress(StoreError):
                self._deps.store.drop_client(self._key, unknown_client)
        raise error

    def _recent_error(self, now: float) -> McpAuthError | None:
        """Return the error of the last few seconds, or None; ignores it if the clock was set back since."""
        recent_until, error = self._last_error or (-math.inf, None)
        is_recent = error is not None and now < recent_until <= now + RETRY_SECONDS + 1
        return error.with_traceback(None) if error is not None and is_recent else None

    def _use_old_token(
        self, credentials: Credentials, tokens: Tokens, refused_header: Secret | None, error: McpAuthError
    ) -> CachedToken:
        """Return the old token with a pause before the next refresh; raise `error` if it has expired."""
        token = self._unexpired_token(replace(credentials, tokens=tokens), refused_header)
        if token is None:
            raise error
        return token

    def _token_for_lock_wait(
        self, credentials: Credentials, refused_header: Secret | None
    ) -> CachedToken | None:
        """Return the stored token if it stays valid much longer than the short lock wait, else None."""
        token = self._unexpired_token(credentials, refused_header)
        needed_until = self._deps.clock() + 2 * self._deps.limits.due_lock_seconds
        return token if token is not None and token.usable_until > needed_until else None

    def _unexpired_token(self, credentials: Credentials, refused_header: Secret | None) -> CachedToken | None:
        """Return the stored token, due for a refresh soon, if it is valid and not the refused one."""
        tokens, now = credentials.tokens, self._deps.clock()
        if tokens is None or not _is_token_valid(tokens, refused_header, now):
            return None
        if tokens.scheme == "DPoP" and credentials.proof_key is None:
            return None
        expires_at = math.inf if tokens.expires_at is None else tokens.expires_at
        version, prover = self._deps.store.version(self._key), self._prover_for(credentials.proof_key)
        return CachedToken(
            tokens.authorization_header, min(expires_at, now + BACKOFF_SECONDS), expires_at, version, prover
        )

    def _resource(self) -> str | None:
        return select_resource(self._server.url, None, self._server.options.resource)

    def _login_required_error(self, reason: str) -> AuthorizationRequired:
        return AuthorizationRequired(self._key.server_name, reason=reason)


def _is_token_valid(tokens: Tokens, refused_header: Secret | None, now: float) -> bool:
    """True if the access token has not expired and is not the one that the server refused."""
    return not tokens.matches_header(refused_header) and (
        tokens.expires_at is None or tokens.expires_at > now
    )


def _is_same_server(binding: Binding, server_url: str) -> bool:
    return canonical_resource(binding.server_url) == canonical_resource(server_url)
