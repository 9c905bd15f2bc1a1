"""Keeps headers out of httpcore's debug log for our own requests, and for nobody else's.

At level DEBUG httpcore writes down the headers of each answer, where codes stand in a Location and sessions
in a Set-Cookie, and a SOCKS proxy's password. An application turns that level on for reasons of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_is_muted: ContextVar[bool] = ContextVar("hermes_mcp_auth_remote_unlogged", default=False)


# A filter counts for one logger, not for those below it. Connections and TLS stay in the log: no secrets.
for _name in ("httpcore.http11", "httpcore.socks"):
    logging.getLogger(_name).addFilter(lambda _record: not _is_muted.get())


@contextmanager
def mute_httpcore_logs() -> Generator[None]:
    """Write nothing of what this task sends and receives to httpcore's log until the block ends."""
    token = _is_muted.set(True)
    try:
        yield
    finally:
        _is_muted.reset(token)
