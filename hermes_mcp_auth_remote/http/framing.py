"""Limits for what surrounds a body: informational responses, header lines, chunk sizes, trailers.

httpcore reads any number of 1xx responses, and parses all that one read brought before another task runs. So
reads are short here, and the lines and bytes between two events of a response (its head, a part of its body)
are counted.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

# Parsing this much takes some 20 ms at worst (chunks or 1xx responses of a few bytes).
MAX_READ_BYTES = 4096
# Between two events. A large honest head has a hundred lines, and h11 refuses one of more than 100 KiB.
MAX_FRAMING_LINES = 500
MAX_FRAMING_BYTES = 262_144


class TooMuchFraming(Exception):
    """A server sends lines and lines, and neither a response nor a part of its body."""


class LimitedStream(httpcore.AsyncNetworkStream):
    """A connection whose reads are short, and limited between two events; raises TooMuchFraming."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self.reset_counters()

    def reset_counters(self) -> None:
        """Begin to count anew: the head was read, or a part of the body."""
        self._line_count = self._byte_count = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  httpcore's
        """Read at most 4 KiB; other tasks run first."""
        # All that was read since the last event was framing, or there would have been another one.
        if self._line_count > MAX_FRAMING_LINES or self._byte_count > MAX_FRAMING_BYTES:
            raise TooMuchFraming
        # What TLS has decrypted already is returned at once.
        await asyncio.sleep(0)
        data = await self._inner.read(min(max_bytes, MAX_READ_BYTES), timeout)
        self._line_count += data.count(b"\n")
        self._byte_count += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  httpcore's
        """Write a part of a request, whose response is counted on its own."""
        self.reset_counters()
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's own signature
    ) -> httpcore.AsyncNetworkStream:
        """Return the connection under TLS, limited as well."""
        return LimitedStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401  httpcore's own signature
        """Return what the connection says of itself."""
        return self._inner.get_extra_info(info)


class LimitedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections through another backend, each of them limited."""

    def __init__(self, inner: httpcore.AsyncNetworkBackend) -> None:
        self._inner = inner

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  httpcore's own signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect as the inner backend does."""
        return LimitedStream(
            await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        )
