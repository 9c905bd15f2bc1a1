"""Prompt the user for a login from inside a call; all calls that wait at one origin share one login.

The context decides where the prompt appears: an agent that works for a chat prompts in that chat, a program
at a terminal prompts there, and a cron job cannot prompt. `prompting` sets this for the calls in its block.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from hermes_mcp_auth_remote.errors import AuthorizationRequired, McpAuthError
from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.login import Connection, JoiningPrompter, Login, Prompter, is_expired
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.urls import is_same_address
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.leases import acquire_lease
from hermes_mcp_auth_remote.service.logins import Logins
from hermes_mcp_auth_remote.store.connection import connection_from_credentials
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, CredentialKey, Flow, Origin, Server

# After a login ended in one of these ways, calls do not prompt for this number of seconds. A command can
# still start a login.
PROMPT_COOLDOWN_SECONDS = {"cancelled": 300.0, "failed": 60.0, "expired": 3600.0}
# Limits the prompts of a server that keeps asking for more scope or rejects its own tokens.
MAX_PROMPTS_PER_HOUR = 6
_REASON_BY_STATUS = {
    "cancelled": "the last login was cancelled",
    "failed": "the last login failed",
    "expired": "the last login was not finished in time",
}


@dataclass(frozen=True, slots=True)
class PromptTarget:
    """Where calls prompt: a prompter, the origin at which it shows logins, and the seconds a call waits."""

    prompter: Prompter
    origin: Origin
    wait_seconds: float = MAX_LOGIN_SECONDS
    can_connect_shared: bool = False
    flow: Flow | None = None

    def can_prompt_for(self, key: CredentialKey) -> bool:
        """True if a login at this origin may replace the credentials of this key.

        A chat user may replace only the user's own credentials. The operator's shared credentials may be
        replaced from a chat only with `can_connect_shared`.
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
    """Let calls inside the block, and tasks started there, use this prompter if a login is needed.

    A call waits up to `wait_seconds` for the user, then raises AuthorizationRequired with the login's id; the
    login itself continues. With `can_connect_shared`, a user at this origin logs in for all users of the
    operator's shared tokens: set it only for the operator's own chat. Pass the flow "auto" if the prompter
    can show a code for another device (`Login.shown_code`), as in `AuthService.start_login`.
    """
    token = _current_target.set(PromptTarget(prompter, origin, wait_seconds, can_connect_shared, flow))
    try:
        yield
    finally:
        _current_target.reset(token)


_PromptKey = tuple[CredentialKey, str, Origin]
"""The credential key, the server's URL, and the origin at which the user is prompted."""


