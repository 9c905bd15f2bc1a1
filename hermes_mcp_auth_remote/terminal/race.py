"""The answers to one login at a terminal: a paste, a redirect and other processes race; the first valid wins.

A wrong one is told why, and the login goes on waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Protocol
from urllib.parse import urlsplit

from hermes_mcp_auth_remote.errors import McpAuthError, NetworkError, PasteRefused
from hermes_mcp_auth_remote.login import Connection, Login, refusal
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.keyboard import Lines
from hermes_mcp_auth_remote.terminal.loopback import Listener
from hermes_mcp_auth_remote.terminal.page import Page
from hermes_mcp_auth_remote.values import Origin, Server

HERE = Origin("terminal")


class Screen(Protocol):
    """Where a login is shown: words for people (`PlainScreen`) or events for programs."""

    def show(self, login: Login, *, opened: bool, port: int | None) -> None:
        """Show a login that waits; `opened` where a browser was, `port` where one is listened on."""
        ...

    def refused(self, error: PasteRefused) -> None:
        """Say why an answer did not count; the login goes on."""
        ...


class Race:
    """The answers to one login, from wherever they come; one at a time."""

    def __init__(self, service: AuthService, screen: Screen, server: Server) -> None:
        self._service = service
        self._screen = screen
        self._server = server
        self._won: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._turn = asyncio.Lock()
        self.login: Login | None = None

    async def run(self, login: Login, lines: Lines, *, at_keyboard: bool) -> Connection:
        """Wait for the first valid answer, or for the end of the login."""
        others = [
            asyncio.create_task(self._told(self._pastes(login, lines, at_keyboard=at_keyboard))),
            asyncio.create_task(self._told(self._elsewhere(login))),
        ]
        try:
            return await self._won
        finally:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _told(self, work: Coroutine[object, object, None]) -> None:
        """Do some work; where it breaks, so does the login, which would wait for it in vain."""
        try:
            await work
        except Exception as error:  # noqa: BLE001  whatever it is, `run` raises it
            self._lose(error)

    async def _pastes(self, login: Login, lines: Lines, *, at_keyboard: bool) -> None:
        refused: McpAuthError | None = None
        async with lines:
            while (text := await lines.line()) is not None:
                if text.strip() or not at_keyboard:
                    refused = await self._try(text)
        if at_keyboard and not self._won.done():
            await self._service.cancel(login.id)
        elif refused is not None:
            self._lose(refused)

    def _lose(self, error: Exception) -> None:
        if not self._won.done():
            self._won.set_exception(error)

    async def _elsewhere(self, login: Login) -> None:
        """Notice an end that came from another process, from the clock, or by Ctrl-D."""
        over = await self._service.settled(login.id)
        async with self._turn:
            # An answer that was being tried here has told its own story by now.
            if self._won.done():
                return
            connection = await asyncio.to_thread(self._service.connection, self._server, login.key.owner)
            if over.status == "done" and connection is not None:
                self._won.set_result(connection)
            else:
                self._lose(refusal(over))

    async def decide(self, url: str) -> Page:
        """Judge a redirect that a browser brought; returns what the browser is shown."""
        error = await self._try(url)
        if error is None:
            return Page(ok=True, title="You are logged in", text="You can close this page.")
        if isinstance(error, PasteRefused):
            return Page(ok=False, title="That did not count", text=f"{error} The login still waits.")
        return Page(ok=False, title="The login failed", text=f"{error} {error.advice}")

    async def _try(self, text: str) -> McpAuthError | None:
        async with self._turn:
            if self.login is None:
                return PasteRefused("No login waits for an answer yet.")
            if self._won.done():
                return PasteRefused("This login is over.")
            try:
                connection = await self._service.finish(self.login.id, text, HERE)
            except PasteRefused as refused:
                self._screen.refused(refused)
                return refused
            except McpAuthError as error:
                self._lose(error)
                return error
            self._won.set_result(connection)
            return None


async def listener_for(race: Race, redirect_uri: str) -> Listener | None:
    """Listen where a redirect URI leads, if that is this machine and the port is free."""
    where = urlsplit(redirect_uri)
    if where.scheme != "http" or where.port is None or not is_loopback_host(where.hostname or ""):
        return None
    try:
        return await Listener.open(
            race.decide, host=where.hostname or "", port=where.port, path=where.path or "/"
        )
    except NetworkError:
        return None
