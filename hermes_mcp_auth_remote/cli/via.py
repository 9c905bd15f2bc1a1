"""`login --via telegram:7`: begun and waited for here, shown in that user's chat by whoever runs the bot."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import time

from hermes_mcp_auth_remote.cli.connection_output import print_connection
from hermes_mcp_auth_remote.cli.output import print_json, print_paragraph
from hermes_mcp_auth_remote.cli.servers import current_home, resolve_server, server_at_url
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.config.chats import PLATFORMS, ChatSettings, load_chat_settings
from hermes_mcp_auth_remote.errors import ConfigError, LoginCancelled, McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login, login_state_error
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.text import clock_time
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Flow, Origin, Owner, Server

# A bot that is at work looks more often than that; a busy one may need a moment.
UNSHOWN_WARNING_SECONDS = 3.0
POLL_SECONDS = 0.2


def run(options: argparse.Namespace) -> int:
    """Ask that user to log in; raises what ended the login."""
    if options.finish is not None:
        options.refuse("--via begins a login, --finish ends one that was begun")
    if options.flow == "loopback":
        options.refuse("--flow loopback opens a browser here, and --via asks somebody elsewhere")
    platform, user = _parse_via(options.via)
    home = current_home()
    chats = load_chat_settings(home, os.environ) or ChatSettings()
    owner = options.owner or chats.owner(platform, user)
    url = options.url
    server = (
        resolve_server(options.server, owner) if url is None else server_at_url(url, options.server, owner)
    )
    service = AuthService(home, device_platforms=chats.device_platforms)
    asked = _RemoteLogin(service, server, Origin(platform, user_id=user), owner, as_json=options.json)
    if options.no_wait:
        login = run_until_stopped(asked.start_login(options.flow or "auto"))
        if not options.json:
            print(login.id, flush=True)
        return 0
    print_connection(
        run_until_stopped(asked.wait_for_connection(options.flow or "auto")), as_json=options.json
    )
    return 0


def _parse_via(via: str) -> tuple[str, str]:
    platform, _, user = via.partition(":")
    if platform not in PLATFORMS or not re.fullmatch(r"[0-9]{1,20}", user):
        raise ConfigError(
            "--via takes a platform and a user's id, which is a number.",
            "Write --via telegram:ID or discord:ID; the bot tells whoever writes to it their id.",
        )
    return platform, user


class _RemoteLogin:
    """One login that a user of a chat is asked for."""

    def __init__(
        self, service: AuthService, server: Server, origin: Origin, owner: Owner, *, as_json: bool
    ) -> None:
        self._service = service
        self._server = server
        self._origin = origin
        self._owner = owner
        self._as_json = as_json
        self._was_shown = False

    @property
    def _via(self) -> str:
        return f"{self._origin.platform}:{self._origin.user_id}"

    async def start_login(self, flow: Flow) -> Login:
        """Begin it, for whoever runs the bot to show; no address of it is told here."""
        login = await self._service.start_login(self._server, self._origin, owner=self._owner, flow=flow)
        if self._as_json:
            print_json(
                {
                    "event": "asked",
                    "via": self._via,
                    "login_id": login.id,
                    "server": login.key.server_name,
                    "owner": login.key.owner,
                    "expires_at": login.expires_at,
                }
            )
        else:
            until = clock_time(login.expires_at, time.time())
            print_paragraph(
                f"{self._via} is asked to log in to {login.key.server_name}, until {until}. Ctrl-C cancels."
            )
        return login

    async def wait_for_connection(self, flow: Flow) -> Connection:
        """Begin it and wait for its end; being cancelled cancels it. Raises a LoginError."""
        login = await self.start_login(flow)
        watching = asyncio.create_task(self._report_when_shown(login.id))
        try:
            over = await self._service.wait_for_login(login.id)
        except BaseException:
            # Does nothing to a login that is over.
            with contextlib.suppress(McpAuthError):
                await self._service.cancel(login.id)
            raise
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        if over.status == "cancelled" and not (self._was_shown or over.message_ids):
            raise LoginCancelled(
                "The bot cancelled this login before anybody saw it.",
                f"Either {self._via} is not on its list, or has to write to it first; its log says which.",
            )
        found = self._service.connection(self._server, self._owner) if over.status == "done" else None
        if found is None:
            raise login_state_error(over)
        return found

    async def _report_when_shown(self, login_id: str) -> None:
        """Say once that it is shown, and before that, where it takes long, that nobody shows it."""
        started, said = asyncio.get_running_loop().time(), False
        while not (await run_file_work(self._service.login, login_id)).message_ids:
            if not said and asyncio.get_running_loop().time() - started > UNSHOWN_WARNING_SECONDS:
                said = True
                self._report_unshown()
            await asyncio.sleep(POLL_SECONDS)
        self._was_shown = True
        if self._as_json:
            print_json({"event": "shown"})
        else:
            print_paragraph("It is shown to them now.")

    def _report_unshown(self) -> None:
        platform = self._origin.platform
        what = f"No bot is serving {platform} from this HERMES_HOME."
        advice = f"Run `hermes-mcp-auth serve --{platform}` there; this goes on waiting."
        if self._as_json:
            print_json({"event": "unshown", "message": what, "advice": advice})
        else:
            print_paragraph(f"{what} {advice}")
