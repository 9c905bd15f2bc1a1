"""Collect the answers to one login at a terminal. The first valid answer completes the login.

An answer is a paste, a redirect to this machine, or a completion by another process. If an answer is
refused, the screen shows the reason and the login continues to wait. In the device flow the user pastes
nothing: the service polls the authorization server. The user can type a command to get another code or to
switch the flow.
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
from hermes_mcp_auth_remote.terminal.loopback_page import Page
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Flow, Origin, Secret, Server

TERMINAL_ORIGIN = Origin("terminal")
# Commands that the user can type, with the flow that each one switches to. `new` needs a device login.
FLOW_COMMANDS: Mapping[str, Flow] = {"paste": "paste", "code": "device", "new": "device"}
COUNTDOWN_INTERVAL_SECONDS = 1.0


class Screen(Protocol):
    """Shows a login: as text for people (`PlainScreen`) or as events for programs (`JsonScreen`)."""

    def show(self, login: Login, *, browser_opened: bool, port: int | None) -> None:
        """Show a login that waits for an answer.

        `browser_opened` is True if a browser was opened. `port` is the loopback port that this process
        listens on, None if it does not listen.
        """
        ...

    def show_refusal(self, error: McpAuthError) -> None:
        """Show why an answer was refused. The login continues to wait."""
        ...

    def show_countdown(self, login: Login, *, on_new_line: bool = False) -> None:
        """Show how long the user code is valid. Set `on_new_line` if other text was printed since."""
        ...

    def show_expiry(self, login: Login) -> None:
        """Show that the user code has expired and that Enter requests another code."""
        ...


class LoginAnswers:
    """Handles the answers to one login, one at a time, from the keyboard, the listener and the service."""

    def __init__(self, service: AuthService, screen: Screen, server: Server) -> None:
        self._service = service
        self.screen = screen
        self._server = server
        self._result: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._answer_lock = asyncio.Lock()
        # True if the authorization server has received the code but has not responded yet. `_watch_login`
        # gets the outcome from the login's record.
        self._is_exchanging = False
        self.login: Login | None = None
        # The port of the loopback listener, shown if the user switches the login to a paste.
        self.port: int | None = None

    async def wait_for_connection(
        self, login: Login, line_source: LineSource, *, at_keyboard: bool
    ) -> Connection:
        """Wait for the first valid answer and return the connection.

        Raises the McpAuthError that ended the login. Set `at_keyboard` if the user types the lines: the
        end of input (Ctrl-D) then cancels the login.
        """
        tasks = [
            asyncio.create_task(
                self._fail_login_on_error(self._read_answers(login, line_source, at_keyboard=at_keyboard))
            ),
            asyncio.create_task(self._fail_login_on_error(self._watch_login(login))),
            asyncio.create_task(self._fail_login_on_error(self._run_countdown())),
        ]
        try:
            return await self._result
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _fail_login_on_error(self, work: Coroutine[object, object, None]) -> None:
        """Run `work`. If it raises, end the wait with that error: otherwise it would never end."""
        try:
            await work
        except Exception as error:  # noqa: BLE001  `wait_for_connection` raises it
            self._fail(error)

    async def _read_answers(self, login: Login, line_source: LineSource, *, at_keyboard: bool) -> None:
        last_refusal: McpAuthError | None = None
        async with line_source:
            while (line := await _read_stripped_line(line_source)) is not None:
                if (command := _parse_command(line)) is not None:
                    await self._switch_flow(command)
                elif line or not (at_keyboard or self._is_device_login):
                    last_refusal = await self._submit_answer(line)
                self._update_countdown(on_new_line=True)
        if at_keyboard and not self._result.done():
            await self._service.cancel(login.id)
        elif last_refusal is not None and not self._is_exchanging:
            self._fail(last_refusal)

    @property
    def _is_device_login(self) -> bool:
        return self.login is not None and self.login.poll_state is not None

    async def _switch_flow(self, command: str) -> None:
        """Switch the login to the flow of a command, or request a new code."""
        async with self._answer_lock:
            login = self.login
            if login is None or self._result.done() or (command == "paste" and login.poll_state is None):
                return
            if command == "code" and login.poll_state is not None:
                return
            try:
                self.login = await self._service.switch_flow(login.id, FLOW_COMMANDS[command])
            except McpAuthError as error:
                # If the login has ended, `_watch_login` reports it.
                if not self._service.login(login.id).is_over:
                    self.screen.show_refusal(error)
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
        """Wait until the login ends: by another process, by its timeout, or by Ctrl-D."""
        ended_login = await self._service.wait_for_login(login.id)
        async with self._answer_lock:
            # An answer that held the lock may have set the result.
            if self._result.done():
                return
            connection = await run_file_work(self._service.connection, self._server, login.key.owner)
            if ended_login.status == "done" and connection is not None:
                self._result.set_result(connection)
            else:
                self._fail(login_state_error(ended_login))

    async def handle_redirect(self, url: Secret) -> Page:
        """Complete the login with a redirect URL. Return the page for the browser."""
        error = await self._submit_answer(url)
        if error is None:
            return Page(ok=True, title="You are logged in", text="You can close this page.")
        if self._is_exchanging:
            return Page(ok=False, title="No response yet", text=f"{error} {error.advice}")
        if isinstance(error, PasteRefused):
            return Page(ok=False, title="This answer was refused", text=f"{error} The login still waits.")
        return Page(ok=False, title="The login failed", text=f"{error} {error.advice}")

    async def _submit_answer(self, text: Secret) -> McpAuthError | None:
        async with self._answer_lock:
            if self.login is None:
                return PasteRefused("No login waits for an answer yet.")
            if self._result.done():
                return PasteRefused("This login is over.")
            try:
                connection = await self._service.complete_login(self.login.id, text, TERMINAL_ORIGIN)
            except PasteRefused as refusal:
                self.screen.show_refusal(refusal)
                return refusal
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
    """Return the next line without surrounding whitespace, None at the end of input."""
    text = await line_source.read_line()
    return None if text is None else Secret(text.strip())


def _parse_command(line: Secret) -> str | None:
    """Return the command of `FLOW_COMMANDS` that the user typed, None for any other text."""
    text = line.reveal().lower()
    return text if text in FLOW_COMMANDS else None


async def open_listener(answers: LoginAnswers, redirect_uri: str) -> Listener | None:
    """Listen at a redirect URI. Return None if it is not on loopback or the port is in use."""
    redirect_parts = urlsplit(redirect_uri)
    if (
        redirect_parts.scheme != "http"
        or redirect_parts.port is None
        or not is_loopback_host(redirect_parts.hostname or "")
    ):
        return None
    try:
        return await Listener.open(
            answers.handle_redirect,
            host=redirect_parts.hostname or "",
            port=redirect_parts.port,
            path=redirect_parts.path or "/",
        )
    except NetworkError:
        return None
