"""`status`: every server that is configured or has a login, and how it stands. Asks no server."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator

from hermes_mcp_auth_remote.cli.connection_status import Standing
from hermes_mcp_auth_remote.cli.output import exit_code, put
from hermes_mcp_auth_remote.cli.servers import named, the_home
from hermes_mcp_auth_remote.config import load_servers
from hermes_mcp_auth_remote.config.chats import SECTION, load_chats
from hermes_mcp_auth_remote.config.files import read_entries
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, ServerNotFound
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.phrases import shown
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.screen import size
from hermes_mcp_auth_remote.terminal.text import filled
from hermes_mcp_auth_remote.values import Key, Server


def run(options: argparse.Namespace) -> int:
    """List them. A login that is missing is no error; what cannot be read is one, after all others."""
    now, columns = time.time(), size(sys.stdout)[0]
    config_error: ConfigError | None = None
    try:
        configured = _configured() if options.server is None else []
    except ConfigError as error:
        configured, config_error = [], error
    standings = list(_standings(configured, options))
    for standing in standings:
        if options.json:
            put(standing.event(now))
        else:
            print(standing.paragraph(now, columns), flush=True)
    if options.server is None and config_error is None:
        try:
            _tell_of_chats(as_json=options.json, columns=columns)
        except ConfigError as error:
            config_error = error
    if config_error is not None:
        raise config_error
    if not standings and not options.json:
        where = the_home() / "config.yaml"
        print(filled(f"No server uses OAuth in {shown(str(where))}, and nobody has logged in.", columns))
        print("Log in to one: hermes-mcp-auth login --url https://…", flush=True)
    return next((exit_code(each.error) for each in standings if each.error is not None), 0)


def _tell_of_chats(*, as_json: bool, columns: int) -> None:
    """Say whose tokens chats use, where the operator has said anything about chats."""
    chats = load_chats(the_home(), os.environ)
    if chats is None:
        return
    if as_json:
        put({"chats": {"owners": chats.owners}})
        return
    whose = {
        "shared": "In chats, all who may use a bot share the operator's tokens",
        "per_user": "In chats, everybody uses tokens of their own",
    }
    print(filled(f"{whose[chats.owners]} ({SECTION}.owners: {chats.owners}).", columns), flush=True)


def _configured() -> list[str]:
    """List what config.yaml names, with the entries that have a mistake: each is told for itself."""
    try:
        return list(load_servers(the_home(), os.environ))
    except ConfigError:
        entries = read_entries(the_home() / "config.yaml")
        return [name for name, entry in entries.items() if isinstance(entry, dict) and "auth" in entry]


def _standings(configured: list[str], options: argparse.Namespace) -> Iterator[Standing]:
    service = AuthService(the_home())
    waiting = service.waiting()
    if options.server is not None:
        keys = [Key(named(options.server, options.owner).name, options.owner)]
    else:
        stored = [*service.keys(), *(login.key for login in waiting)]
        asked = (key for key in stored if options.owner in {None, key.owner})
        keys = list(dict.fromkeys([*(Key(name, options.owner) for name in configured), *asked]))
    for key in keys:
        yield _standing(service, key, options.server, tuple(each for each in waiting if each.key == key))


def _standing(service: AuthService, key: Key, name: str | None, waiting: tuple[Login, ...]) -> Standing:
    # As it was named, so that it can be named again.
    shown_as = name or key.server
    try:
        server = named(shown_as, key.owner)
    except ServerNotFound as error:
        if not waiting:
            return Standing(key, shown_as, error=error)
        # Begun by its address: no config knows it, and nothing is stored of it yet.
        server = Server(key.server, waiting[-1].server_url)
    except McpAuthError as error:
        return Standing(key, shown_as, error=error, waiting=waiting)
    try:
        found = service.connection(server, key.owner)
    except McpAuthError as error:
        return Standing(key, shown_as, error=error, waiting=waiting)
    needs_nobody = server.options.grant != "authorization_code"
    return Standing(key, shown_as, found, needs_nobody=needs_nobody, waiting=waiting)
