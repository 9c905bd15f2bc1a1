"""The loopback listeners of the bridge's logins. What happens at a listener is logged; there is no screen."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial

from hermes_mcp_auth_remote.errors import LoginNotFound, McpAuthError
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.answers import LoginAnswers, open_listener
from hermes_mcp_auth_remote.terminal.loopback import Listener
from hermes_mcp_auth_remote.values import Server

# The time between two attempts to read the store or to use a port.
RETRY_SECONDS = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LogScreen:
    """Logs what happens to a login, without its URL and its code. Clients keep standard error as a log."""

    server_name: str

    def show(self, login: Login, *, browser_opened: bool, port: int | None) -> None:
        """Report nothing: `BrowserPrompter.show` reports the login."""

    def show_refusal(self, error: McpAuthError) -> None:
        """Report why an answer was refused."""
        _log.warning("%s: %s %s", self.server_name, error, error.advice)

    def show_countdown(self, login: Login, *, on_new_line: bool = False) -> None:
        """Report nothing: the log is not a screen."""

    def show_refused_requests(self, count: int) -> None:
        """Report requests to the listener that did not belong to this login."""
        _log.warning(
            "%s: %s requests that did not belong to the login were refused.", self.server_name, count
        )

    def show_expiry(self, login: Login) -> None:
        """Do nothing: the bridge has no keyboard on which a user could request another code."""

    def show_qr(self, login: Login) -> bool:  # noqa: ARG002  Screen protocol
        """Return False: the log shows no QR code."""
        return False

    def hide_qr(self) -> None:
        """Do nothing: no QR code is shown."""


class LoginListeners:
    """The listeners of logins to one server, at most one per login.

    A listener closes as soon as its login is over: the next login may need the same port.
    """

    def __init__(self, service: AuthService, server: Server) -> None:
        self._service = service
        self._server = server
        # Calls at the same time open one listener.
        self._lock = asyncio.Lock()
        # By the id of the login.
        self._listeners: dict[str, Listener] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def new_answers(self) -> LoginAnswers:
        """Return the answers to a login, for its listener. What they report is logged."""
        return LoginAnswers(self._service, LogScreen(self._server.name), self._server)

    async def listen(self, login: Login) -> bool:
        """Listen at a login's redirect URI; return False if that is not possible."""
        async with self._lock:
            if login.id not in self._listeners:
                answers = self.new_answers()
                answers.login = login
                listener = await open_listener(answers, login.request.redirect_uri)
                if listener is None:
                    return False
                self.add(login, listener)
            return True

    async def listen_when_free(self, login: Login) -> None:
        """Listen at a login's redirect URI, if necessary after the process that listens there has ended."""
        while not await self.listen(login):  # noqa: ASYNC110  no event tells that another process has ended
            await asyncio.sleep(RETRY_SECONDS)

    def add(self, login: Login, listener: Listener) -> None:
        """Close an open listener when its login is over."""
        self._listeners[login.id] = listener
        task = self._tasks[login.id] = asyncio.create_task(self._close_at_end(login.id))
        task.add_done_callback(partial(self._forget_task, login.id))

    def _forget_task(self, login_id: str, task: asyncio.Task[None]) -> None:
        # A cancelled task may end when the login has another one.
        if self._tasks.get(login_id) is task:
            del self._tasks[login_id]

    async def close_listener(self, login_id: str) -> None:
        """Stop listening for one login."""
        listener, task = self._listeners.pop(login_id, None), self._tasks.get(login_id)
        if listener is not None:
            if task is not None:
                task.cancel()
            await listener.close()
        elif task is not None:
            # The task is closing the listener.
            await asyncio.wait({task})

    async def close(self) -> None:
        """Stop listening for all logins."""
        login_ids = {*self._listeners, *self._tasks}
        await asyncio.gather(*(self.close_listener(login_id) for login_id in login_ids))

    async def _close_at_end(self, login_id: str) -> None:
        while True:
            try:
                await self._service.wait_for_login(login_id)
            except LoginNotFound:
                pass
            except McpAuthError:
                # The store cannot be read now. The login may still wait.
                await asyncio.sleep(RETRY_SECONDS)
                continue
            break
        listener = self._listeners.pop(login_id, None)
        if listener is not None:
            await listener.close()
