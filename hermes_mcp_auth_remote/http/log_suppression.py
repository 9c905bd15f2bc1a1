"""Keep the headers of this package's requests out of httpcore's debug log; other requests are not affected.

At level DEBUG, httpcore logs the headers of each response (Location may contain codes, Set-Cookie sessions)
and the password of a SOCKS proxy. An application may set this level for its own requests.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_is_muted: ContextVar[bool] = ContextVar("hermes_mcp_auth_remote_unlogged", default=False)


# A filter applies to one logger, not to its children. The log of connections and TLS contains no secrets.
for _name in ("httpcore.http11", "httpcore.socks"):
    logging.getLogger(_name).addFilter(lambda _record: not _is_muted.get())


@contextmanager
def mute_httpcore_logs() -> Generator[None]:
    """Suppress httpcore's log of this task's requests and responses until the block ends."""
    token = _is_muted.set(True)
    try:
        yield
    finally:
        _is_muted.reset(token)
