"""`connect`: a stdio MCP server for any client. It passes messages to a remote server with a token."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from hermes_mcp_auth_remote.bridge.login import BrowserPrompter, ChatPrompter, ClientLogin
from hermes_mcp_auth_remote.bridge.optional_login import OptionalLogin
from hermes_mcp_auth_remote.bridge.stdio import LineWriter
from hermes_mcp_auth_remote.cli.extras import install_extras_command
from hermes_mcp_auth_remote.cli.login_via_chat import parse_via
from hermes_mcp_auth_remote.cli.output import print_paragraph
from hermes_mcp_auth_remote.cli.owners import owner_notes
from hermes_mcp_auth_remote.cli.servers import current_home, resolve_server
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.commands import login_command
from hermes_mcp_auth_remote.config.chats import ChatSettings, load_chat_settings
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.http.tls import tls_context
from hermes_mcp_auth_remote.oauth.urls import host_of, is_loopback_host
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.prompting import prompting
from hermes_mcp_auth_remote.terminal.answers import TERMINAL_ORIGIN
from hermes_mcp_auth_remote.terminal.browser import detect_browser_support, open_browser
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Owner, Server

try:
    import httpx2

    from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
    from hermes_mcp_auth_remote.bridge.connections import open_http_client
    from hermes_mcp_auth_remote.bridge.relay import Options, Relay
except ImportError:
    raise ConfigError(
        "`connect` needs httpx2, which is not installed.", f"Run `{install_extras_command('httpx2')}`."
    ) from None


def run(options: argparse.Namespace) -> int:
    """Relay messages until the client closes standard input. Standard output carries only the protocol."""
    home = current_home()
    chats = load_chat_settings(home, os.environ) or ChatSettings()
    via = None if options.via is None else parse_via(options.via)
    owner: Owner = options.owner or (None if via is None else chats.owner(*via))
    server = resolve_server(options.server, owner)
    service = AuthService(home, device_platforms=chats.device_platforms)
    # A stream is None if the process was started without it.
    if sys.stdin is None or sys.stdout is None:
        raise ConfigError(
            "`connect` was started without standard input or output.",
            "Let an MCP client start it: docs/clients.md shows how.",
        )
    # The protocol gets its own descriptor, so that a stray `print` does not break it.
    output = os.dup(sys.stdout.fileno())
    stray_output = os.open(os.devnull, os.O_WRONLY) if sys.stderr is None else sys.stderr.fileno()
    os.dup2(stray_output, sys.stdout.fileno())
    logging.basicConfig(format="hermes-mcp-auth: %(message)s", stream=sys.stderr)
    logging.getLogger("hermes_mcp_auth_remote.bridge").setLevel(logging.INFO)
    for note in owner_notes(service, options.owner):
        print_paragraph(note)
    if sys.stdin.isatty():
        print_paragraph(
            "`connect` waits for the messages of an MCP client, which starts this command itself: "
            "docs/clients.md shows how. Ctrl-C ends it."
        )
    command = login_command(server if server.is_known else options.server, owner)
    run_until_stopped(_relay(service, server, owner, command, via, output, no_browser=options.no_browser))
    return 0


async def _relay(
    service: AuthService,
    server: Server,
    owner: Owner,
    command: str,
    via: tuple[str, str] | None,
    output: int,
    *,
    no_browser: bool,
) -> None:
    key = CredentialKey(server.name, owner)
    can_open = detect_browser_support(os.environ, sys.platform, os.path.exists).can_open and not no_browser
    browser = BrowserPrompter(service, server, open_browser) if via is None and can_open else None
    client_login = ClientLogin(service, server, owner) if via is None and browser is None else None
    target: AbstractContextManager[None] = nullcontext()
    if via is not None:
        platform, user_id = via
        origin = Origin(platform, user_id=user_id)
        target = prompting(ChatPrompter(server.name), origin, can_connect_shared=True, flow="auto")
    elif browser is not None:
        await browser.resume(key)
        target = prompting(browser, TERMINAL_ORIGIN, flow="auto")

    async def is_login_waiting() -> bool:
        return any(login.key == key for login in await service.waiting_logins())

    writer = LineWriter(output)
    async with _open_client(service, server, owner) as http_client:
        authorization = service.session(server, owner).header
        options = Options(server.name, server.url, command, client_login, is_login_waiting, authorization)
        relay = Relay(options, http_client, writer)
        try:
            with target:
                await relay.run(sys.stdin.fileno())
        finally:
            await asyncio.gather(*(item.close() for item in (browser, client_login) if item is not None))


def _open_client(service: AuthService, server: Server, owner: Owner) -> httpx2.AsyncClient:
    """Return an HTTP client with the server's token, headers, certificates and proxy."""
    headers = {name: secret.reveal() for name, secret in server.headers.items()}
    if server.options.user_agent is not None:
        headers["User-Agent"] = server.options.user_agent
    session = service.session(server, owner)
    needs_user = server.options.grant == "authorization_code"
    return open_http_client(
        tls_context(server.options, os.environ, is_server_host=True),
        auth=McpAuth(OptionalLogin(session, partial(service.needs_token, server)) if needs_user else session),
        headers=headers,
        # For a server on this machine, use no proxy: a proxy would connect to its own loopback addresses.
        can_use_proxy=not is_loopback_host(host_of(server.url)),
    )
