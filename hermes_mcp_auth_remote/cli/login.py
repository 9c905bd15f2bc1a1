"""`login`: from a terminal, a pipe or a program; also begun here and finished elsewhere, or the reverse."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from dataclasses import dataclass

from hermes_mcp_auth_remote.cli.output import put, tell
from hermes_mcp_auth_remote.cli.servers import addressed, named, the_home
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, StillExchanging
from hermes_mcp_auth_remote.login import Connection, Login, refusal
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.answers import HERE, Race, Screen
from hermes_mcp_auth_remote.terminal.browser import evidence, open_browser
from hermes_mcp_auth_remote.terminal.input import open_lines
from hermes_mcp_auth_remote.terminal.prompt import Ways, log_in
from hermes_mcp_auth_remote.terminal.screen import PlainScreen, size
from hermes_mcp_auth_remote.values import Flow, Server


def run(options: argparse.Namespace) -> int:
    """Log in; raises what ended the login."""
    if options.via is not None:
        from hermes_mcp_auth_remote.cli.via import run as ask

        return ask(options)
    service, owner = AuthService(the_home()), options.owner
    if options.finish is not None:
        screen = screen_for(options, service)
        tell(run_until_stopped(_finish(service, options.finish, screen)), as_json=options.json)
        return 0
    url = options.url
    server = named(options.server, owner) if url is None else addressed(url, options.server, owner)
    screen, flow = screen_for(options, service), options.flow or server.options.flow
    if options.no_wait:
        login = run_until_stopped(service.begin(server, HERE, owner=owner, flow=flow))
        screen.show(login, opened=False, port=None)
        if not options.json:
            what = "To paste it later" if login.device is None else "To wait for it later"
            print(f"{what}: hermes-mcp-auth login --finish {login.id}", flush=True)
        return 0
    judged = ways(flow)
    connection = run_until_stopped(log_in(service, server, screen, open_lines(), judged, owner))
    tell(connection, as_json=options.json)
    return 0


def ways(flow: Flow) -> Ways:
    """Judge how a login here gets its answer: by a browser that is here, a device, or a paste."""
    here = evidence(os.environ, sys.platform, os.path.exists)
    browse = flow == "loopback" or (flow == "auto" and here.can_open)
    return Ways(
        open_browser=open_browser if browse else None,
        # A redirect that reaches this machine, by a forwarded port, is as good as a paste.
        listen=True,
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
    columns, rows = size(sys.stderr)
    with_qr = not getattr(options, "no_qr", False)
    device = service.allows_device
    return PlainScreen(sys.stderr, columns, rows, time.time, with_qr, colour, in_place, device)


@dataclass(frozen=True, slots=True)
class JsonScreen:
    """A JSON object per line. The URL in it is for the person who logs in; keep it from a model."""

    def show(self, login: Login, *, opened: bool, port: int | None) -> None:
        """Write a login that waits."""
        code = login.shown_code
        if code is not None:
            put(
                {
                    "event": "device",
                    "login_id": login.id,
                    "server": login.key.server,
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
        put(
            {
                "event": "waiting",
                "login_id": login.id,
                "server": login.key.server,
                "owner": login.key.owner,
                "issuer": login.request.issuer,
                "authorization_url": login.authorization_url,
                "scope": sorted(login.request.scope) if login.request.scope is not None else None,
                "redirect_uri": login.request.redirect_uri,
                "listening": port is not None,
                "browser_opened": opened,
                "expires_at": login.expires_at,
            }
        )

    def refused(self, error: McpAuthError) -> None:
        """Write why an answer did not count."""
        put({"event": "refused", "error": error.code, "message": str(error), "advice": error.advice})

    def count(self, login: Login, *, anew: bool = False) -> None:
        """Write nothing: programs know `expires_at`."""

    def expired(self, login: Login) -> None:
        """Write that a line on standard input begins another login, with a new code."""
        put({"event": "expired", "login_id": login.id})


async def _finish(service: AuthService, login_id: str, screen: Screen) -> Connection:
    login = service.login(login_id)
    if login.status != "waiting":
        # Before anything is pasted for nothing.
        raise refusal(login)
    with contextlib.suppress(ConfigError):
        # With the server's own options (a CA, an allowed network), where a configuration has them.
        service.know(named(login.key.server, login.key.owner))
    if login.device is not None:
        race = Race(service, screen, Server(login.key.server, login.server_url))
        race.login = login
        screen.show(login, opened=False, port=None)
        return await race.run(login, open_lines(), at_keyboard=os.isatty(0))
    if os.isatty(0):
        print("Paste the address that the browser ended on, and press Enter:", file=sys.stderr, flush=True)
    async with open_lines() as lines:
        text = await lines.line()
    try:
        return await service.finish(login_id, text or "", HERE)
    except StillExchanging as late:
        screen.refused(late)
    over = await service.settled(login_id)
    connection = service.connection(Server(login.key.server, login.server_url), login.key.owner)
    if over.status != "done" or connection is None:
        raise refusal(over)
    return connection
