"""`status`: every server that is configured or has a login, and how it stands. Asks no server."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator

from hermes_mcp_auth_remote.cli.connection_status import ConnectionStatus
from hermes_mcp_auth_remote.cli.output import exit_code, print_json
from hermes_mcp_auth_remote.cli.servers import current_home, resolve_server
from hermes_mcp_auth_remote.config import load_servers
from hermes_mcp_auth_remote.config.chats import SECTION_NAME, load_chat_settings
from hermes_mcp_auth_remote.config.files import read_entries
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, ServerNotFound
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.phrases import replace_unprintable
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.screen import terminal_size
from hermes_mcp_auth_remote.terminal.text import wrap_text
from hermes_mcp_auth_remote.values import CredentialKey, Server


def run(options: argparse.Namespace) -> int:
    """List them. A login that is missing is no error; what cannot be read is one, after all others."""
    now, columns = time.time(), terminal_size(sys.stdout)[0]
    config_error: ConfigError | None = None
    try:
        configured = _configured_names() if options.server is None else []
    except ConfigError as error:
        configured, config_error = [], error
    standings = list(_connection_statuses(configured, options))
    for standing in standings:
        if options.json:
            print_json(standing.to_event(now))
        else:
            print(standing.to_text(now, columns), flush=True)
    if options.server is None and config_error is None:
        try:
            _print_chat_owners(as_json=options.json, columns=columns)
        except ConfigError as error:
            config_error = error
    if config_error is not None:
        raise config_error
    if not standings and not options.json:
        where = current_home() / "config.yaml"
        print(
            wrap_text(
                f"No server uses OAuth in {replace_unprintable(str(where))}, and nobody has logged in.",
                columns,
            )
        )
        print("Log in to one: hermes-mcp-auth login --url https://…", flush=True)
    return next((exit_code(each.error) for each in standings if each.error is not None), 0)


def _print_chat_owners(*, as_json: bool, columns: int) -> None:
    """Say whose tokens chats use, where the operator has said anything about chats."""
    chats = load_chat_settings(current_home(), os.environ)
    if chats is None:
        return
    if as_json:
        print_json({"chats": {"owners": chats.owners}})
        return
    whose = {
        "shared": "In chats, all who may use a bot share the operator's tokens",
        "per_user": "In chats, everybody uses tokens of their own",
    }
    print(wrap_text(f"{whose[chats.owners]} ({SECTION_NAME}.owners: {chats.owners}).", columns), flush=True)


def _configured_names() -> list[str]:
    """List what config.yaml names, with the entries that have a mistake: each is told for itself."""
    try:
        return list(load_servers(current_home(), os.environ))
    except ConfigError:
        entries = read_entries(current_home() / "config.yaml")
        return [name for name, entry in entries.items() if isinstance(entry, dict) and "auth" in entry]


def _connection_statuses(
    configured_names: list[str], options: argparse.Namespace
) -> Iterator[ConnectionStatus]:
    service = AuthService(current_home())
    waiting = service.waiting_logins()
    if options.server is not None:
        keys = [CredentialKey(resolve_server(options.server, options.owner).name, options.owner)]
    else:
        stored = [*service.keys(), *(login.key for login in waiting)]
        asked = (key for key in stored if options.owner in {None, key.owner})
        keys = list(
            dict.fromkeys([*(CredentialKey(name, options.owner) for name in configured_names), *asked])
        )
    for key in keys:
        yield _connection_status(
            service, key, options.server, tuple(each for each in waiting if each.key == key)
        )


def _connection_status(
    service: AuthService, key: CredentialKey, server_argument: str | None, waiting_logins: tuple[Login, ...]
) -> ConnectionStatus:
    # As it was named, so that it can be named again.
    shown_as = server_argument or key.server_name
    try:
        server = resolve_server(shown_as, key.owner)
    except ServerNotFound as error:
        if not waiting_logins:
            return ConnectionStatus(key, shown_as, error=error)
        # Begun by its address: no config knows it, and nothing is stored of it yet.
        server = Server(key.server_name, waiting_logins[-1].server_url)
    except McpAuthError as error:
        return ConnectionStatus(key, shown_as, error=error, waiting_logins=waiting_logins)
    try:
        found = service.connection(server, key.owner)
    except McpAuthError as error:
        return ConnectionStatus(key, shown_as, error=error, waiting_logins=waiting_logins)
    needs_nobody = server.options.grant != "authorization_code"
    return ConnectionStatus(
        key, shown_as, found, uses_machine_grant=needs_nobody, waiting_logins=waiting_logins
    )
