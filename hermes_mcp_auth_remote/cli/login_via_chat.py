"""`login --via telegram:7`: start a login that a bot shows in that user's chat, and wait for it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import time

from hermes_mcp_auth_remote.cli.connection_output import print_connection
from hermes_mcp_auth_remote.cli.output import print_json, print_paragraph
from hermes_mcp_auth_remote.cli.servers import current_home, server_for_login
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.config.chats import ChatSettings, load_chat_settings
from hermes_mcp_auth_remote.errors import ConfigError, LoginCancelled, McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login, login_state_error
from hermes_mcp_auth_remote.platforms import PLATFORMS, id_examples
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.text import clock_time
from hermes_mcp_auth_remote.values import Flow, Origin, Owner, Server

# Warn after this time. A running bot checks for new logins more often, but a busy bot may need longer.
UNSHOWN_WARNING_SECONDS = 3.0
POLL_SECONDS = 0.2


def run(options: argparse.Namespace) -> int:
    """Ask a user to log in. Raises the McpAuthError that ended the login."""
    if options.finish is not None:
        options.refuse("--via starts a login, --finish completes a started one: use only one of them")
    if options.flow == "loopback":
        options.refuse("--flow loopback opens a browser here, and --via asks a user elsewhere")
    platform, user = parse_via(options.via)
    home = current_home()
    chats = load_chat_settings(home, os.environ) or ChatSettings()
    owner = options.owner or chats.owner(platform, user)
    server = server_for_login(options, owner)
    service = AuthService(home, device_platforms=chats.device_platforms)
    remote_login = _RemoteLogin(service, server, Origin(platform, user_id=user), owner, as_json=options.json)
    if options.no_wait:
        login = run_until_stopped(remote_login.start_login(options.flow or "auto"))
        if not options.json:
            print(login.id, flush=True)
        return 0
    print_connection(
        run_until_stopped(remote_login.wait_for_connection(options.flow or "auto")), as_json=options.json
    )
    return 0


def parse_via(via: str) -> tuple[str, str]:
    """Split "telegram:42" into a platform and a user id. Raises ConfigError."""
    name, _, user_id = via.partition(":")
    platform = PLATFORMS.get(name)
    if platform is None:
        raise ConfigError(
            "--via takes a platform and a user's id.",
            f"Write --via {id_examples()}. A user who writes to the bot is told their id.",
        )
    if not platform.accepts_id(user_id):
        raise ConfigError(
            f"--via takes a user's id at {platform.title}; such ids are {platform.id_rule}.",
            f"Write --via {name}:ID. A user who writes to the bot is told their id.",
        )
    return name, user_id


class _RemoteLogin:
    """A login that a chat user is asked to complete."""

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
        """Start a login, which the bot shows. Do not print its URL here."""
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
        """Start the login, wait for it and return the connection.

        Cancelling the task cancels the login. Raises the LoginError that ended it.
        """
        login = await self.start_login(flow)
        shown_task = asyncio.create_task(self._report_when_shown(login.id))
        try:
            ended_login = await self._service.wait_for_login(login.id)
        except BaseException:
            # `cancel` does nothing if the login has ended.
            with contextlib.suppress(McpAuthError):
                await self._service.cancel(login.id)
            raise
        finally:
            shown_task.cancel()
            await asyncio.gather(shown_task, return_exceptions=True)
        if ended_login.status == "cancelled" and not (self._was_shown or ended_login.message_ids):
            raise LoginCancelled(
                "The bot cancelled this login before the user saw it.",
                f"Either {self._via} is not allowed, or must write to the bot first: see the bot's log.",
            )
        connection = (
            await self._service.connection(self._server, self._owner)
            if ended_login.status == "done"
            else None
        )
        if connection is None:
            raise login_state_error(ended_login)
        return connection

    async def _report_when_shown(self, login_id: str) -> None:
        """Report that the bot shows the login. If no bot shows it for some seconds, report that first."""
        started_at, is_reported = asyncio.get_running_loop().time(), False
        while not (await self._service.login(login_id)).message_ids:
            if not is_reported and asyncio.get_running_loop().time() - started_at > UNSHOWN_WARNING_SECONDS:
                is_reported = True
                self._report_unshown()
            await asyncio.sleep(POLL_SECONDS)
        self._was_shown = True
        if self._as_json:
            print_json({"event": "shown"})
        else:
            print_paragraph("The bot shows the login to them now.")

    def _report_unshown(self) -> None:
        platform = self._origin.platform
        message = f"No bot is serving {platform} from this HERMES_HOME."
        advice = f"Run `hermes-mcp-auth serve --{platform}` there. This command continues to wait."
        if self._as_json:
            print_json({"event": "unshown", "message": message, "advice": advice})
        else:
            print_paragraph(f"{message} {advice}")
