"""Print the connection that a login has made, as text or as a JSON event."""

from __future__ import annotations

import os
import sys
import time

from hermes_mcp_auth_remote.cli.output import print_json
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.terminal.text import connection_summary
from hermes_mcp_auth_remote.terminal.window import colour_mark, terminal_size, uses_colour


def print_connection(connection: Connection, *, as_json: bool, uses_machine_grant: bool = False) -> None:
    """Print a connection to standard output.

    `uses_machine_grant` is True if the server's grant needs no user.
    """
    if as_json:
        print_json(
            {
                "event": "connected",
                "server": connection.key.server_name,
                "owner": connection.key.owner,
                "url": connection.server_url,
                "issuer": connection.issuer,
                "account": connection.account,
                "scope": sorted(connection.scope) if connection.scope is not None else None,
                "missing_scope": sorted(connection.missing_scope),
                "expires_at": connection.expires_at,
                "can_refresh": connection.can_refresh,
            }
        )
    else:
        columns = terminal_size(sys.stdout)[0]
        summary = connection_summary(connection, time.time(), columns, uses_machine_grant=uses_machine_grant)
        print(colour_mark(summary) if uses_colour(sys.stdout, os.environ) else summary, flush=True)
