"""The answers to one login at a terminal: a paste, a redirect and other processes race; the first valid wins.

A wrong one is told why, and the login goes on waiting. For a device nothing is pasted: the service polls, and
a person may type a word that asks for another code, or for the other flow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Protocol
from urllib.parse import urlsplit

from hermes_mcp_auth_remote.errors import McpAuthError, NetworkError, PasteRefused, StillExchanging
from hermes_mcp_auth_remote.login import Connection, Login, refusal
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.input import Lines
from hermes_mcp_auth_remote.terminal.loopback import Listener
from hermes_mcp_auth_remote.terminal.page import Page
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Flow, Origin, Secret, Server

HERE = Origin("terminal")
# What a person may type, and the flow that the login then goes on by; `new` makes sense for a device only.
WORDS: Mapping[str, Flow] = {"paste": "paste", "code": "device", "new": "device"}
COUNT_SECONDS = 1.0


class Screen(Protocol):
    """Where a login is shown: words for people (`PlainScreen`) or events for programs."""

    def show(self, login: Login, *, opened: bool, port: int | None) -> None:
        """Show a login that waits; `opened` where a browser was, `port` where one is listened on."""
        ...

    def refused(self, error: McpAuthError) -> None:
        """Say why an answer did not count; the login goes on."""
        ...

    def count(self, login: Login, *, anew: bool = False) -> None:
        """Say how long the code for a device is still good; `anew` where other text came in between."""
        ...

    def expired(self, login: Login) -> None:
        """Say that a code has expired, and that Enter gets another one."""
        ...


class Race:
    """The answers to one login, from wherever they come; one at a time."""

    def __init__(self, service: AuthService, screen: Screen, server: Server) -> None:
        self._service = service
        self.screen = screen
        self._server = server
        self._won: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._turn = asyncio.Lock()
        # The server got a code and has not answered yet: the login's record will say how it ended.
        self._is_exchanging = False
        self.login: Login | None = None
        # Where the redirect is listened for, for a login that changes over to it.
        self.port: int | None = None

    async def run(self, login: Login, lines: Lines, *, at_keyboard: bool) -> Connection:
        """Wait for the first valid answer, or for the end of the login."""
        others = [
            asyncio.create_task(self._told(self._pastes(login, lines, at_keyboard=at_keyboard))),
            asyncio.create_task(self._told(self._elsewhere(login))),
            asyncio.create_task(self._told(self._counts())),
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
            while (line := await _next_line(lines)) is not None:
                if (word := _word_in(line)) is not None:
                    await self._switch(word)
                elif line or not (at_keyboard or self._is_for_device):
                    refused = await self._try(line)
                self._count(anew=True)
        if at_keyboard and not self._won.done():
            await self._service.cancel(login.id)
        elif refused is not None and not self._is_exchanging:
            self._lose(refused)

    @property
    def _is_for_device(self) -> bool:
        return self.login is not None and self.login.device is not None

    async def _switch(self, word: str) -> None:
        """Change over to the flow that a word asks for, or to a new code."""
        async with self._turn:
            login = self.login
            if login is None or self._won.done() or (word == "paste" and login.device is None):
                return
            if word == "code" and login.device is not None:
                return
            try:
                self.login = await self._service.switch(login.id, WORDS[word])
            except McpAuthError as trouble:
                # Where it is over, that is told by whoever waits for its end.
                if not self._service.login(login.id).is_over:
                    self.screen.refused(trouble)
            else:
                self.screen.show(self.login, opened=False, port=self.port)

    async def _counts(self) -> None:
        while True:
            await asyncio.sleep(COUNT_SECONDS)
            self._count()

    def _count(self, *, anew: bool = False) -> None:
        login = self.login
        if login is not None and login.device is not None and not self._won.done():
            self.screen.count(login, anew=anew)

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
            connection = await run_file_work(self._service.connection, self._server, login.key.owner)
            if over.status == "done" and connection is not None:
                self._won.set_result(connection)
            else:
                self._lose(refusal(over))

    async def decide(self, url: Secret) -> Page:
        """Judge a redirect that a browser brought; returns what the browser is shown."""
        error = await self._try(url)
        if error is None:
            return Page(ok=True, title="You are logged in", text="You can close this page.")
        if self._is_exchanging:
            return Page(ok=False, title="No answer yet", text=f"{error} {error.advice}")
        if isinstance(error, PasteRefused):
            return Page(ok=False, title="That did not count", text=f"{error} The login still waits.")
        return Page(ok=False, title="The login failed", text=f"{error} {error.advice}")

    async def _try(self, text: Secret) -> McpAuthError | None:
        async with self._turn:
            if self.login is None:
                return PasteRefused("No login waits for an answer yet.")
            if self._won.done():
                return PasteRefused("This login is over.")
            try:
                connection = await self._service.finish(self.login.id, text, HERE)
            except PasteRefused as refused:
                self.screen.refused(refused)
                return refused
            except McpAuthError as error:
                self._is_exchanging = isinstance(error, StillExchanging)
                if self._is_exchanging:
                    self.screen.refused(error)
                else:
                    self._lose(error)
                return error
            self._won.set_result(connection)
            return None


async def _next_line(lines: Lines) -> Secret | None:
    """Return the next line without blanks around it, None at the end."""
    text = await lines.line()
    return None if text is None else Secret(text.strip())


def _word_in(line: Secret) -> str | None:
    """Return the word of WORDS that was typed, None for anything else."""
    text = line.reveal().lower()
    return text if text in WORDS else None


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
