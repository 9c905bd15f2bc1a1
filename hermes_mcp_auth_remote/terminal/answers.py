"""Collect the answers to one login at a terminal. The first valid answer completes the login.

An answer is a paste, a redirect to this machine, or a completion by another process. If an answer is
refused, the screen shows the reason and the login continues to wait. In the device flow the user pastes
nothing: the service polls the authorization server. The user can type a command to get another code or to
switch the flow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator, Mapping
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import urlsplit

from hermes_mcp_auth_remote.errors import McpAuthError, NetworkError, PasteRefused, StillExchanging
from hermes_mcp_auth_remote.login import Connection, Login, is_same_prompt, login_state_error
from hermes_mcp_auth_remote.oauth.redirect import matches_state
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host
from hermes_mcp_auth_remote.phrases import connection_rows
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.input import LineSource, Prompt
from hermes_mcp_auth_remote.terminal.loopback import Listener
from hermes_mcp_auth_remote.terminal.loopback_page import Page
from hermes_mcp_auth_remote.terminal.text import prompt_texts
from hermes_mcp_auth_remote.values import Flow, Origin, Secret, Server

TERMINAL_ORIGIN = Origin("terminal")
# Commands that the user can type, with the flow that each one switches to. `new` needs a device login.
FLOW_COMMANDS: Mapping[str, Flow] = {"paste": "paste", "code": "device", "new": "device"}
QR_COMMAND = "qr"
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

    def show_refused_requests(self, count: int) -> None:
        """Show that `count` requests to the listener did not belong to this login, which still waits."""
        ...

    def show_countdown(self, login: Login, *, on_new_line: bool = False) -> None:
        """Show how long the login waits. Set `on_new_line` if other text was printed since."""
        ...

    def show_expiry(self, login: Login) -> None:
        """Show that the user code has expired and that Enter requests another code."""
        ...

    def show_qr(self, login: Login) -> bool:
        """Show the QR code of a login alone, until `hide_qr`. Return False if it is not shown."""
        ...

    def hide_qr(self) -> None:
        """Show what was on the screen before `show_qr`."""
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
        self._refused_request_count = 0
        self._is_qr_shown = False
        # True if the login was shown again, with its countdown, since the user's last line.
        self._has_countdown = False
        # The line source, if it shows a prompt.
        self._prompt: Prompt | None = None
        # The port of the loopback listener, shown if the user switches the login to a paste.
        self.port: int | None = None

    async def wait_for_connection(
        self, login: Login, line_source: LineSource, *, at_keyboard: bool, must_paste: bool = False
    ) -> Connection:
        """Wait for the first valid answer and return the connection.

        Raises the McpAuthError that ended the login. Set `at_keyboard` if the user types the lines: the
        end of input (Ctrl-D) then cancels the login. Set `must_paste` if only a paste can complete the login
        here: the end of input then raises PasteRefused, and the login still waits.
        """
        if at_keyboard and isinstance(line_source, Prompt):
            self._prompt = line_source
        tasks = [
            asyncio.create_task(
                self._fail_login_on_error(
                    self._read_answers(login, line_source, at_keyboard=at_keyboard, must_paste=must_paste)
                )
            ),
            asyncio.create_task(self._fail_login_on_error(self._watch_login(login))),
            asyncio.create_task(self._fail_login_on_error(self._run_countdown())),
        ]
        try:
            return await self._result
        finally:
            self._hide_qr()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _fail_login_on_error(self, work: Coroutine[object, object, None]) -> None:
        """Run `work`. If it raises, end the wait with that error; without this, the wait would never end."""
        try:
            await work
        except Exception as error:  # noqa: BLE001  `wait_for_connection` raises it
            self._fail(error)

    async def _read_answers(
        self, login: Login, line_source: LineSource, *, at_keyboard: bool, must_paste: bool
    ) -> None:
        last_refusal: McpAuthError | None = None
        async with line_source:
            self._show_prompt()
            while (text := await line_source.read_line()) is not None:
                self._hide_qr()
                self._has_countdown = False
                for line in _split_commands(text):
                    if (command := _parse_command(line)) is not None:
                        await self._run_command(command)
                    elif line or not (at_keyboard or self._is_device_login):
                        last_refusal = await self._submit_answer(line)
                if not self._has_countdown:
                    self._update_countdown(on_new_line=True)
                self._show_prompt()
        if must_paste and not self._is_exchanging:
            self._fail(last_refusal or PasteRefused("Nothing was pasted."))
        elif at_keyboard and not self._result.done():
            await self._service.cancel(login.id)
        elif last_refusal is not None and not self._is_exchanging:
            self._fail(last_refusal)

    def _show_prompt(self) -> None:
        can_type = self.login is not None and not (self._result.done() or self._is_exchanging)
        if self._prompt is not None and self.login is not None and can_type and not self._is_qr_shown:
            self._prompt.show_prompt(*prompt_texts(self.login))

    @contextmanager
    def _printing(self) -> Generator[None]:
        """Hide the prompt while the block prints text that no keyboard input has caused."""
        self._hide_qr()
        if self._prompt is not None:
            self._prompt.hide_prompt()
        yield
        self._update_countdown(on_new_line=True)
        self._show_prompt()

    def _hide_qr(self) -> None:
        if self._is_qr_shown:
            self._is_qr_shown = False
            self.screen.hide_qr()

    async def _run_command(self, command: str) -> None:
        if command == QR_COMMAND:
            if self.login is not None and not self._result.done():
                self._is_qr_shown = self.screen.show_qr(self.login)
        else:
            await self._switch_flow(command)

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
            if command == "new" and login.poll_state is None:
                self.screen.show_refusal(
                    PasteRefused(
                        "There is no code to replace: this login waits for an address.",
                        "Open the link above, and paste the address that the browser ends on.",
                    )
                )
                return
            try:
                self.login = await self._service.switch_flow(login.id, FLOW_COMMANDS[command])
            except McpAuthError as error:
                # If the login has ended, `_watch_login` reports it.
                if not (await self._service.login(login.id)).is_over:
                    self.screen.show_refusal(error)
            else:
                self.screen.show(self.login, browser_opened=False, port=self.port)
                self._has_countdown = True

    async def _run_countdown(self) -> None:
        while True:
            await asyncio.sleep(COUNTDOWN_INTERVAL_SECONDS)
            self._update_countdown()

    def _update_countdown(self, *, on_new_line: bool = False) -> None:
        login = self.login
        if login is not None and not (self._result.done() or self._is_qr_shown or self._is_exchanging):
            self.screen.show_countdown(login, on_new_line=on_new_line)

    def _fail(self, error: Exception) -> None:
        if not self._result.done():
            self._result.set_exception(error)
            # Retrieve the exception: the bridge does not wait for the result, and asyncio would log it.
            self._result.exception()

    async def _watch_login(self, login: Login) -> None:
        """Wait until the login ends: by another process, by its timeout, or by Ctrl-D."""
        ended_login = await self._service.wait_for_login(login.id)
        async with self._answer_lock:
            # An answer that held the lock may have set the result.
            if self._result.done():
                return
            connection = await self._service.connection(self._server, login.key.owner)
            if ended_login.status == "done" and connection is not None:
                self._result.set_result(connection)
            else:
                self._fail(login_state_error(ended_login))

    async def handle_redirect(self, url: Secret) -> Page:
        """Complete the login with a redirect URL. Return the page for the browser."""
        login = self.login
        # Any web page and any local process can send requests, so do not show or store every one of them.
        if login is not None and not self._is_over and not self._is_expected_redirect(login, url):
            return self._refuse_request()
        with self._printing():
            error = await self._submit_answer(url, is_pasted=False)
        rows = () if login is None else (("Server", login.key.server_name),)
        if error is None:
            return Page(
                ok=True,
                title="You are logged in",
                text="You can close this page.",
                rows=(*rows, *connection_rows(self._result.result())),
            )
        if self._is_exchanging:
            return Page(ok=False, title="No response yet", text=f"{error} {error.advice}", rows=rows)
        if isinstance(error, PasteRefused):
            return _refusal_page(error)
        return Page(ok=False, title="The login failed", text=f"{error} {error.advice}", rows=rows)

    @property
    def _is_over(self) -> bool:
        return self._result.done() or self._is_exchanging

    @staticmethod
    def _is_expected_redirect(login: Login, url: Secret) -> bool:
        return login.poll_state is None and matches_state(f'"{url.reveal()}"', login.request)

    def _refuse_request(self) -> Page:
        """Count a request that does not belong to this login. Show the 1st, 10th, 100th and so on."""
        error = PasteRefused(
            "That address does not belong to this login.",
            "Open the link of this login, and continue in that browser.",
        )
        self._refused_request_count += 1
        if self._refused_request_count == 1:
            with self._printing():
                self.screen.show_refusal(error)
        elif str(self._refused_request_count).strip("0") == "1":
            with self._printing():
                self.screen.show_refused_requests(self._refused_request_count)
        return _refusal_page(error)

    async def _submit_answer(self, text: Secret, *, is_pasted: bool = True) -> McpAuthError | None:
        async with self._answer_lock:
            if self.login is None:
                return PasteRefused("No login waits for an answer yet.")
            if self._result.done():
                return PasteRefused("This login is over.")
            try:
                connection = await self._service.complete_login(
                    self.login.id, text, TERMINAL_ORIGIN, is_pasted=is_pasted
                )
            except PasteRefused as refusal:
                self.screen.show_refusal(refusal)
                await self._show_new_link()
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

    async def _show_new_link(self) -> None:
        """Show the login again if it has another link: the provider refused the client or the scope."""
        if self.login is None:
            return
        login = await self._service.login(self.login.id)
        if login.status == "waiting" and not is_same_prompt(login, self.login):
            self.login = login
            self.screen.show(login, browser_opened=False, port=self.port)


def _refusal_page(error: McpAuthError) -> Page:
    return Page(ok=False, title="This answer was refused", text=f"{error} The login still waits.")


def _split_commands(text: str) -> list[Secret]:
    """Split a text into the commands at its start, and the answer after them."""
    lines = text.strip().splitlines()
    command_count = 0
    while command_count < len(lines) and _parse_command(Secret(lines[command_count].strip())) is not None:
        command_count += 1
    commands = [Secret(line.strip()) for line in lines[:command_count]]
    answer = "\n".join(lines[command_count:])
    return [*commands, Secret(answer)] if answer or not commands else commands


def _parse_command(line: Secret) -> str | None:
    """Return the command that the user typed, None for any other text."""
    text = line.reveal().lower()
    return text if text == QR_COMMAND or text in FLOW_COMMANDS else None


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
