"""A session: the access token of one server and owner, for use on requests (RFC 6750 §2.1).

The hot path, `header_now`, takes no lock and does no I/O: it compares one time with the clock. At most once a
second, a glance at the store shows whether another process has written new tokens. If there is no fresh
token, `refresh` obtains one for all waiting callers. If that needs a login, `prompting` asks the user.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from functools import partial
from threading import Thread
from typing import TypeVar

from hermes_mcp_auth_remote.errors import AuthorizationRequired
from hermes_mcp_auth_remote.oauth.challenge import read_challenge
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.service.cached_token import CachedToken
from hermes_mcp_auth_remote.service.event_loops import run_in_new_loop
from hermes_mcp_auth_remote.service.prompting import InteractiveLogins
from hermes_mcp_auth_remote.service.refresh import TokenSource
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.protocol import UNKNOWN
from hermes_mcp_auth_remote.traceback_redaction import hide_locals, with_hidden_locals
from hermes_mcp_auth_remote.values import Clock, CredentialKey, Secret, Server, as_secret

T = TypeVar("T")

# How long this process may miss another process's new tokens while its own are still valid.
STORE_CHECK_SECONDS = 1.0
_NO_TOKEN = CachedToken("", -math.inf, -math.inf, None)


class Session:
    """The cached header of one server and owner, for any number of callers in any thread or event loop."""

    __slots__ = (
        "_authorization_header",
        "_cached_token",
        "_clock",
        "_interactive_logins",
        "_recheck_at",
        "_tokens",
        "key",
        "prover",
        "server",
    )

    def __init__(
        self,
        tokens: TokenSource,
        interactive_logins: InteractiveLogins,
        clock: Clock,
        server: Server,
        key: CredentialKey,
    ) -> None:
        self._tokens = tokens
        self._interactive_logins = interactive_logins
        self._clock = clock
        self._cached_token = _NO_TOKEN
        self._authorization_header = ""
        self._recheck_at = -math.inf
        # If it is set, a request needs a DPoP proof beside the header (RFC 9449).
        self.prover: Prover | None = None
        self.server = server
        self.key = key

    def header_now(self) -> str | None:
        """Return the Authorization header's value if a fresh token is in memory, else None."""
        return self._authorization_header if self._clock() < self._recheck_at else None

    @with_hidden_locals
    async def header(self) -> str:
        """Return the Authorization header's value; read the store or refresh the token first if needed.

        If a login is needed, prompts the user (`prompting`) or raises AuthorizationRequired. Raises a
        NetworkError or StoreError.
        """
        if (cached_header := self._cached_header()) is not None:
            return cached_header
        try:
            token = await self._tokens.current_token()
        except AuthorizationRequired as error:
            has_new_token = partial(self._tokens.has_token, None)
            await self._interactive_logins.request_login(self.server, self.key, error, has_new_token)
            token = await self._tokens.current_token()
        return self._set_cached_token(token)

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
        current_header = self.header_now() if status == 401 else None
        if current_header is not None and Secret(current_header) != refused_header:
            return current_header
        del current_header
        try:
            token = await self._tokens.replace_refused(refused_header, status, challenge)
        except AuthorizationRequired as error:
            has_new_token = partial(self._tokens.has_token, refused_header, challenge)
            await self._interactive_logins.request_login(self.server, self.key, error, has_new_token)
            token = await self._tokens.token_other_than(refused_header)
        return None if token is None else self._set_cached_token(token)

    @with_hidden_locals
    def handle_challenge_blocking(
        self, refused_header: str | Secret, status: int, www_authenticate: Sequence[str]
    ) -> str | None:
        """Do what `handle_challenge` does, for a caller without an event loop."""
        secret_header = as_secret(refused_header)
        # Do not keep the plain text in this frame while it waits.
        del refused_header
        return _run_blocking(lambda: self.handle_challenge(secret_header, status, www_authenticate))

    async def has_tokens(self) -> bool:
        """True if tokens are stored or could not be stored, also ones that have expired.

        Reads the store if a glance cannot tell and no fresh token is in memory. True if the store cannot be
        read: `header` raises the error.
        """
        if self._tokens.glance() is UNKNOWN and self.header_now() is not None:
            return True
        return await self._tokens.has_tokens()

    def report_retry(self, header: str, *, is_accepted: bool) -> None:
        """Record whether the server has accepted the header that replaced a refused one; never waits.

        Call this after a retry with the header that `handle_challenge` returned. If the server refuses the
        new tokens as well, the pauses between refreshes become longer (`oauth.token_refusal`).
        """
        self._tokens.report_retry(Secret(header), is_accepted=is_accepted)

    @with_hidden_locals
    def adopt(self, tokens: Tokens, proof_key: Secret | None = None) -> str:
        """Use these stored tokens from now on; return the header's value."""
        return self._set_cached_token(self._tokens.cached_token_for(tokens, proof_key))

    def read_credentials(self) -> Credentials:
        """Return the stored credentials, or newer ones that could not be written. Raises StoreError."""
        return self._tokens.read_credentials()

    def clear_cache(self) -> None:
        """Discard all tokens in memory."""
        self._recheck_at = -math.inf
        self._cached_token = _NO_TOKEN
        self._tokens.discard_unsaved()

    def _cached_header(self) -> str | None:
        """Return the cached header, or None if it has expired or another process has written new tokens.

        Never waits.
        """
        now = self._clock()
        if now < self._recheck_at:
            return self._authorization_header
        token = self._cached_token
        if now >= token.usable_until or self._tokens.glance() != token.version:
            return None
        if now >= token.refresh_at:
            self._tokens.refresh_in_background(self._set_cached_token)
        self._recheck_at = min(token.usable_until, now + STORE_CHECK_SECONDS)
        return token.authorization_header

    def _set_cached_token(self, token: CachedToken) -> str:
        # Assign in this order, so that a concurrent reader never uses a header with the time of another.
        self._recheck_at = -math.inf
        self._cached_token = token
        self._authorization_header = token.authorization_header
        self.prover = token.prover
        self._recheck_at = min(token.refresh_at, self._clock() + STORE_CHECK_SECONDS)
        return token.authorization_header


def _run_blocking(start: Callable[[], Coroutine[object, object, T]]) -> T:
    """Run a coroutine in a new thread and wait for it: the caller blocks its own event loop, if any."""
    outcome: Future[T] = Future()
    context = copy_context()

    def run_in_thread() -> None:
        try:
            outcome.set_result(context.run(run_in_new_loop, start))
        except BaseException as error:  # noqa: BLE001  the caller gets it
            hide_locals(error)
            outcome.set_exception(error)

    # A daemon thread: a program can end while a login waits for its user.
    Thread(target=run_in_thread, name="mcp-auth-call", daemon=True).start()
    return outcome.result()
