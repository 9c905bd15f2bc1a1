"""Free loopback ports for tests that need the number before a server listens."""

from __future__ import annotations

import itertools
import os
import socket

# The range lies below the ephemeral ports, and each test process has its own part of it. So no other test
# takes a port between its choice and its use.
FIRST_PORT, PORTS_PER_WORKER = 20_000, 1_000
_worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
_offsets = itertools.count(os.getpid())


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now."""
    for _ in range(PORTS_PER_WORKER):
        port = FIRST_PORT + _worker * PORTS_PER_WORKER + next(_offsets) % PORTS_PER_WORKER
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("No port is free.")
