"""Load a server's tools into the running gateway after a login.

Measured with Hermes 0.19.0: if a server is connected, Hermes reads its new token from disk at the next
request. If a server had no token at startup, Hermes never retries it. If a server's token becomes invalid,
Hermes pauses or parks the connection. Hermes 0.21 also pauses after a failed connection, longer each time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from gateway_hooks.hermes import internals as hermes

log = logging.getLogger(__name__)


def ensure_connected(server_name: str, profile: str = "") -> bool:
    """Make Hermes connect a server of a profile; return whether it is connected afterwards.

    Blocks until the server responds: do not call this function on the event loop. Raises nothing.
    """
    if not hermes.has_mcp_discovery():
        return False
    try:
        with hermes.profile_scope(profile):
            session_state = hermes.mcp_session_state(server_name)
            if session_state == "open":
                return True
            if session_state == "closed":
                # Only a shutdown ends the pause. Hermes 0.19 also disconnects the other servers for a moment.
                hermes.shut_down_mcp_server(server_name)
            hermes.discover_mcp_tools(server_name)
            return is_connected(server_name)
    except Exception as error:  # noqa: BLE001  Hermes's code, and responses of servers
        log.warning("Hermes could not connect %s: %s.", server_name, type(error).__name__)
        return False


def is_connected(server_name: str) -> bool:
    """Return whether Hermes reports a server as connected."""
    return server_name in hermes.connected_mcp_servers()


def server_for_tool(tool_name: str, server_names: Iterable[str]) -> str | None:
    """Return which of these servers a tool of the model belongs to; None if the tool belongs to no server."""
    if not tool_name.startswith(hermes.MCP_TOOL_PREFIX):
        return None
    # The longest name first: one server's name may begin with another's.
    for server_name in sorted(server_names, key=len, reverse=True):
        prefix = hermes.mcp_tool_prefix(server_name)
        if prefix is not None and tool_name.startswith(prefix):
            return server_name
    return None
