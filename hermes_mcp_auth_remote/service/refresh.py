"""Finding or making a token that is good: the store first, then a refresh, then nobody but a person.

Runs in a flight (`flights`): in a thread of its own, one at a time per session and process, and under the
lock that later Hermes takes where it writes. RFC 6749 §6.
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
from hermes_mcp_auth_remote.exit_hold import ExitHold
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

# How long an old token is used without another try, after a refresh that failed for the moment.
BACKOFF_SECONDS = VALID_TOKEN_PAUSE_SECONDS
# How long nobody asks again where the old token has ended, too: short, for everybody waits for it.
RETRY_SECONDS = EXPIRED_TOKEN_PAUSE_SECONDS


class TokenRefresher:
    """Renews the tokens of one server and owner, and remembers what is of no use to try again."""

    def __init__(self, deps: Dependencies, server: Server, key: CredentialKey) -> None:
        self._deps = deps
        self._server = server
        self._key = key
        self._failures = RefreshFailureTracker(deps.store, key)
        self._last_error: tuple[float, McpAuthError] | None = None
        self._buffered_store = BufferedCredentialStore(deps.store, key)
        # The key of the tokens that were read last, and its prover, which knows what nonces are wanted.
        self._key_and_prover: tuple[Secret, Prover] | None = None
        # Of the flight under way.
        self._exit_hold = ExitHold()

    @property
    def uses_machine_grant(self) -> bool:
        """True where the grant is one without a person: who needs a token asks the server again."""
        return self._server.options.grant != "authorization_code"

    async def obtain_token(
        self, refused_header: Secret | None, challenge: Challenge | None = None
    ) -> CachedToken:
        """Find or make a token that is fresh and is not the refused one.

        `challenge` is what the server wants beyond it. Raises AuthorizationRequired where only a person can
        help, a NetworkError or StoreError else; without a person also a ServerError or ConfigError.
        """
        self._exit_hold = ExitHold()
        with self._exit_hold:
            try:
                return await self._obtain_token(refused_header, challenge)
            except asyncio.CancelledError:
                # From `note_sent`: nobody else cancels a flight.
                return self.use_stored_token(refused_header)

    def use_stored_token(self, refused_header: Secret | None) -> CachedToken:
        """Return the stored token for a process that can send no token request any more; reads files.

        Raises TimedOut if that token is not good, AuthorizationRequired, StoreError.
        """
        found, stored = self._read_fresh_token(refused_header)
        if found is None and (found := self._unexpired_token(stored, refused_header)) is None:
            raise TimedOut(
                f"No token request for {self._key.server_name} was sent: this process is ending, "
                "or can start no thread.",
                "Run it again.",
            )
        return found

    def use_stored_token_after_timeout(self, refused_header: Secret | None) -> CachedToken:
        """Return the stored token for a caller who waits no longer for the flight under way; reads files.

        Raises TimedOut if that token is not good, AuthorizationRequired, StoreError.
        """
        found, stored = self._read_fresh_token(refused_header)
        if found is not None or (found := self._unexpired_token(stored, refused_header)) is not None:
            return found
        host, name = self._exit_hold.host, self._key.server_name
        if host is not None:
            raise TimedOut(
                f"{host} got a token request for {name} but did not answer in time.",
                "Try again in a minute: what it answers until then is stored and used.",
            )
        raise TimedOut(
            f"No token for {name} came in time: another process is refreshing it, or the network hangs.",
            "Try again in a minute.",
        )

    async def _obtain_token(self, refused_header: Secret | None, challenge: Challenge | None) -> CachedToken:
        found, stored = self._read_fresh_token(refused_header)
        # What the disk lacks is worth a lock: perhaps it takes it now.
        if found is not None and not self._buffered_store.has_unsaved:
            return found
        limits, meanwhile = self._deps.limits, found or self._token_for_lock_wait(stored, refused_header)
        # The process that holds the lock may be stopped.
        seconds = limits.lock_seconds if meanwhile is None else limits.due_lock_seconds
        unwritable: StoreUnwritable | None = None
        async with AsyncExitStack() as block:
            try:
                await block.enter_async_context(acquire_lock(self._deps.store.lock(self._key), seconds))
                # Before the refresh token is spent: its successor must have a place.
                self._deps.store.check_can_store(self._key)
            except StoreBusy:
                if meanwhile is None:
                    raise
                return self._read_fresh_token(refused_header)[0] or meanwhile
            except StoreUnwritable as trouble:
                unwritable = trouble
            else:
                self._buffered_store.retry_save()
            found, stored = self._read_fresh_token(refused_header)
            if found is not None:
                return found
            if self.uses_machine_grant:
                return await self._request_machine_tokens(stored, refused_header, challenge)
            if unwritable is None or self._buffered_store.has_unsaved:
                return await self._refresh_tokens(stored, refused_header)
            # A refresh that can neither be stored nor seen by others would end the session for all of them.
            if stored.tokens is None:
                raise unwritable
            self._buffered_store.warn_unwritable(unwritable)
            return self._use_old_token(stored, stored.tokens, refused_header, unwritable)

    def read_credentials(self) -> Credentials:
        """Return what is stored, or newer tokens that the disk refused. Raises StoreError."""
        return self._buffered_store.read()

    def discard_unsaved(self) -> None:
        """Use nothing from memory any more."""
        self._buffered_store.discard_unsaved()

    def _read_fresh_token(self, refused_header: Secret | None) -> tuple[CachedToken | None, Credentials]:
        """Read the store: what can be used at once, and all that is there."""
        version = self._deps.store.version(self._key)
        stored = self._buffered_store.read()
        binding = stored.binding
        if binding is not None and not _is_same_server(binding, self._server.url):
            # Another server by this name, or by one that Hermes writes alike: its token is not for us.
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
        """Make a header of tokens; where the disk lacks them, another try to store them is due soon."""
        found = make_cached_token(
            tokens, version, self._prover_for(proof_key) if tokens.scheme == "DPoP" else None
        )
        if not self._buffered_store.has_unsaved:
            return found
        return replace(found, refresh_at=min(found.refresh_at, self._deps.clock() + BACKOFF_SECONDS))

    def _prover_for(self, proof_key: Secret | None) -> Prover | None:
        if proof_key is None:
            return None
        known = self._key_and_prover
        if known is None or known[0] != proof_key:
            prover = self._deps.prover_for(proof_key)
            known = self._key_and_prover = None if prover is None else (proof_key, prover)
        return None if known is None else known[1]

    async def _request_machine_tokens(
        self, credentials: Credentials, refused_header: Secret | None, challenge: Challenge | None
    ) -> CachedToken:
        """Ask for tokens again, and store them; the grant needs no person."""
        tokens, now = credentials.tokens, self._deps.clock()
        # For machines alone, whose grants few servers have.
        from hermes_mcp_auth_remote.service.machine_tokens import request_machine_tokens  # noqa: PLC0415

        try:
            if (trouble_before := self._recent_error(now)) is not None:
                raise trouble_before
            fresh = await request_machine_tokens(self._deps, self._server, self._key, credentials, challenge)
        except McpAuthError as trouble:
            if self._recent_error(now) is None:
                self._last_error = self._deps.clock() + RETRY_SECONDS, trouble
            if tokens is None:
                raise
            return self._use_old_token(credentials, tokens, refused_header, trouble)
        if fresh.tokens is None:
            raise AuthorizationRequired(self._key.server_name)
        self._buffered_store.save_credentials(credentials, fresh, is_new_login=True)
        return self._make_cached_token(fresh.tokens, self._deps.store.version(self._key), fresh.proof_key)

    async def _refresh_tokens(self, credentials: Credentials, refused_header: Secret | None) -> CachedToken:
        """Refresh what is stored, unless it is known already what would come of that."""
        tokens, client, issuer, binding = (
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
        if tokens.refresh_token is None or client is None or issuer is None:
            return self._use_old_token(
                credentials, tokens, refused_header, self._login_required_error("its access token has ended")
            )
        prover = self._prover_for(credentials.proof_key)
        ended = self._login_required_error(session_ended_reason(issuer))
        now = self._deps.clock()
        is_alive = _is_token_valid(tokens, refused_header, now)
        if (last := self._failures.last_failure(tokens)) is not None:
            failure, trouble_before = last
            if not failure.can_retry(now, is_token_valid=is_alive):
                why = ended if failure.is_final else trouble_before
                ended.server_message = failure.server_words
                return self._use_old_token(credentials, tokens, refused_header, why)
        resource = binding.resource if binding else self._resource()
        try:
            sign = self._deps.signer_for(self._server)
            request = refresh_tokens(issuer, client, tokens, now, resource=resource, sign=sign, prover=prover)
            fresh = await self._deps.run_exchange(request, self._server)
        except McpAuthError as trouble:
            return self._handle_refresh_error(
                credentials, refused_header, trouble, ended, is_token_valid=is_alive
            )
        if tokens.scheme == "DPoP":
            try:
                require_dpop(fresh, self._server.options, host_of(issuer.issuer))
            except MalformedResponse as trouble:
                # The old refresh token is spent, even if the new access token is not wanted.
                rotated = replace(credentials, tokens=replace(tokens, refresh_token=fresh.refresh_token))
                self._buffered_store.save_credentials(credentials, rotated)
                return self._handle_refresh_error(
                    rotated, refused_header, trouble, ended, is_token_valid=is_alive
                )
        return self._read_newer_token(tokens) or self._save_refreshed_tokens(credentials, fresh, now)

    def _save_refreshed_tokens(self, credentials: Credentials, new_tokens: Tokens, now: float) -> CachedToken:
        """Store tokens that a refresh brought at `now` (epoch seconds), and return their header."""
        binding = credentials.binding
        if binding is not None:
            binding = replace(
                binding, refreshed_at=now, refresh_expires_at=new_tokens.refresh_expires_at, login_needed=None
            )
        # On the disk before their first use: a rotated refresh token that is lost ends the session.
        self._buffered_store.save_credentials(
            credentials, replace(credentials, tokens=new_tokens, binding=binding)
        )
        self._failures.clear()
        return self._make_cached_token(new_tokens, self._deps.store.version(self._key), credentials.proof_key)

    def _read_newer_token(self, old_tokens: Tokens) -> CachedToken | None:
        """Return good tokens that took the place of `tokens` while the server answered; None for none.

        Hermes 0.19 takes no lock: the user may have logged in there. What our refresh of the session before
        brought must not take the place of that login, nor lie beside its client.
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
        """Note a refresh that failed; go on with the old token if it is good. Raises `trouble` or `ended`."""
        tokens = credentials.tokens
        if tokens is None:
            raise final_error
        failure = self._failures.save_failure(
            tokens, error, self._deps.clock(), is_token_valid=is_token_valid
        )
        if not failure.is_final:
            # A hiccup over there, or a setting here, ends nothing.
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
        """Note that the session is over, unless there is another by now; `unknown` is a client to forget.

        While the access token works it is used, and nothing is noted: one more refresh is sent at its end.
        """
        tokens = credentials.tokens
        if tokens is None:
            raise error
        # A writer that takes no lock (Hermes 0.19) may have rotated it under our hands.
        if (found := self._read_fresh_token(Secret(tokens.authorization_header))[0]) is not None:
            return found
        if _is_token_valid(tokens, refused_header, self._deps.clock()):
            return self._use_old_token(credentials, tokens, refused_header, error)
        if credentials.binding is not None:
            self._buffered_store.save_binding(replace(credentials.binding, login_needed=error.reason))
        if unknown_client is not None:
            # The next login registers anew.
            with suppress(StoreError):
                self._deps.store.drop_client(self._key, unknown_client)
        raise error

    def _recent_error(self, now: float) -> McpAuthError | None:
        """Return what went wrong just now; not where the clock has been set back since."""
        until, trouble = self._last_error or (-math.inf, None)
        is_recent = trouble is not None and now < until <= now + RETRY_SECONDS + 1
        return trouble.with_traceback(None) if trouble is not None and is_recent else None

    def _use_old_token(
        self, credentials: Credentials, tokens: Tokens, refused_header: Secret | None, error: McpAuthError
    ) -> CachedToken:
        """Go on with the old token while it lives, and do not ask again at once; else raise."""
        found = self._unexpired_token(replace(credentials, tokens=tokens), refused_header)
        if found is None:
            raise error
        return found

    def _token_for_lock_wait(
        self, credentials: Credentials, refused_header: Secret | None
    ) -> CachedToken | None:
        """Return the stored token if it outlives a short wait for the lock by far."""
        found, short = self._unexpired_token(credentials, refused_header), self._deps.limits.due_lock_seconds
        return found if found is not None and found.usable_until > self._deps.clock() + 2 * short else None

    def _unexpired_token(self, credentials: Credentials, refused_header: Secret | None) -> CachedToken | None:
        """Return the stored token if it lives and is not the refused one; another try is due soon."""
        tokens, now = credentials.tokens, self._deps.clock()
        if tokens is None or not _is_token_valid(tokens, refused_header, now):
            return None
        if tokens.scheme == "DPoP" and credentials.proof_key is None:
            return None
        ends = math.inf if tokens.expires_at is None else tokens.expires_at
        version, prover = self._deps.store.version(self._key), self._prover_for(credentials.proof_key)
        return CachedToken(
            tokens.authorization_header, min(ends, now + BACKOFF_SECONDS), ends, version, prover
        )

    def _resource(self) -> str | None:
        return select_resource(self._server.url, None, self._server.options.resource)

    def _login_required_error(self, reason: str) -> AuthorizationRequired:
        return AuthorizationRequired(self._key.server_name, reason=reason)


def _is_token_valid(tokens: Tokens, refused_header: Secret | None, now: float) -> bool:
    """True if the access token still works as far as is known: its time is not over, no server refused it."""
    return not tokens.matches_header(refused_header) and (
        tokens.expires_at is None or tokens.expires_at > now
    )


def _is_same_server(binding: Binding, server_url: str) -> bool:
    return canonical_resource(binding.server_url) == canonical_resource(server_url)
