"""After a login: the server's tools, live in the gateway that runs, whatever the server was before.

Measured with Hermes 0.19.0. A server that is connected takes its new token from the disk at its next request.
One without a token at the start has never been tried again; one whose token died waits, or is parked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, cast

from gateway_hooks.hermes.internals import part

log = logging.getLogger(__name__)

_MODULE = "tools.mcp_tool"
_WITHOUT = "tools appear after /reload-mcp only"


def make_live(server: str) -> bool:
    """Have Hermes connect a server anew where need be; True where it is connected then.

    Blocks while servers answer: to be called off the event loop.
    """
    discover = part(_MODULE, "discover_mcp_tools", _WITHOUT)
    if discover is None:
        return False
    try:
        servers: dict[str, Any] = part(_MODULE, "_servers", _WITHOUT) or {}
        known = servers.get(server)
        if known is not None and getattr(known, "session", None) is not None:
            return True
        shut_down = part(_MODULE, "shutdown_mcp_servers", _WITHOUT)
        if known is not None and shut_down is not None:
            # The only way out of its waiting; the other servers are away for less than a second.
            shut_down()
        discover()
        return is_live(server)
    except Exception as trouble:  # noqa: BLE001  Hermes's own, and what a server answered
        log.warning("Hermes could not connect %s: %s.", server, type(trouble).__name__)
        return False


def is_live(server: str) -> bool:
    """True where Hermes says that a server is connected."""
    status = part(_MODULE, "get_mcp_status", _WITHOUT)
    found = cast("list[dict[str, Any]]", [] if status is None else status())
    return any(each.get("name") == server and each.get("connected") for each in found)


def server_of(tool: str, names: Iterable[str]) -> str | None:
    """Return the server, of these, that a tool of the model's belongs to; None for a tool of another kind."""
    if not tool.startswith("mcp__"):
        return None
    safe = part(_MODULE, "sanitize_mcp_name_component", "the agent cannot ask for logins by itself")
    # The longest first: one name may begin with another.
    if safe is None:
        return None
    known = sorted(names, key=len, reverse=True)
    return next((name for name in known if tool.startswith(f"mcp__{safe(name)}__")), None)
