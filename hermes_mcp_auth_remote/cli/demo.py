"""`demo`: log in to demo servers on this machine, then call a tool through the MCP SDK."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO
from urllib.parse import urlsplit

from hermes_mcp_auth_remote.cli.connection_output import print_connection
from hermes_mcp_auth_remote.cli.extras import install_extras_command
from hermes_mcp_auth_remote.cli.login import detect_answer_channels, is_at_keyboard, screen_for
from hermes_mcp_auth_remote.cli.output import print_json
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.shown_program import started_program
from hermes_mcp_auth_remote.terminal.answers import Screen
from hermes_mcp_auth_remote.terminal.input import LineSource, Prompt, open_line_source
from hermes_mcp_auth_remote.terminal.prompt import AnswerChannels, log_in
from hermes_mcp_auth_remote.terminal.text import MAX_COLUMNS, wrap_text
from hermes_mcp_auth_remote.terminal.window import terminal_size
from hermes_mcp_auth_remote.threads import run_in_own_thread
from hermes_mcp_auth_remote.values import Flow, Server

try:
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
    from hermes_mcp_auth_remote.demo.behaviour import Behaviour
    from hermes_mcp_auth_remote.demo.servers import Demo, serve_demo
except ImportError:
    raise ConfigError(
        "The demo's servers are not installed.", f"Run `{install_extras_command('demo', 'httpx2')}`."
    ) from None

# Shorter than the default of 5 seconds, so that the demo responds quickly.
DEVICE_INTERVAL_SECONDS = 2
INTRODUCTION = (
    "This is a demo: an MCP server and its authorization server run on this machine, and you log in to them "
    "as you would to Linear or Notion. The demo sends nothing to another machine and stores nothing."
)
APPROVE_HINT = (
    "In this demo, the address leads to this machine. If no browser here can open it, type approve and "
    "press Enter: the demo then acts as the browser, and pastes for you."
)


# The options of a curl command that calls the tool `whoami`.
_TOOL_CALL = (
    "-H 'Accept: application/json' -H 'Content-Type: application/json' -d "
    '\'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"whoami"}}\''
)
SERVE_INTRODUCTION = (
    "An MCP server and its authorization server run on this machine until Ctrl-C. In another terminal, set "
    "HERMES_HOME, so that your own logins stay as they are. Then try the commands. A login shows an address: "
    "open it and approve."
)


def run(options: argparse.Namespace) -> int:
    """Serve, log in and call a tool. Without a terminal the demo approves the login itself."""
    if options.serve:
        return _serve(as_json=options.json)
    if not options.json:
        _print_paragraph(INTRODUCTION, sys.stdout)
    behaviour = Behaviour(
        with_device=options.flow == "device", device_interval_seconds=DEVICE_INTERVAL_SECONDS
    )
    # The address leads to this machine: a phone that scans it would open its own 127.0.0.1.
    options.no_qr = True
    with serve_demo(behaviour) as demo, tempfile.TemporaryDirectory() as home:
        server = Server("demo", demo.mcp_url)
        service = AuthService(Path(home))
        is_unattended = not is_at_keyboard()
        flow: Flow = options.flow or ("paste" if is_unattended else "auto")
        channels = _demo_channels(detect_answer_channels(flow), is_unattended=is_unattended)
        recording_screen = _RecordingScreen(
            screen_for(options, service, channels), with_hint=not is_unattended and not options.json
        )
        line_source = _ApprovingLineSource(
            demo, recording_screen, None if is_unattended else open_line_source(), as_json=options.json
        )
        connection = run_until_stopped(log_in(service, server, recording_screen, line_source, channels))
        print_connection(connection, as_json=options.json)
        tool_text = run_until_stopped(_call_tool(service.session(server)))
    if options.json:
        print_json({"event": "tool_result", "tool": "whoami", "text": tool_text})
    else:
        print()
        _print_paragraph(
            f"The MCP SDK called the tool `whoami` with your token. The result is: {tool_text}", sys.stdout
        )
        print(f"Now try a real server:\n{started_program()} login linear --url https://mcp.linear.app/mcp")
    return 0


def _serve(*, as_json: bool) -> int:
    """Run the servers of the demo, and a server with a fault, until Ctrl-C."""
    behaviour = Behaviour(with_device=True, device_interval_seconds=DEVICE_INTERVAL_SECONDS)
    with (
        serve_demo(behaviour) as demo,
        serve_demo(Behaviour(pkce_advertised=False)) as broken_demo,
        tempfile.TemporaryDirectory() as home,
    ):
        if as_json:
            print_json(
                {
                    "event": "demo_serving",
                    "url": demo.mcp_url,
                    "broken_url": broken_demo.mcp_url,
                    "hermes_home": home,
                }
            )
        else:
            _print_paragraph(SERVE_INTRODUCTION, sys.stdout)
            print("\n".join(_commands_to_try(demo.mcp_url, broken_demo.mcp_url, home)), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            run_until_stopped(asyncio.Event().wait())
    return 0


def _commands_to_try(url: str, broken_url: str, home: str) -> Iterator[str]:
    program = started_program()
    if (environment := os.environ.get("VIRTUAL_ENV")) and program == Path(sys.argv[0]).name:
        yield f"  . {shlex.quote(environment)}/bin/activate"
    yield f"  export HERMES_HOME={shlex.quote(home)}"
    yield f"  {program} login demo --url {url}"
    for arguments in (
        "login demo --flow paste",
        "login demo --flow device",
        "status",
        "token demo",
        "run demo --env MCP_TOKEN -- sh -c 'echo $MCP_TOKEN'",
        "doctor demo",
    ):
        yield f"  {program} {arguments}"
    yield "\nWithout a token, the server answers with 401 and a challenge:"
    yield f"  curl -i {url}"
    yield "\nWith a token, the server calls a tool:"
    yield f"  {program} header demo | curl -sS -H @- {_TOOL_CALL} {url}"
    yield "\nRevoke and delete the tokens:"
    yield f"  {program} logout demo"
    yield "\nThis server is broken. See what a login and doctor say:"
    yield f"  {program} doctor {broken_url}"
    yield f"  {program} login broken --url {broken_url}"


def _demo_channels(channels: AnswerChannels, *, is_unattended: bool) -> AnswerChannels:
    # Without a terminal the demo pastes the answer, as a user would, so no listener is needed.
    return AnswerChannels(
        channels.open_browser,
        should_listen=not is_unattended,
        at_keyboard=channels.at_keyboard,
        flow=channels.flow,
    )


class _RecordingScreen:
    """Passes logins on to a screen and queues them for `_ApprovingLineSource`."""

    def __init__(self, screen: Screen, *, with_hint: bool) -> None:
        self._screen = screen
        self._with_hint = with_hint
        self.show_refusal, self.show_refused_requests = screen.show_refusal, screen.show_refused_requests
        self.show_countdown, self.show_expiry = screen.show_countdown, screen.show_expiry
        self.show_qr, self.hide_qr = screen.show_qr, screen.hide_qr
        self.shown_logins: asyncio.Queue[Login] = asyncio.Queue()

    def show(self, login: Login, *, browser_opened: bool, port: int | None) -> None:
        if self._with_hint and not browser_opened:
            is_device = login.poll_state is not None
            hint = APPROVE_HINT.replace(", and pastes for you", "") if is_device else APPROVE_HINT
            _print_paragraph(hint, sys.stderr)
        # The prompt must stay directly below the countdown.
        self._screen.show(login, browser_opened=browser_opened, port=port)
        self.shown_logins.put_nowait(login)


class _ApprovingLineSource:
    """Reads lines from the keyboard and replaces `approve` with the redirect URL of an approved login.

    Without a keyboard, that URL is the only line.
    """

    def __init__(
        self, demo: Demo, screen: _RecordingScreen, keyboard: LineSource | None, *, as_json: bool
    ) -> None:
        self._demo = demo
        self._screen = screen
        self._keyboard = keyboard
        self._as_json = as_json
        self._login: Login | None = None

    async def read_line(self) -> str | None:
        """Return the next line."""
        if self._login is None:
            self._login = await self._screen.shown_logins.get()
            if self._keyboard is None:
                return await self._approve(self._login)
        if self._keyboard is None:
            return None
        line = await self._keyboard.read_line()
        while not self._screen.shown_logins.empty():
            # The user switched the flow or requested another code.
            self._login = self._screen.shown_logins.get_nowait()
        is_approval = line is not None and line.strip().lower() == "approve"
        return await self._approve(self._login) if is_approval else line

    async def _approve(self, login: Login) -> str:
        self._demo.authorization_server.change_behaviour(auto_approve=True)
        if login.device_authorization is not None:
            if not self._as_json:
                _print_paragraph("The demo opens the address and approves.", sys.stdout)
            await run_in_own_thread(
                _fetch_redirect, login.device_authorization.verification_uri_complete or ""
            )
            return ""
        if not self._as_json:
            _print_paragraph(
                "The demo opens the address, approves, and pastes the address that it ends on.", sys.stdout
            )
        return await run_in_own_thread(_fetch_redirect, login.authorization_url)

    def show_prompt(self, *texts: str) -> None:
        """Show the prompt of the keyboard."""
        if isinstance(self._keyboard, Prompt):
            self._keyboard.show_prompt(*texts)

    def hide_prompt(self) -> None:
        """Hide the prompt of the keyboard."""
        if isinstance(self._keyboard, Prompt):
            self._keyboard.hide_prompt()

    async def __aenter__(self) -> Self:
        if self._keyboard is not None:
            await self._keyboard.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keyboard is not None:
            await self._keyboard.__aexit__(kind, error, trace)


def _print_paragraph(paragraph: str, stream: TextIO) -> None:
    print(wrap_text(paragraph, terminal_size(stream)[0] or MAX_COLUMNS), end="\n\n", file=stream, flush=True)


def _fetch_redirect(url: str) -> str:
    """Open the consent page, which approves at once, and return the URL that it redirects to."""
    parts = urlsplit(url)
    connection = HTTPConnection(parts.netloc)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}")
        return connection.getresponse().getheader("location") or ""
    finally:
        connection.close()


async def _call_tool(session: Session) -> str:
    async with (
        httpx2.AsyncClient(auth=McpAuth(session)) as http_client,
        Client(streamable_http_client(session.server.url, http_client=http_client)) as client,
    ):
        result = await client.call_tool("whoami", {})
        return _join_text(result.content)


def _join_text(content: Iterable[object]) -> str:
    return " ".join(str(getattr(part, "text", "")) for part in content)
