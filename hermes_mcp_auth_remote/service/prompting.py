"""Asking a person from inside a call: one login for all who wait, shown where the call comes from.

Who can be asked is a matter of context: an agent that works for a chat asks in that chat, a program at a
terminal there, a cron job nowhere. `asking` says so for the calls inside its block.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from hermes_mcp_auth_remote.errors import AuthorizationRequired, McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login, Prompter, is_expired
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.service.connections import connection_from_credentials
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.logins import Logins
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, CredentialKey, Flow, Origin, Server

# A person who said no, or did not answer, is not asked again by the next call; a command still may.
PROMPT_COOLDOWN_SECONDS = {"cancelled": 300.0, "failed": 60.0, "expired": 3600.0}
# A server that wants ever more scope, or refuses what it granted, does not get to ring all day.
MAX_PROMPTS_PER_HOUR = 6
_REASON_BY_STATUS = {
    "cancelled": "the last login was cancelled",
    "failed": "the last login failed",
    "expired": "nobody finished the last login in time",
}


@dataclass(frozen=True, slots=True)
class PromptTarget:
    """Who asks whom: a prompter, the place that it shows logins at, and how many seconds a call waits."""

    prompter: Prompter
    origin: Origin
    wait_seconds: float = MAX_LOGIN_SECONDS
    can_connect_shared: bool = False
    flow: Flow | None = None

    def can_prompt_for(self, key: CredentialKey) -> bool:
        """True where a login at this place may become those credentials.

        The operator's shared ones are nobody's in a chat, unless the operator says so; a chat user's own are
        that user's alone.
        """
        if self.origin.platform == "terminal":
            return True
        if key.owner is None:
            return self.can_connect_shared
        return key.owner == f"{self.origin.platform}:{self.origin.user_id}"


_current_target: ContextVar[PromptTarget | None] = ContextVar("hermes_mcp_auth_asker", default=None)


@contextmanager
def prompting(
    prompter: Prompter,
    origin: Origin,
    wait_seconds: float = MAX_LOGIN_SECONDS,
    *,
    can_connect_shared: bool = False,
    flow: Flow | None = None,
) -> Generator[None]:
    """Let calls inside the block, and tasks begun there, ask this prompter where a login is needed.

    A call waits up to `wait_seconds` for the person, then raises AuthorizationRequired with the login's id;
    the login itself goes on. With `may_connect_shared`, whoever answers at this place logs in for everybody
    who shares the operator's tokens: give it for an operator's own chat only. The flow "auto" is for a
    prompter that can show a code for another device (`Login.shown_code`), as `AuthService.begin` has it.
    """
    token = _current_target.set(PromptTarget(prompter, origin, wait_seconds, can_connect_shared, flow))
    try:
        yield
    finally:
        _current_target.reset(token)


_PromptKey = tuple[CredentialKey, str, Origin]
"""Whose credentials for which address, and where the person is asked."""


class InteractiveLogins:
    """The logins that calls of this process wait for."""

    def __init__(self, deps: Dependencies, logins: Logins) -> None:
        self._deps = deps
        self._logins = logins
        self._lock = threading.Lock()
        self._login_starts: dict[_PromptKey, Future[str]] = {}
        # Until when nobody is asked, in epoch seconds.
        self._cooldown_ends_at: dict[_PromptKey, float] = {}
        # When somebody was asked, the last time last.
        self._prompted_at: dict[_PromptKey, list[float]] = {}
        self._outcome_tasks: set[asyncio.Task[None]] = set()

    async def request_login(self, server: Server, key: CredentialKey, error: AuthorizationRequired) -> None:
        """Return once somebody has logged in; else raises AuthorizationRequired, or what begin raised.

        Raises at once where nobody can be asked, or where the person has just said no.
        """
        asker = _current_target.get()
        if asker is None or not asker.can_prompt_for(key):
            waiting = await run_file_work(self._find_waiting_login, key, server, None)
            raise error if waiting is None else _with_login(error, waiting)
        place = (key, server.url, asker.origin)
        login: Login | None = None
        try:
            async with asyncio.timeout(asker.wait_seconds):
                login = await self._join_or_start_login(server, place, asker, error)
                over = await self._logins.wait_for_login(login.id)
        except TimeoutError:
            raise error if login is None else _with_login(error, login) from None
        if over.status != "done":
            self._cooldown_ends_at[place] = self._deps.clock() + PROMPT_COOLDOWN_SECONDS.get(over.status, 0.0)
            reason = _REASON_BY_STATUS.get(over.status, error.reason)
            raise AuthorizationRequired(
                key.server_name, reason=reason, challenge=error.challenge, server_message=error.server_message
            )

    async def _join_or_start_login(
        self, server: Server, prompt_key: _PromptKey, target: PromptTarget, error: AuthorizationRequired
    ) -> Login:
        """Return the one login that calls from this place wait for, begun and shown by the first of them."""
        while True:
            with self._lock:
                beginning = self._login_starts.get(prompt_key)
                is_first = beginning is None
                if beginning is None:
                    beginning = self._login_starts[prompt_key] = Future()
            if is_first:
                try:
                    login = await self._find_or_start_login(server, prompt_key, target, error)
                except BaseException as trouble:
                    beginning.set_exception(
                        trouble if isinstance(trouble, McpAuthError) else _StartCancelledError()
                    )
                    raise
                else:
                    beginning.set_result(login.id)
                    return login
                finally:
                    with self._lock:
                        del self._login_starts[prompt_key]
            try:
                login_id = await asyncio.shield(asyncio.wrap_future(beginning))
            except _StartCancelledError:
                # The first of us was cancelled before anything was shown; the next one begins.
                continue
            return await run_file_work(self._logins.get, login_id)

    async def _find_or_start_login(
        self, server: Server, prompt_key: _PromptKey, target: PromptTarget, error: AuthorizationRequired
    ) -> Login:
        key = prompt_key[0]
        challenge = error.challenge if isinstance(error.challenge, Challenge) else None
        scope = challenge.scope if challenge is not None and challenge.has_insufficient_scope else None
        waiting = await run_file_work(self._find_waiting_login, key, server, target.origin)
        if waiting is not None:
            if scope is not None and not scope <= (waiting.request.scope or frozenset()):
                # Another scope with each call must not become another prompt with each call.
                raise _with_login(error, waiting)
            return waiting
        self._check_prompt_limits(prompt_key, error)
        login = await self._logins.start_login(
            server, key, target.origin, challenge=challenge, flow=target.flow
        )
        try:
            await target.prompter.show(login)
        except BaseException:
            await self._logins.cancel(login.id)
            raise
        watching = asyncio.create_task(self._show_outcome(target.prompter, login))
        self._outcome_tasks.add(watching)
        watching.add_done_callback(self._outcome_tasks.discard)
        return login

    @with_hidden_locals
    async def _show_outcome(self, prompter: Prompter, login: Login) -> None:
        over = await self._logins.wait_for_login(login.id)
        found: Connection | None = None
        if over.status == "done":
            stored = await run_file_work(self._deps.store.read, login.key)
            found = connection_from_credentials(login.key, login.server_url, stored)
        await prompter.show_outcome(over, found)

    def _check_prompt_limits(self, prompt_key: _PromptKey, error: AuthorizationRequired) -> None:
        """Raise where the person has just said no, or was asked often enough."""
        now = self._deps.clock()
        asked = [moment for moment in self._prompted_at.get(prompt_key, []) if moment > now - 3600]
        if now < self._cooldown_ends_at.get(prompt_key, 0.0) or len(asked) >= MAX_PROMPTS_PER_HOUR:
            raise error
        self._prompted_at[prompt_key] = [*asked, now]

    def _find_waiting_login(self, key: CredentialKey, server: Server, origin: Origin | None) -> Login | None:
        """Return a login of this server's address that waits already, here (or anywhere)."""
        now = self._deps.clock()
        for login in reversed(self._deps.store.logins.list_all()):
            is_open = login.key == key and login.status == "waiting" and not is_expired(login, now)
            if is_open and login.server_url == server.url and origin in {None, login.origin}:
                return login
        return None


class _StartCancelledError(Exception):
    """Whoever was beginning a login was cancelled."""


def _with_login(error: AuthorizationRequired, login: Login) -> AuthorizationRequired:
    return AuthorizationRequired(
        error.server_name,
        reason=error.reason,
        challenge=error.challenge,
        server_message=error.server_message,
        login_id=login.id,
        expires_at=login.expires_at,
    )
