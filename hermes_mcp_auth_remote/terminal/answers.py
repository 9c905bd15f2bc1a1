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
from hermes_mcp_auth_remote.login import Connection, Login, login_state_error
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.input import LineSource
from hermes_mcp_auth_remote.terminal.loopback import Listener
from hermes_mcp_auth_remote.terminal.page import Page
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Flow, Origin, Secret, Server

TERMINAL_ORIGIN = Origin("terminal")
# What a person may type, and the flow that the login then goes on by; `new` makes sense for a device only.
FLOW_COMMANDS: Mapping[str, Flow] = {"paste": "paste", "code": "device", "new": "device"}
COUNTDOWN_INTERVAL_SECONDS = 1.0


class Screen(Protocol):
    """Where a login is shown: words for people (`PlainScreen`) or events for programs."""

    def show(self, login: Login, *, browser_opened: bool, port: int | None) -> None:
        """Show a login that waits; `opened` where a browser was, `port` where one is listened on."""
        ...

    def show_refusal(self, error: McpAuthError) -> None:
        """Say why an answer did not count; the login goes on."""
        ...

    def show_countdown(self, login: Login, *, on_new_line: bool = False) -> None:
        """Say how long the code for a device is still good; `anew` where other text came in between."""
        ...

    def show_expiry(self, login: Login) -> None:
        """Say that a code has expired, and that Enter gets another one."""
        ...


class LoginAnswers:
    """The answers to one login, from wherever they come; one at a time."""

    def __init__(self, service: AuthService, screen: Screen, server: Server) -> None:
        self._service = service
        self.screen = screen
        self._server = server
        self._result: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._answer_lock = asyncio.Lock()
        # The server got a code and has not answered yet: the login's record will say how it ended.
        self._is_exchanging = False
        self.login: Login | None = None
        # Where the redirect is listened for, for a login that changes over to it.
        self.port: int | None = None

    async def wait_for_connection(
        self, login: Login, line_source: LineSource, *, at_keyboard: bool
    ) -> Connection:
        """Wait for the first valid answer, or for the end of the login."""
        others = [
            asyncio.create_task(
                self._fail_login_on_error(self._read_answers(login, line_source, at_keyboard=at_keyboard))
            ),
            asyncio.create_task(self._fail_login_on_error(self._watch_login(login))),
            asyncio.create_task(self._fail_login_on_error(self._run_countdown())),
        ]
        try:
            return await self._result
        finally:
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

    async def _fail_login_on_error(self, work: Coroutine[object, object, None]) -> None:
        """Do some work; where it breaks, so does the login, which would wait for it in vain."""
        try:
            await work
        except Exception as error:  # noqa: BLE001  whatever it is, `run` raises it
            self._fail(error)

    async def _read_answers(self, login: Login, line_source: LineSource, *, at_keyboard: bool) -> None:
        refused: McpAuthError | None = None
        async with line_source:
            while (line := await _read_stripped_line(line_source)) is not None:
                if (word := _parse_command(line)) is not None:
                    await self._switch_flow(word)
                elif line or not (at_keyboard or self._is_device_login):
                    refused = await self._submit_answer(line)
                self._update_countdown(on_new_line=True)
        if at_keyboard and not self._result.done():
            await self._service.cancel(login.id)
        elif refused is not None and not self._is_exchanging:
            self._fail(refused)

    @property
    def _is_device_login(self) -> bool:
        return self.login is not None and self.login.poll_state is not None

    async def _switch_flow(self, command: str) -> None:
        """Change over to the flow that a word asks for, or to a new code."""
        async with self._answer_lock:
            login = self.login
            if login is None or self._result.done() or (command == "paste" and login.poll_state is None):
                return
            if command == "code" and login.poll_state is not None:
                return
            try:
                self.login = await self._service.switch_flow(login.id, FLOW_COMMANDS[command])
            except McpAuthError as trouble:
                # Where it is over, that is told by whoever waits for its end.
                if not self._service.login(login.id).is_over:
                    self.screen.show_refusal(trouble)
            else:
                self.screen.show(self.login, browser_opened=False, port=self.port)

    async def _run_countdown(self) -> None:
        while True:
            await asyncio.sleep(COUNTDOWN_INTERVAL_SECONDS)
            self._update_countdown()

    def _update_countdown(self, *, on_new_line: bool = False) -> None:
        login = self.login
        if login is not None and login.poll_state is not None and not self._result.done():
            self.screen.show_countdown(login, on_new_line=on_new_line)

    def _fail(self, error: Exception) -> None:
        if not self._result.done():
            self._result.set_exception(error)

    async def _watch_login(self, login: Login) -> None:
        """Notice an end that came from another process, from the clock, or by Ctrl-D."""
        over = await self._service.wait_for_login(login.id)
        async with self._answer_lock:
            # An answer that was being tried here has told its own story by now.
            if self._result.done():
                return
            connection = await run_file_work(self._service.connection, self._server, login.key.owner)
            if over.status == "done" and connection is not None:
                self._result.set_result(connection)
            else:
                self._fail(login_state_error(over))

    async def handle_redirect(self, url: Secret) -> Page:
        """Judge a redirect that a browser brought; returns what the browser is shown."""
        error = await self._submit_answer(url)
        if error is None:
            return Page(ok=True, title="You are logged in", text="You can close this page.")
        if self._is_exchanging:
            return Page(ok=False, title="No answer yet", text=f"{error} {error.advice}")
        if isinstance(error, PasteRefused):
            return Page(ok=False, title="That did not count", text=f"{error} The login still waits.")
        return Page(ok=False, title="The login failed", text=f"{error} {error.advice}")

    async def _submit_answer(self, text: Secret) -> McpAuthError | None:
        async with self._answer_lock:
            if self.login is None:
                return PasteRefused("No login waits for an answer yet.")
            if self._result.done():
                return PasteRefused("This login is over.")
            try:
                connection = await self._service.complete_login(self.login.id, text, TERMINAL_ORIGIN)
            except PasteRefused as refused:
                self.screen.show_refusal(refused)
                return refused
            except McpAuthError as error:
                self._is_exchanging = isinstance(error, StillExchanging)
                if self._is_exchanging:
                    self.screen.show_refusal(error)
                else:
                    self._fail(error)
                return error
            self._result.set_result(connection)
            return None


async def _read_stripped_line(line_source: LineSource) -> Secret | None:
    """Return the next line without blanks around it, None at the end."""
    text = await line_source.read_line()
    return None if text is None else Secret(text.strip())


def _parse_command(line: Secret) -> str | None:
    """Return the word of WORDS that was typed, None for anything else."""
    text = line.reveal().lower()
    return text if text in FLOW_COMMANDS else None


async def open_listener(answers: LoginAnswers, redirect_uri: str) -> Listener | None:
    """Listen where a redirect URI leads, if that is this machine and the port is free."""
    where = urlsplit(redirect_uri)
    if where.scheme != "http" or where.port is None or not is_loopback_host(where.hostname or ""):
        return None
    try:
        return await Listener.open(
            answers.handle_redirect, host=where.hostname or "", port=where.port, path=where.path or "/"
        )
    except NetworkError:
        return None
