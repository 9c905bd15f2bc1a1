"""A prompter at a terminal, for programs whose calls may prompt the user to log in."""

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
    """Shows a login on a screen and reads its answer from lines and from the loopback listener.

    Calls `on_end` with the login and its connection, None if the login failed. Only one login at a time
    uses the keyboard.
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
        """Start to show a login and to accept answers. Return at once."""
        self._answer_tasks[login.id] = asyncio.create_task(self._collect_answers(login))

    async def show_outcome(self, login: Login, connection: Connection | None) -> None:
        """Stop accepting answers and report how the login ended."""
        answer_task = self._answer_tasks.pop(login.id, None)
        if answer_task is not None:
            # The task ends by itself because it watches the login. The login's status holds its error.
            await asyncio.wait([answer_task])
        self._on_end(login, connection)

    @with_hidden_locals
    async def _collect_answers(self, login: Login) -> None:
        async with self._keyboard_lock:
            answers = LoginAnswers(
                self._service, self._screen, Server(login.key.server_name, login.server_url)
            )
            answers.login = login
            listener = await open_listener(answers, login.request.redirect_uri)
            try:
                answers.port = None if listener is None else listener.port
                self._screen.show(login, browser_opened=False, port=answers.port)
                with contextlib.suppress(McpAuthError):
                    await answers.wait_for_connection(login, self._open_line_source(), at_keyboard=True)
            finally:
                if listener is not None:
                    await listener.close()
