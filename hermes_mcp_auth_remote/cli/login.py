"""`login`: from a terminal, a pipe or a program; also begun here and finished elsewhere, or the reverse."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from dataclasses import dataclass

from hermes_mcp_auth_remote.cli.connection_output import print_connection
from hermes_mcp_auth_remote.cli.output import print_json
from hermes_mcp_auth_remote.cli.servers import current_home, resolve_server, server_at_url
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, StillExchanging
from hermes_mcp_auth_remote.login import Connection, Login, login_state_error
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.answers import TERMINAL_ORIGIN, LoginAnswers, Screen
from hermes_mcp_auth_remote.terminal.browser import detect_browser_support, open_browser
from hermes_mcp_auth_remote.terminal.input import open_line_source
from hermes_mcp_auth_remote.terminal.prompt import AnswerChannels, log_in
from hermes_mcp_auth_remote.terminal.screen import PlainScreen, terminal_size
from hermes_mcp_auth_remote.values import Flow, Server


def run(options: argparse.Namespace) -> int:
    """Log in; raises what ended the login."""
    if options.via is not None:
        from hermes_mcp_auth_remote.cli.via import run as ask

        return ask(options)
    service, owner = AuthService(current_home()), options.owner
    if options.finish is not None:
        screen = screen_for(options, service)
        print_connection(
            run_until_stopped(_complete_login(service, options.finish, screen)), as_json=options.json
        )
        return 0
    url = options.url
    server = (
        resolve_server(options.server, owner) if url is None else server_at_url(url, options.server, owner)
    )
    screen, flow = screen_for(options, service), options.flow or server.options.flow
    if options.no_wait:
        login = run_until_stopped(service.start_login(server, TERMINAL_ORIGIN, owner=owner, flow=flow))
        screen.show(login, browser_opened=False, port=None)
        if not options.json:
            what = "To paste it later" if login.poll_state is None else "To wait for it later"
            print(f"{what}: hermes-mcp-auth login --finish {login.id}", flush=True)
        return 0
    judged = detect_answer_channels(flow)
    connection = run_until_stopped(log_in(service, server, screen, open_line_source(), judged, owner))
    print_connection(connection, as_json=options.json)
    return 0


def detect_answer_channels(flow: Flow) -> AnswerChannels:
    """Judge how a login here gets its answer: by a browser that is here, a device, or a paste."""
    here = detect_browser_support(os.environ, sys.platform, os.path.exists)
    browse = flow == "loopback" or (flow == "auto" and here.can_open)
    return AnswerChannels(
        open_browser=open_browser if browse else None,
        # A redirect that reaches this machine, by a forwarded port, is as good as a paste.
        should_listen=True,
        at_keyboard=os.isatty(0),
        flow="loopback" if browse else flow,
    )


def screen_for(options: argparse.Namespace, service: AuthService) -> Screen:
    """Return the screen for these options: JSON on standard output, or text for people on standard error."""
    if options.json:
        return JsonScreen()
    # https://no-color.org, and terminals that show escapes instead of obeying them.
    in_place = os.environ.get("TERM") != "dumb"
    colour = in_place and not os.environ.get("NO_COLOR")
    columns, rows = terminal_size(sys.stderr)
    with_qr = not getattr(options, "no_qr", False)
    device = service.allows_device
    return PlainScreen(sys.stderr, columns, rows, time.time, with_qr, colour, in_place, device)


@dataclass(frozen=True, slots=True)
class JsonScreen:
    """A JSON object per line. The URL in it is for the person who logs in; keep it from a model."""

    def show(self, login: Login, *, browser_opened: bool, port: int | None) -> None:
        """Write a login that waits."""
        code = login.device_authorization
        if code is not None:
            print_json(
                {
                    "event": "device",
                    "login_id": login.id,
                    "server": login.key.server_name,
                    "owner": login.key.owner,
                    "issuer": login.request.issuer,
                    "user_code": code.user_code,
                    "verification_uri": code.verification_uri,
                    "verification_uri_complete": code.verification_uri_complete,
                    "scope": sorted(login.request.scope) if login.request.scope is not None else None,
                    "expires_at": login.expires_at,
                }
            )
            return
        print_json(
            {
                "event": "waiting",
                "login_id": login.id,
                "server": login.key.server_name,
                "owner": login.key.owner,
                "issuer": login.request.issuer,
                "authorization_url": login.authorization_url,
                "scope": sorted(login.request.scope) if login.request.scope is not None else None,
                "redirect_uri": login.request.redirect_uri,
                "listening": port is not None,
                "browser_opened": browser_opened,
                "expires_at": login.expires_at,
            }
        )

    def show_refusal(self, error: McpAuthError) -> None:
        """Write why an answer did not count."""
        print_json({"event": "refused", "error": error.code, "message": str(error), "advice": error.advice})

    def show_countdown(self, login: Login, *, on_new_line: bool = False) -> None:
        """Write nothing: programs know `expires_at`."""

    def show_expiry(self, login: Login) -> None:
        """Write that a line on standard input begins another login, with a new code."""
        print_json({"event": "expired", "login_id": login.id})


async def _complete_login(service: AuthService, login_id: str, screen: Screen) -> Connection:
    login = service.login(login_id)
    if login.status != "waiting":
        # Before anything is pasted for nothing.
        raise login_state_error(login)
    with contextlib.suppress(ConfigError):
        # With the server's own options (a CA, an allowed network), where a configuration has them.
        service.register_server(resolve_server(login.key.server_name, login.key.owner))
    if login.poll_state is not None:
        race = LoginAnswers(service, screen, Server(login.key.server_name, login.server_url))
        race.login = login
        screen.show(login, browser_opened=False, port=None)
        return await race.wait_for_connection(login, open_line_source(), at_keyboard=os.isatty(0))
    if os.isatty(0):
        print("Paste the address that the browser ended on, and press Enter:", file=sys.stderr, flush=True)
    async with open_line_source() as lines:
        text = await lines.read_line()
    try:
        return await service.complete_login(login_id, text or "", TERMINAL_ORIGIN)
    except StillExchanging as late:
        screen.show_refusal(late)
    over = await service.wait_for_login(login_id)
    connection = service.connection(Server(login.key.server_name, login.server_url), login.key.owner)
    if over.status != "done" or connection is None:
        raise login_state_error(over)
    return connection
