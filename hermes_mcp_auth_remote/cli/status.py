"""`status`: every server that is configured or has a login, and how it stands. Asks no server."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator

from hermes_mcp_auth_remote.cli.outcome import put
from hermes_mcp_auth_remote.cli.servers import named, the_home
from hermes_mcp_auth_remote.config import load_servers
from hermes_mcp_auth_remote.errors import McpAuthError, StoreError
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.words import lasts, scope, table
from hermes_mcp_auth_remote.values import Key


def run(options: argparse.Namespace) -> int:
    """List them; the exit code is 0 also where logins are missing."""
    service = AuthService(the_home())
    now = time.time()
    keys = list(_keys(service, options))
    for key in keys:
        error: McpAuthError | None = None
        found: Connection | None = None
        try:
            found = service.connection(named(key.server, owner=key.owner), key.owner)
        except (StoreError, McpAuthError) as trouble:
            error = trouble
        if options.json:
            put(_event(key, found, error))
        else:
            print(_paragraph(key, found, error, now))
    if not keys and not options.json:
        print(f"No server uses OAuth in {the_home() / 'config.yaml'}, and nobody has logged in.")
    return 0


def _keys(service: AuthService, options: argparse.Namespace) -> Iterator[Key]:
    if options.server is not None:
        yield Key(named(options.server, owner=options.owner).name, options.owner)
        return
    configured = [Key(name) for name in load_servers(the_home(), os.environ)]
    for key in dict.fromkeys([*configured, *service.keys()]):
        if options.owner in {None, key.owner}:
            yield key


def _state(found: Connection | None, error: McpAuthError | None, now: float) -> str:
    if error is not None:
        return error.code
    if found is None:
        return "not connected"
    if found.login_needed is not None:
        return "login needed"
    ended = found.expires_at is not None and found.expires_at <= now and not found.can_refresh
    return "expired" if ended else "connected"


def _paragraph(key: Key, found: Connection | None, error: McpAuthError | None, now: float) -> str:
    state = _state(found, error, now)
    mark = "✓" if state == "connected" else "✗"
    lines = [f"{mark} {key.server}{f' ({key.owner})' if key.owner else ''}: {state}"]
    if error is not None:
        return f"{lines[0]}\n  {error} {error.advice}"
    if found is None:
        return f"{lines[0]}\n  hermes-mcp-auth login {key.server}"
    rows = [("Address", found.server_url)]
    if found.account:
        rows.append(("As", found.account))
    if found.scope:
        rows.append(("Access", scope(found.scope)))
    if found.missing_scope:
        rows.append(("Not granted", scope(found.missing_scope)))
    if state == "connected":
        rows.append(("Lasts", lasts(found, now)))
    else:
        rows.append(("Because", found.login_needed or lasts(found, now)))
        rows.append(("Do", f"hermes-mcp-auth login {key.server}"))
    return f"{lines[0]}\n{table(rows)}"


def _event(key: Key, found: Connection | None, error: McpAuthError | None) -> dict[str, object]:
    event: dict[str, object] = {
        "server": key.server,
        "owner": key.owner,
        "state": _state(found, error, time.time()).replace(" ", "_"),
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
