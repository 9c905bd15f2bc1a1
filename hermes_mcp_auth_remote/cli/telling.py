"""What every login ends with: who or what is connected, as text or as an event."""

from __future__ import annotations

import sys
import time

from hermes_mcp_auth_remote.cli.outcome import put
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.terminal.screen import size
from hermes_mcp_auth_remote.terminal.words import connected


def tell(connection: Connection, *, as_json: bool) -> None:
    """Say what is connected."""
    if as_json:
        put(
            {
                "event": "connected",
                "server": connection.key.server,
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
        print(connected(connection, time.time(), size(sys.stdout)[0]), flush=True)
