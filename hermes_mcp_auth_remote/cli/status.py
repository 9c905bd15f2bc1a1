"""`status`: every server that is configured or has a login, and how it stands. Asks no server."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from hermes_mcp_auth_remote.cli.outcome import exit_code, put
from hermes_mcp_auth_remote.cli.servers import login_command, named, the_home
from hermes_mcp_auth_remote.config import load_servers
from hermes_mcp_auth_remote.config.source import read_entries
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.screen import size
from hermes_mcp_auth_remote.terminal.words import NO, YES, about, filled, lasts, shown, table
from hermes_mcp_auth_remote.values import Key


@dataclass(frozen=True, slots=True)
class Standing:
    """How one server and owner stand: a connection, none, or the error that hides it."""

    key: Key
    # As it was named, or as its name is: by this it can be named again.
    named: str
    found: Connection | None = None
    error: McpAuthError | None = None

    def state(self, now: float) -> str:
        """Say it in a word or two; an error's code where there is one. `now` is in epoch seconds."""
        if self.error is not None:
            return self.error.code
        if self.found is None:
            return "not connected"
        if self.found.login_needed is not None:
            return "login needed"
        ends = self.found.expires_at
        return "expired" if ends is not None and ends <= now and not self.found.can_refresh else "connected"


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
            put(_event(standing, now))
        else:
            print(_paragraph(standing, now, columns), flush=True)
    if config_error is not None:
        raise config_error
    if not standings and not options.json:
        where = the_home() / "config.yaml"
        print(filled(f"No server uses OAuth in {shown(str(where))}, and nobody has logged in.", columns))
        print("Log in to one: hermes-mcp-auth login --url https://…", flush=True)
    return next((exit_code(each.error) for each in standings if each.error is not None), 0)


def _configured() -> list[str]:
    """List what config.yaml names, with the entries that have a mistake: each is told for itself."""
    try:
        return list(load_servers(the_home(), os.environ))
    except ConfigError:
        entries = read_entries(the_home() / "config.yaml")
        return [name for name, entry in entries.items() if isinstance(entry, dict) and "auth" in entry]


def _standings(configured: list[str], options: argparse.Namespace) -> Iterator[Standing]:
    service = AuthService(the_home())
    if options.server is not None:
        keys = [Key(named(options.server, options.owner).name, options.owner)]
    else:
        stored = service.keys()
        asked = (key for key in stored if options.owner in {None, key.owner})
        keys = list(dict.fromkeys([*(Key(name, options.owner) for name in configured), *asked]))
    for key in keys:
        name = options.server or key.server
        try:
            yield Standing(key, name, service.connection(named(name, key.owner), key.owner))
        except McpAuthError as error:
            yield Standing(key, name, error=error)


def _paragraph(standing: Standing, now: float, columns: int) -> str:
    key, found, state = standing.key, standing.found, standing.state(now)
    name = shown(f"{key.server} ({key.owner})" if key.owner else key.server)
    log_in = ("Do", login_command(standing.named, key.owner))
    if standing.error is not None:
        rows = [("Because", str(standing.error)), ("Do", standing.error.advice)]
        return f"{NO} {name}: unreadable\n{table(rows, columns)}"
    if found is None:
        return f"{NO} {name}: {state}\n{table([log_in], columns)}"
    if state == "connected":
        rows = [*about(found), ("Lasts", lasts(found, now))]
        return f"{YES} {name}: {state}\n{table(rows, columns)}"
    rows = [*about(found), ("Because", found.login_needed or lasts(found, now)), log_in]
    return f"{NO} {name}: {state}\n{table(rows, columns)}"


def _event(standing: Standing, now: float) -> dict[str, object]:
    key, found, error = standing.key, standing.found, standing.error
    event: dict[str, object] = {
        "server": key.server,
        "owner": key.owner,
        "state": standing.state(now).replace(" ", "_"),
    }
    if error is not None:
        event |= {"message": str(error), "advice": error.advice}
    if found is not None:
        event |= {
            "url": found.server_url,
            "issuer": found.issuer,
            "account": found.account,
            "scope": sorted(found.scope) if found.scope is not None else None,
            "missing_scope": sorted(found.missing_scope),
            "expires_at": found.expires_at,
            "can_refresh": found.can_refresh,
            "reason": found.login_needed,
        }
    return event