class InteractiveLogins:
    """The logins that calls of this process wait for."""

    def __init__(self, deps: Dependencies, logins: Logins) -> None:
        self._deps = deps
        self._logins = logins
        # The end of the time without prompts, in epoch seconds.
        self._cooldown_ends_at: dict[_PromptKey, float] = {}
        # The times of the prompts in epoch seconds, in ascending order.
        self._prompted_at: dict[_PromptKey, list[float]] = {}
        self.reset_in_child()
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Forget the logins that the parent process is starting; their futures never end in the child."""
        self._lock = threading.Lock()
        self._login_starts: dict[_PromptKey, Future[str | None]] = {}
        self._outcome_tasks: set[asyncio.Task[None]] = set()

    async def request_login(
        self,
        server: Server,
        key: CredentialKey,
        error: AuthorizationRequired,
        has_new_token: Callable[[], bool],
    ) -> None:
        """Return when the user has logged in; raises AuthorizationRequired, or what `start_login` raises.

        All processes with the same store show one login at an origin at a time.

        `has_new_token` reads the store again: it returns True if a login has completed since the caller read
        it. It may block and raise. Raises at once if no user can be prompted here, or if the user has just
        cancelled a prompt.
        """
        try:
            await self._request_login(server, key, error, has_new_token)
        except AuthorizationRequired as required:
            required.advice = error.advice
            if (chat_advice := self._deps.chat_advice) is not None:
                text = await run_file_work(chat_advice.text, server, key.owner)
                # Several calls may get one error.
                if text and text not in required.advice:
                    required.advice = f"{error.advice} {text}"
            raise

    async def _request_login(
        self,
        server: Server,
        key: CredentialKey,
        error: AuthorizationRequired,
        has_new_token: Callable[[], bool],
    ) -> None:
        target = _current_target.get()
        if target is None or not target.can_prompt_for(key):
            waiting_login = await run_file_work(self._find_waiting_login, key, server)
            raise error if waiting_login is None else _with_login(error, waiting_login)
        prompt_key = (key, server.url, target.origin)
        login: Login | None = None
        try:
            async with asyncio.timeout(target.wait_seconds):
                login = await self._join_or_start_login(server, prompt_key, target, error, has_new_token)
                if login is None:
                    return
                ended = await self._wait_for_login(target.prompter, login)
        except TimeoutError:
            raise error if login is None else _with_login(error, login) from None
        if ended.status != "done":
            self._cooldown_ends_at[prompt_key] = self._deps.clock() + PROMPT_COOLDOWN_SECONDS.get(
                ended.status, 0.0
            )
            reason = _REASON_BY_STATUS.get(ended.status, error.reason)
            raise AuthorizationRequired(
                key.server_name,
                reason=reason,
                challenge=error.challenge,
                server_message=error.server_message,
            )

    async def _wait_for_login(self, prompter: Prompter, login: Login) -> Login:
        joining = asyncio.create_task(prompter.join(login)) if isinstance(prompter, JoiningPrompter) else None
        try:
            return await self._logins.wait_for_login(login.id)
        finally:
            if joining is not None:
                joining.cancel()
                await asyncio.gather(joining, return_exceptions=True)

    async def _join_or_start_login(
        self,
        server: Server,
        prompt_key: _PromptKey,
        target: PromptTarget,
        error: AuthorizationRequired,
        has_new_token: Callable[[], bool],
    ) -> Login | None:
        """Return the login that all calls at this origin wait for; the first call starts and shows it.

        Return None if the store has a new token by now.
        """
        while True:
            with self._lock:
                login_start = self._login_starts.get(prompt_key)
                is_first = login_start is None
                if login_start is None:
                    login_start = self._login_starts[prompt_key] = Future()
            if is_first:
                try:
                    login = await self._find_or_start_login(server, prompt_key, target, error, has_new_token)
                except BaseException as start_error:
                    login_start.set_exception(
                        start_error if isinstance(start_error, McpAuthError) else _StartCancelledError()
                    )
                    raise
                else:
                    login_start.set_result(None if login is None else login.id)
                    return login
                finally:
                    with self._lock:
                        del self._login_starts[prompt_key]
            try:
                login_id = await asyncio.shield(asyncio.wrap_future(login_start))
            except _StartCancelledError:
                # The first call was cancelled before it showed the login; another call starts one.
                continue
            return None if login_id is None else await self._logins.get(login_id)

    async def _find_or_start_login(
        self,
        server: Server,
        prompt_key: _PromptKey,
        target: PromptTarget,
        error: AuthorizationRequired,
        has_new_token: Callable[[], bool],
    ) -> Login | None:
        key = prompt_key[0]
        challenge = error.challenge if isinstance(error.challenge, Challenge) else None
        scope = challenge.scope if challenge is not None and challenge.has_insufficient_scope else None
        open_login = await run_file_work(self._find_open_login, key, server, target.origin)
        login: Login | None = None
        if open_login is None:
            # Read the tokens after the logins: a login stores its tokens before its record is done.
            if await run_file_work(has_new_token):
                return None
            self._check_prompt_limits(prompt_key, error)
            prepared = await self._logins.prepare_login(
                server, key, target.origin, challenge=challenge, flow=target.flow
            )
            # Another process may have prepared a login at the same time. The one that is added first counts.
            async with acquire_lease(self._deps.store, key, self._deps.limits.lock_seconds, in_flight=False):
                open_login = await run_file_work(self._find_open_login, key, server, target.origin)
                if open_login is None and not await run_file_work(has_new_token):
                    login = await self._logins.add_login(prepared)
        if open_login is not None:
            if scope is not None and not scope <= (open_login.request.scope or frozenset()):
                # Do not start another login for each call: several calls may each need a different scope.
                raise _with_login(error, open_login)
            return open_login
        if login is None:
            return None
        try:
            await target.prompter.show(login)
        except BaseException:
            await self._logins.cancel(login.id)
            raise
        outcome_task = asyncio.create_task(self._show_outcome(target.prompter, login))
        self._outcome_tasks.add(outcome_task)
        outcome_task.add_done_callback(self._outcome_tasks.discard)
        return login

    @with_hidden_locals
    async def _show_outcome(self, prompter: Prompter, login: Login) -> None:
        ended = await self._logins.wait_for_login(login.id)
        connection: Connection | None = None
        if ended.status == "done":
            stored = await run_file_work(self._deps.store.read, login.key)
            connection = connection_from_credentials(login.key, login.server_url, stored.credentials)
        await prompter.show_outcome(ended, connection)

    def _check_prompt_limits(self, prompt_key: _PromptKey, error: AuthorizationRequired) -> None:
        """Raise `error` if the user has just cancelled a prompt or was prompted too often."""
        now = self._deps.clock()
        recent_prompts = [
            prompted_at for prompted_at in self._prompted_at.get(prompt_key, []) if prompted_at > now - 3600
        ]
        if now < self._cooldown_ends_at.get(prompt_key, 0.0) or len(recent_prompts) >= MAX_PROMPTS_PER_HOUR:
            raise error
        self._prompted_at[prompt_key] = [*recent_prompts, now]

    def _find_waiting_login(self, key: CredentialKey, server: Server) -> Login | None:
        """Return a login of this server's URL that waits for its user, at any origin."""
        logins = self._open_logins(key, server)
        return next((login for login in logins if login.status == "waiting"), None)

    def _find_open_login(self, key: CredentialKey, server: Server, origin: Origin) -> Login | None:
        """Return a login that waits for its user at this origin, or one whose code is being exchanged.

        A login that exchanges its code is about to end, so its origin does not matter.
        """
        logins = self._open_logins(key, server)
        return next(
            (login for login in logins if origin == login.origin or login.status == "exchanging"), None
        )

    def _open_logins(self, key: CredentialKey, server: Server) -> Iterator[Login]:
        """Yield the logins of this server's URL that are not over, the latest first."""
        for login in reversed(self._deps.store.logins.list_open(key.owner)):
            is_current = login.key == key and is_same_address(login.server_url, server.url)
            if is_current and not is_expired(login, self._deps.login_time(login)):
                yield login


class _StartCancelledError(Exception):
    """The call that was starting a login was cancelled."""


def _with_login(error: AuthorizationRequired, login: Login) -> AuthorizationRequired:
    return AuthorizationRequired(
        error.server_name,
        reason=error.reason,
        challenge=error.challenge,
        server_message=error.server_message,
        login_id=login.id,
        expires_at=login.expires_at,
    )
