"""A fake of the system's resolver: some names have addresses; look-ups of all other names hang."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from hermes_mcp_auth_remote.http.addresses import parse_ip_literal


class FakeDns:
    """Replaces `socket.getaddrinfo`.

    A look-up of a host that is neither in `addresses` nor in `missing_hosts` hangs until `release`.
    """

    def __init__(self, **addresses: str) -> None:
        """Map host names to addresses. In a host name, write `_` for a dot."""
        self.addresses = {name.replace("_", "."): address for name, address in addresses.items()}
        self.missing_hosts: set[str] = set()
        self.queries: list[str] = []
        self._released: dict[str, threading.Event] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)

    def getaddrinfo(self, host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        if parse_ip_literal(host) is not None:
            # The HTTP clients of the tests look up literal addresses.
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]
        with self._changed:
            self.queries.append(host)
            released = self._released.setdefault(host, threading.Event())
            self._changed.notify_all()
        if host not in self.addresses:
            if host not in self.missing_hosts:
                released.wait(60)
            if host not in self.addresses:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (self.addresses[host], port))]

    def release(self, host: str, address: str | None = None) -> None:
        """End every hanging look-up of a host, with an address or with an error."""
        with self._lock:
            if address is not None:
                self.addresses[host] = address
            released = self._released.setdefault(host, threading.Event())
        released.set()

    def wait_for_queries(self, count: int) -> None:
        """Wait until this many look-ups were started."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.queries) >= count, 20)

    def release_all(self) -> None:
        for host in list(self._released):
            self.release(host)


@contextmanager
def patch_dns(**addresses: str) -> Iterator[FakeDns]:
    """Replace the system's resolver until the block ends."""
    fake_dns = FakeDns(**addresses)
    with patch("socket.getaddrinfo", fake_dns.getaddrinfo):
        try:
            yield fake_dns
        finally:
            fake_dns.release_all()
