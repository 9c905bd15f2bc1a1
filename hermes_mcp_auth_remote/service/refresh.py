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
    McpAuthError,
    StoreBusy,
    StoreError,
    StoreUnwritable,
    TimedOut,
    TokenRefused,
    UnreadableAnswer,
)
from hermes_mcp_auth_remote.exit_hold import ExitHold
from hermes_mcp_auth_remote.oauth.authorization import select_resource
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.refresh_failure import ALIVE_PAUSE_SECONDS, ENDED_PAUSE_SECONDS
from hermes_mcp_auth_remote.oauth.token import Tokens, demand_bound, refresh
from hermes_mcp_auth_remote.oauth.urls import canonical_resource, host_of
from hermes_mcp_auth_remote.service.cached_token import Ready, fresh_until, ready
from hermes_mcp_auth_remote.service.connections import session_ended
from hermes_mcp_auth_remote.service.dependencies import World
from hermes_mcp_auth_remote.service.refresh_backoff import FailureMemory
from hermes_mcp_auth_remote.service.single_flight import held
from hermes_mcp_auth_remote.service.unsaved_tokens import Keeping
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.store.files.credential_files import Version
from hermes_mcp_auth_remote.values import Key, Secret, Server

# How long an old token is used without another try, after a refresh that failed for the moment.
BACK_OFF_SECONDS = ALIVE_PAUSE_SECONDS
# How long nobody asks again where the old token has ended, too: short, for everybody waits for it.
RETRY_SECONDS = ENDED_PAUSE_SECONDS


