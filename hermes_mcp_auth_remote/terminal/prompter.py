"""A prompter at a terminal, for programs whose calls may ask a person (`service.asking`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.answers import LoginAnswers, Screen, open_listener
from hermes_mcp_auth_remote.terminal.input import LineSource
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import Server


class TerminalPrompter:
    """Shows a login on a screen and takes its answer from lines and from loopback, as `prompt` does.

    `told` is called with how it ended. One login at a time has the keyboard; the next waits for its turn.
    """

    def __init__(
        self,
        service: AuthService,
        screen: Screen,
        open_line_source: Callable[[], LineSource],
        on_end: Callable[[Login, Connection | None], None],
    ) -> None:
        self._service = service
        self._screen = screen
        self._open_line_source = open_line_source
        self._on_end = on_end
        self._keyboard_lock = asyncio.Lock()
        self._answer_tasks: dict[str, asyncio.Task[None]] = {}

    async def show(self, login: Login) -> None:
        """Show a login and begin to take answers; returns at once."""
        self._answer_tasks[login.id] = asyncio.create_task(self._collect_answers(login))

    async def show_outcome(self, login: Login, connection: Connection | None) -> None:
        """Stop taking answers, and say how it ended."""
        racing = self._answer_tasks.pop(login.id, None)
        if racing is not None:
            # It ends by itself, for it watches the login too; what it raises is told by the status.
            await asyncio.wait([racing])
        self._on_end(login, connection)

    @with_hidden_locals
    async def _collect_answers(self, login: Login) -> None:
        async with self._keyboard_lock:
            race = LoginAnswers(self._service, self._screen, Server(login.key.server_name, login.server_url))
            race.login = login
            listener = await open_listener(race, login.request.redirect_uri)
            try:
                race.port = None if listener is None else listener.port
                self._screen.show(login, browser_opened=False, port=race.port)
                with contextlib.suppress(McpAuthError):
                    await race.wait_for_connection(login, self._open_line_source(), at_keyboard=True)
            finally:
                if listener is not None:
                    await listener.close()
