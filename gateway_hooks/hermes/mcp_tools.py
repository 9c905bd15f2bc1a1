"""After a login: the server's tools, live in the gateway that runs, whatever the server was before.

Measured with Hermes 0.19.0. A server that is connected takes its new token from the disk at its next request.
One without a token at the start has never been tried again; one whose token died waits, or is parked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, cast

from gateway_hooks.hermes.internals import import_attribute

log = logging.getLogger(__name__)

_MCP_TOOL_MODULE = "tools.mcp_tool"
_MISSING_CONSEQUENCE = "tools appear after /reload-mcp only"


def ensure_connected(server_name: str) -> bool:
    """Have Hermes connect a server anew where need be; True where it is connected then.

    Blocks while servers answer: to be called off the event loop.
    """
    discover = import_attribute(_MCP_TOOL_MODULE, "discover_mcp_tools", _MISSING_CONSEQUENCE)
    if discover is None:
        return False
    try:
        servers: dict[str, Any] = import_attribute(_MCP_TOOL_MODULE, "_servers", _MISSING_CONSEQUENCE) or {}
        known = servers.get(server_name)
        if known is not None and getattr(known, "session", None) is not None:
            return True
        shut_down = import_attribute(_MCP_TOOL_MODULE, "shutdown_mcp_servers", _MISSING_CONSEQUENCE)
        if known is not None and shut_down is not None:
            # The only way out of its waiting; the other servers are away for less than a second.
            shut_down()
        discover()
        return is_connected(server_name)
    except Exception as trouble:  # noqa: BLE001  Hermes's own, and what a server answered
        log.warning("Hermes could not connect %s: %s.", server_name, type(trouble).__name__)
        return False


def is_connected(server_name: str) -> bool:
    """True where Hermes says that a server is connected."""
    status = import_attribute(_MCP_TOOL_MODULE, "get_mcp_status", _MISSING_CONSEQUENCE)
    found = cast("list[dict[str, Any]]", [] if status is None else status())
    return any(each.get("name") == server_name and each.get("connected") for each in found)


def server_for_tool(tool_name: str, server_names: Iterable[str]) -> str | None:
    """Return the server, of these, that a tool of the model's belongs to; None for a tool of another kind."""
    if not tool_name.startswith("mcp__"):
        return None
    safe = import_attribute(
        _MCP_TOOL_MODULE, "sanitize_mcp_name_component", "the agent cannot ask for logins by itself"
    )
    # The longest first: one name may begin with another.
    if safe is None:
        return None
    known = sorted(server_names, key=len, reverse=True)
    return next((name for name in known if tool_name.startswith(f"mcp__{safe(name)}__")), None)