class Renewal:
    """Renews the tokens of one server and owner, and remembers what is of no use to try again."""

    def __init__(self, world: World, server: Server, key: Key) -> None:
        self._world = world
        self._server = server
        self._key = key
        self._failures = FailureMemory(world.store, key)
        self._trouble: tuple[float, McpAuthError] | None = None
        self._keeping = Keeping(world.store, key)
        # The key of the tokens that were read last, and its prover, which knows what nonces are wanted.
        self._proving: tuple[Secret, Prover] | None = None
        # Of the flight under way.
        self._hold = ExitHold()

    @property
    def needs_nobody(self) -> bool:
        """True where the grant is one without a person: who needs a token asks the server again."""
        return self._server.options.grant != "authorization_code"

    async def renewed(self, refused: Secret | None, challenge: Challenge | None = None) -> Ready:
        """Find or make a token that is fresh and is not the refused one.

        `challenge` is what the server wants beyond it. Raises AuthorizationRequired where only a person can
        help, a NetworkError or StoreError else; without a person also a ServerError or ConfigError.
        """
        self._hold = ExitHold()
        with self._hold:
            try:
                return await self._renewed(refused, challenge)
            except asyncio.CancelledError:
                # From `note_sent`: nobody else cancels a flight.
                return self.use_stored(refused)

    def use_stored(self, refused: Secret | None) -> Ready:
        """Return the stored token for a process that can send no token request any more; reads files.

        Raises TimedOut if that token is not good, AuthorizationRequired, StoreError.
        """
        found, stored = self._found(refused)
        if found is None and (found := self._still_good(stored, refused)) is None:
            raise TimedOut(
                f"No token request for {self._key.server} was sent: this process is ending, or can start no "
                "thread.",
                "Run it again.",
            )
        return found

    def use_meanwhile(self, refused: Secret | None) -> Ready:
        """Return the stored token for a caller who waits no longer for the flight under way; reads files.

        Raises TimedOut if that token is not good, AuthorizationRequired, StoreError.
        """
        found, stored = self._found(refused)
        if found is not None or (found := self._still_good(stored, refused)) is not None:
            return found
        host, name = self._hold.host, self._key.server
        if host is not None:
            raise TimedOut(
                f"{host} got a token request for {name} but did not answer in time.",
                "Try again in a minute: what it answers until then is stored and used.",
            )
        raise TimedOut(
            f"No token for {name} came in time: another process is refreshing it, or the network hangs.",
            "Try again in a minute.",
        )

    async def _renewed(self, refused: Secret | None, challenge: Challenge | None) -> Ready:
        found, stored = self._found(refused)
        # What the disk lacks is worth a lock: perhaps it takes it now.
        if found is not None and not self._keeping.is_behind:
            return found
        limits, meanwhile = self._world.limits, found or self._meanwhile(stored, refused)
        # The process that holds the lock may be stopped.
        seconds = limits.lock_seconds if meanwhile is None else limits.due_lock_seconds
        unwritable: StoreUnwritable | None = None
        async with AsyncExitStack() as block:
            try:
                await block.enter_async_context(held(self._world.store.lock(self._key), seconds))
                # Before the refresh token is spent: its successor must have a place.
                self._world.store.check_can_store(self._key)
            except StoreBusy:
                if meanwhile is None:
                    raise
                return self._found(refused)[0] or meanwhile
            except StoreUnwritable as trouble:
                unwritable = trouble
            else:
                self._keeping.catch_up()
            found, stored = self._found(refused)
            if found is not None:
                return found
            if self.needs_nobody:
                return await self._granted(stored, refused, challenge)
            if unwritable is None or self._keeping.is_behind:
                return await self._refreshed(stored, refused)
            # A refresh that can neither be stored nor seen by others would end the session for all of them.
            if stored.tokens is None:
                raise unwritable
            self._keeping.tell_unwritable(unwritable)
            return self._old(stored, stored.tokens, refused, unwritable)

    def read(self) -> Credentials:
        """Return what is stored, or newer tokens that the disk refused. Raises StoreError."""
        return self._keeping.read()

    def forget(self) -> None:
        """Use nothing from memory any more."""
        self._keeping.forget()

    def _found(self, refused: Secret | None) -> tuple[Ready | None, Credentials]:
        """Read the store: what can be used at once, and all that is there."""
        version = self._world.store.version(self._key)
        stored = self._keeping.read()
        binding = stored.binding
        if binding is not None and not _same_server(binding, self._server.url):
            # Another server by this name, or by one that Hermes writes alike: its token is not for us.
            raise AuthorizationRequired(
                self._key.server, reason="the stored tokens are for another address than the configured one"
            )
        tokens = stored.tokens
        if tokens is None or tokens.is_in(refused) or fresh_until(tokens) <= self._world.clock():
            return None, stored
        if tokens.scheme == "DPoP" and stored.proof_key is None:
            if self.needs_nobody:
                return None, stored
            raise self._over("the key that its tokens are bound to is gone")
        return self._used(tokens, version, stored.proof_key), stored

    def _used(self, tokens: Tokens, version: Version | None, proof_key: Secret | None) -> Ready:
        """Make a header of tokens; where the disk lacks them, another try to store them is due soon."""
        found = ready(tokens, version, self._prover(proof_key) if tokens.scheme == "DPoP" else None)
        if not self._keeping.is_behind:
            return found
        return replace(found, fresh_until=min(found.fresh_until, self._world.clock() + BACK_OFF_SECONDS))

    def _prover(self, proof_key: Secret | None) -> Prover | None:
        if proof_key is None:
            return None
        known = self._proving
        if known is None or known[0] != proof_key:
            prover = self._world.prover(proof_key)
            known = self._proving = None if prover is None else (proof_key, prover)
        return None if known is None else known[1]

    async def _granted(
        self, stored: Credentials, refused: Secret | None, challenge: Challenge | None
    ) -> Ready:
        """Ask for tokens again, and store them; the grant needs no person."""
        tokens, now = stored.tokens, self._world.clock()
        # For machines alone, whose grants few servers have.
        from hermes_mcp_auth_remote.service.machine_tokens import granted  # noqa: PLC0415

        try:
            if (trouble_before := self._recent_trouble(now)) is not None:
                raise trouble_before
            fresh = await granted(self._world, self._server, self._key, stored, challenge)
        except McpAuthError as trouble:
            if self._recent_trouble(now) is None:
                self._trouble = self._world.clock() + RETRY_SECONDS, trouble
            if tokens is None:
                raise
            return self._old(stored, tokens, refused, trouble)
        if fresh.tokens is None:
            raise AuthorizationRequired(self._key.server)
        self._keeping.keep(stored, fresh, is_login=True)
        return self._used(fresh.tokens, self._world.store.version(self._key), fresh.proof_key)

    async def _refreshed(self, stored: Credentials, refused: Secret | None) -> Ready:
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
            return self._old(stored, tokens, refused, self._over(binding.login_needed))
        if tokens.refresh_token is None or client is None or issuer is None:
            return self._old(stored, tokens, refused, self._over("its access token has ended"))
        prover = self._prover(stored.proof_key)
        ended = self._over(session_ended(issuer))
        now = self._world.clock()
        is_alive = _is_alive(tokens, refused, now)
        if (last := self._failures.last(tokens)) is not None:
            failure, trouble_before = last
            if not failure.may_retry(now, is_alive=is_alive):
                why = ended if failure.is_final else trouble_before
                ended.server_words = failure.server_words
                return self._old(stored, tokens, refused, why)
        resource = binding.resource if binding else self._resource()
        try:
            sign = self._world.signer(self._server)
            request = refresh(issuer, client, tokens, now, resource=resource, sign=sign, prover=prover)
            fresh = await self._world.run(request, self._server)
        except McpAuthError as trouble:
            return self._failed(stored, refused, trouble, ended, is_alive=is_alive)
        if tokens.scheme == "DPoP":
            try:
                demand_bound(fresh, self._server.options, host_of(issuer.issuer))
            except UnreadableAnswer as trouble:
                # The old refresh token is spent, even if the new access token is not wanted.
                rotated = replace(stored, tokens=replace(tokens, refresh_token=fresh.refresh_token))
                self._keeping.keep(stored, rotated)
                return self._failed(rotated, refused, trouble, ended, is_alive=is_alive)
        return self._stored_meanwhile(tokens) or self._store_refreshed(stored, fresh, now)

    def _store_refreshed(self, stored: Credentials, fresh: Tokens, now: float) -> Ready:
        """Store tokens that a refresh brought at `now` (epoch seconds), and return their header."""
        binding = stored.binding
        if binding is not None:
            binding = replace(
                binding, refreshed_at=now, refresh_expires_at=fresh.refresh_expires_at, login_needed=None
            )
        # On the disk before their first use: a rotated refresh token that is lost ends the session.
        self._keeping.keep(stored, replace(stored, tokens=fresh, binding=binding))
        self._failures.clear()
        return self._used(fresh, self._world.store.version(self._key), stored.proof_key)

    def _stored_meanwhile(self, tokens: Tokens) -> Ready | None:
        """Return good tokens that took the place of `tokens` while the server answered; None for none.

        Hermes 0.19 takes no lock: the user may have logged in there. What our refresh of the session before
        brought must not take the place of that login, nor lie beside its client.
        """
        try:
            return self._found(Secret(tokens.authorization))[0]
        except StoreError:
            return None

    def _failed(
        self,
        stored: Credentials,
        refused: Secret | None,
        trouble: McpAuthError,
        ended: AuthorizationRequired,
        *,
        is_alive: bool,
    ) -> Ready:
        """Note a refresh that failed; go on with the old token if it is good. Raises `trouble` or `ended`."""
        tokens = stored.tokens
        if tokens is None:
            raise ended
        failure = self._failures.note(tokens, trouble, self._world.clock(), is_alive=is_alive)
        if not failure.is_final:
            # A hiccup over there, or a setting here, ends nothing.
            return self._old(stored, tokens, refused, trouble)
        ended.server_words = trouble.server_words
        is_unknown = isinstance(trouble, TokenRefused) and trouble.error == "invalid_client"
        return self._ended(stored, refused, ended, stored.client if is_unknown else None)

    def _ended(
        self,
        stored: Credentials,
        refused: Secret | None,
        ended: AuthorizationRequired,
        unknown: Client | None,
    ) -> Ready:
        """Note that the session is over, unless there is another by now; `unknown` is a client to forget.

        While the access token works it is used, and nothing is noted: one more refresh is sent at its end.
        """
        tokens = stored.tokens
        if tokens is None:
            raise ended
        # A writer that takes no lock (Hermes 0.19) may have rotated it under our hands.
        if (found := self._found(Secret(tokens.authorization))[0]) is not None:
            return found
        if _is_alive(tokens, refused, self._world.clock()):
            return self._old(stored, tokens, refused, ended)
        if stored.binding is not None:
            self._keeping.mark(replace(stored.binding, login_needed=ended.reason))
        if unknown is not None:
            # The next login registers anew.
            with suppress(StoreError):
                self._world.store.drop_client(self._key, unknown)
        raise ended

    def _recent_trouble(self, now: float) -> McpAuthError | None:
        """Return what went wrong just now; not where the clock has been set back since."""
        until, trouble = self._trouble or (-math.inf, None)
        is_recent = trouble is not None and now < until <= now + RETRY_SECONDS + 1
        return trouble.with_traceback(None) if trouble is not None and is_recent else None

    def _old(self, stored: Credentials, tokens: Tokens, refused: Secret | None, why: McpAuthError) -> Ready:
        """Go on with the old token while it lives, and do not ask again at once; else raise."""
        found = self._still_good(replace(stored, tokens=tokens), refused)
        if found is None:
            raise why
        return found

    def _meanwhile(self, stored: Credentials, refused: Secret | None) -> Ready | None:
        """Return the stored token if it outlives a short wait for the lock by far."""
        found, short = self._still_good(stored, refused), self._world.limits.due_lock_seconds
        return found if found is not None and found.good_until > self._world.clock() + 2 * short else None

    def _still_good(self, stored: Credentials, refused: Secret | None) -> Ready | None:
        """Return the stored token if it lives and is not the refused one; another try is due soon."""
        tokens, now = stored.tokens, self._world.clock()
        if tokens is None or not _is_alive(tokens, refused, now):
            return None
        if tokens.scheme == "DPoP" and stored.proof_key is None:
            return None
        ends = math.inf if tokens.expires_at is None else tokens.expires_at
        version, prover = self._world.store.version(self._key), self._prover(stored.proof_key)
        return Ready(tokens.authorization, min(ends, now + BACK_OFF_SECONDS), ends, version, prover)

    def _resource(self) -> str | None:
        return select_resource(self._server.url, None, self._server.options.resource)

    def _over(self, reason: str) -> AuthorizationRequired:
        return AuthorizationRequired(self._key.server, reason=reason)


def _is_alive(tokens: Tokens, refused: Secret | None, now: float) -> bool:
    """True if the access token still works as far as is known: its time is not over, no server refused it."""
    return not tokens.is_in(refused) and (tokens.expires_at is None or tokens.expires_at > now)


def _same_server(binding: Binding, url: str) -> bool:
    return canonical_resource(binding.server_url) == canonical_resource(url)
