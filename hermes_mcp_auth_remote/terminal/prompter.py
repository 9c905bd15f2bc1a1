"""A prompter at a terminal, for programs whose calls may ask a person (`service.asking`)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.answers import Race, Screen, listener_for
from hermes_mcp_auth_remote.terminal.input import Lines
from hermes_mcp_auth_remote.traceback_redaction import hides_locals
from hermes_mcp_auth_remote.values import Server


class TerminalPrompter:
    """Shows a login on a screen and takes its answer from lines and from loopback, as `prompt` does.

    `told` is called with how it ended. One login at a time has the keyboard; the next waits for its turn.
    """

    def __init__(
        self,
        service: AuthService,
        screen: Screen,
        open_lines: Callable[[], Lines],
        told: Callable[[Login, Connection | None], None],
    ) -> None:
        self._service = service
        self._screen = screen
        self._open_lines = open_lines
        self._told = told
        self._keyboard = asyncio.Lock()
        self._racing: dict[str, asyncio.Task[None]] = {}

    async def show(self, login: Login) -> None:
        """Show a login and begin to take answers; returns at once."""
        self._racing[login.id] = asyncio.create_task(self._race(login))

    async def settled(self, login: Login, connection: Connection | None) -> None:
        """Stop taking answers, and say how it ended."""
        racing = self._racing.pop(login.id, None)
        if racing is not None:
            # It ends by itself, for it watches the login too; what it raises is told by the status.
            await asyncio.wait([racing])
        self._told(login, connection)

    @hides_locals
    async def _race(self, login: Login) -> None:
        async with self._keyboard:
            race = Race(self._service, self._screen, Server(login.key.server, login.server_url))
            race.login = login
            listener = await listener_for(race, login.request.redirect_uri)
            try:
                race.port = None if listener is None else listener.port
                self._screen.show(login, opened=False, port=race.port)
                with contextlib.suppress(McpAuthError):
                    await race.run(login, self._open_lines(), at_keyboard=True)
            finally:
                if listener is not None:
                    await listener.close()
