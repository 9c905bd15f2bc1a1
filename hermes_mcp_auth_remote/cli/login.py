"""`login`: log in from a terminal, a pipe or a program. Start and completion may be separate commands."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from dataclasses import dataclass

from hermes_mcp_auth_remote.cli.connection_output import print_connection
from hermes_mcp_auth_remote.cli.output import print_json
from hermes_mcp_auth_remote.cli.server_choice import choose_server, read_url
from hermes_mcp_auth_remote.cli.servers import current_home, resolve_server, server_for_login
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.commands import READ_URL, finish_command
from hermes_mcp_auth_remote.errors import ConfigError, LoginNotFound, McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login, login_state_error
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.shown_program import with_shown_program
from hermes_mcp_auth_remote.terminal.answers import TERMINAL_ORIGIN, LoginAnswers, Screen
from hermes_mcp_auth_remote.terminal.browser import detect_browser_support, is_ssh_session, open_browser
from hermes_mcp_auth_remote.terminal.input import has_standard_input, open_line_source
from hermes_mcp_auth_remote.terminal.prompt import AnswerChannels, log_in
from hermes_mcp_auth_remote.terminal.screen import PlainScreen
from hermes_mcp_auth_remote.terminal.window import obeys_escapes, terminal_size, uses_colour
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Flow, Server


def run(options: argparse.Namespace) -> int:
    """Log in. Raises the McpAuthError that ended the login."""
    if options.finish is None:
        _complete_arguments(options)
    if options.via is not None:
        from hermes_mcp_auth_remote.cli import login_via_chat

        return login_via_chat.run(options)
    service, owner = AuthService(current_home()), options.owner
    if options.finish is not None:
        screen = screen_for(options, service, AnswerChannels())
        print_connection(
            run_until_stopped(_complete_login(service, options.finish, screen)), as_json=options.json
        )
        return 0
    server = server_for_login(options, owner)
    flow = options.flow or server.options.flow
    channels = detect_answer_channels(flow)
    screen = screen_for(options, service, channels, waits=not options.no_wait)
    if options.no_wait:
        login = run_until_stopped(service.start_login(server, TERMINAL_ORIGIN, owner=owner, flow=flow))
        screen.show(login, browser_opened=False, port=None)
        if not options.json:
            purpose = "Then paste it into" if login.poll_state is None else "To wait for the login"
            print(with_shown_program(f"{purpose}: {finish_command(login.id)}"), flush=True)
        return 0
    connection = run_until_stopped(log_in(service, server, screen, open_line_source(), channels, owner))
    uses_machine_grant = server.options.grant != "authorization_code"
    print_connection(connection, as_json=options.json, uses_machine_grant=uses_machine_grant)
    return 0


def _complete_arguments(options: argparse.Namespace) -> None:
    """Let the user choose a server if the arguments name none, and read the address for `--url -`."""
    if options.url == READ_URL:
        options.url = read_url()
    elif options.url is None and options.server is None:
        options.server = choose_server(options)


def detect_answer_channels(flow: Flow) -> AnswerChannels:
    """Choose how a login at this terminal gets its answer: by a local browser, a device or a paste."""
    browser_support = detect_browser_support(os.environ, sys.platform, os.path.exists)
    use_browser = flow == "loopback" or (flow == "auto" and browser_support.can_open)
    return AnswerChannels(
        open_browser=open_browser if use_browser else None,
        # Listen in every flow: a redirect can reach this machine through a forwarded port.
        should_listen=True,
        at_keyboard=is_at_keyboard(),
        flow="loopback" if use_browser else flow,
        is_remote=is_ssh_session(os.environ) and not use_browser,
    )


def screen_for(
    options: argparse.Namespace, service: AuthService, channels: AnswerChannels, *, waits: bool = True
) -> Screen:
    """Return the screen for these options: JSON on standard output, or text for people on standard error.

    `channels` are those of the login. `waits` is False if the command only shows the login.
    """
    if options.json:
        return JsonScreen()
    columns, rows = terminal_size(sys.stderr)
    environ = os.environ
    return PlainScreen(
        sys.stderr,
        columns,
        rows,
        time.time,
        with_qr=not getattr(options, "no_qr", False),
        colour=obeys_escapes(environ) and not environ.get("NO_COLOR"),
        in_place=obeys_escapes(environ),
        allows_device=service.allows_device,
        at_keyboard=is_at_keyboard(),
        can_paste=has_standard_input(),
        waits=waits,
        expects_browser=waits and channels.open_browser is not None,
        # The Linux console does not know the control sequence of a link, and prints it as text.
        with_links=uses_colour(sys.stderr, environ) and environ.get("TERM") != "linux",
    )


def is_at_keyboard() -> bool:
    """True if standard input is a terminal."""
    # If standard input is closed, file descriptor 0 may belong to another file.
    return sys.stdin is not None and os.isatty(0)


@dataclass(frozen=True, slots=True)
class JsonScreen:
    """Prints a JSON object per line. Show the URL only to the user who logs in, never to a model."""

    def show(self, login: Login, *, browser_opened: bool, port: int | None) -> None:
        """Print a login that waits for an answer."""
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
        """Print why an answer was refused."""
        print_json({"event": "refused", "error": error.code, "message": str(error), "advice": error.advice})

    def show_refused_requests(self, count: int) -> None:
        """Print how many requests to the listener did not belong to this login."""
        print_json({"event": "refused_requests", "count": count})

    def show_countdown(self, login: Login, *, on_new_line: bool = False) -> None:
        """Print nothing: programs know `expires_at`."""

    def show_expiry(self, login: Login) -> None:
        """Print that the code has expired. A line on standard input starts another login."""
        print_json({"event": "expired", "login_id": login.id})

    def show_qr(self, login: Login) -> bool:  # noqa: ARG002
        """Print nothing: programs draw QR codes themselves."""
        return False

    def hide_qr(self) -> None:
        """Print nothing."""


async def _complete_login(service: AuthService, login_id: str, screen: Screen) -> Connection:
    try:
        login = await service.login(login_id)
    except LoginNotFound as error:
        error.advice = "Run `hermes-mcp-auth status`: it lists the logins that wait, with their ids."
        raise
    if login.status != "waiting":
        # Fail before the user pastes an address.
        raise login_state_error(login)
    with contextlib.suppress(ConfigError):
        # Use the server's options from config.yaml (a CA, an allowed network) if it has an entry.
        service.register_server(await run_file_work(resolve_server, login.key.server_name, login.key.owner))
    answers = LoginAnswers(service, screen, Server(login.key.server_name, login.server_url))
    answers.login = login
    at_keyboard = is_at_keyboard()
    must_paste = login.poll_state is None
    if at_keyboard or not must_paste:
        screen.show(login, browser_opened=False, port=None)
    return await answers.wait_for_connection(
        login, open_line_source(), at_keyboard=at_keyboard, must_paste=must_paste
    )
