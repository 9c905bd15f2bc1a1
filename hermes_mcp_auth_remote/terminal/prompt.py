"""A login in a terminal: the address is shown, then a paste, a redirect and other processes race.

The first valid answer wins. A wrong one is told why, and the login goes on waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from hermes_mcp_auth_remote.errors import McpAuthError, NetworkError, PasteRefused
from hermes_mcp_auth_remote.login import Connection, Login, refusal
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.keyboard import Lines
from hermes_mcp_auth_remote.terminal.loopback import Listener
from hermes_mcp_auth_remote.terminal.page import Page
from hermes_mcp_auth_remote.values import Origin, Owner, Server

HERE = Origin("terminal")


class Screen(Protocol):
    """Where a login is shown: words for people (`PlainScreen`) or events for programs."""

    def show(self, login: Login, *, opened: bool, port: int | None) -> None:
        """Show a login that waits; `opened` where a browser was, `port` where one is listened on."""
        ...

    def refused(self, error: PasteRefused) -> None:
        """Say why an answer did not count; the login goes on."""
        ...


@dataclass(frozen=True, slots=True)
class Ways:
    """How this terminal may get its answer.

    `open_browser` is None where none is to be opened. `at_keyboard` is True where the lines come from a
    person: an empty one is then nothing, and their end (Ctrl-D) means that the person gave up. A pipe that
    ends without a line leaves it to the listener; one whose last word was refused has no other.
    """

    open_browser: Callable[[str], bool] | None = None
    listen: bool = True
    at_keyboard: bool = False


async def log_in(
    service: AuthService,
    server: Server,
    screen: Screen,
    lines: Lines,
    ways: Ways,
    owner: Owner = None,
) -> Connection:
    """Log in to a server from this terminal; returns what is connected.

    Raises the LoginError, ServerError, NetworkError or StoreError that ended it; stored credentials are then
    as they were. Being cancelled cancels the login.
    """
    race = _Race(service, screen, server)
    redirect_uri, listener = await _place(service, server, owner, race, ways)
    try:
        login = race.login = await service.begin(server, HERE, owner=owner, redirect_uri=redirect_uri)
        try:
            if listener is not None and login.request.redirect_uri != listener.redirect_uri:
                # The provider wants loopback spelled in another way.
                await listener.close()
                listener = await _listener(race, login.request.redirect_uri)
            # Without a listener the browser would end nowhere, in front of the person's eyes.
            browse = ways.open_browser if listener is not None else None
            opened = browse is not None and browse(login.authorization_url)
            port = None if listener is None else urlsplit(listener.redirect_uri).port
            screen.show(login, opened=opened, port=port)
            return await race.run(login, lines, at_keyboard=ways.at_keyboard)
        except BaseException:
            # Does nothing to a login that is over. What ended it counts, not a disk that fails us on top.
            with contextlib.suppress(McpAuthError):
                await service.cancel(login.id)
            raise
    finally:
        if listener is not None:
            await listener.close()


async def _place(
    service: AuthService, server: Server, owner: Owner, race: _Race, ways: Ways
) -> tuple[str, Listener | None]:
    """Choose the redirect URI, and listen there where that can be."""
    redirect_uri = await asyncio.to_thread(service.redirect_uri, server, owner)
    if not ways.listen:
        return redirect_uri, None
    listener = await _listener(race, redirect_uri)
    is_fixed = server.options.redirect_uri is not None or server.options.redirect_port
    if listener is None and not is_fixed:
        # Somebody sits on the port, perhaps another login of ours: take a new one, and register it.
        redirect_uri = service.new_redirect_uri(server)
        listener = await _listener(race, redirect_uri)
    return redirect_uri, listener


async def _listener(race: _Race, redirect_uri: str) -> Listener | None:
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


class _Race:
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
