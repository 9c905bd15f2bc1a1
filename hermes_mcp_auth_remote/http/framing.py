"""Limit the bytes around a body: informational responses, header lines, chunk sizes, trailers.

httpcore accepts any number of 1xx responses. It parses all bytes of a read before another task can run.
Therefore LimitedStream keeps reads short. It also counts the lines and bytes between two events of a
response: its head, or a chunk of its body.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any

import httpcore

# Parsing this many bytes takes about 20 ms at worst (chunks or 1xx responses of a few bytes).
MAX_READ_BYTES = 4096
# Limits between two events. A large valid head has a hundred lines; h11 refuses a head above 100 KiB.
MAX_FRAMING_LINES = 500
MAX_FRAMING_BYTES = 262_144


class TooMuchFraming(Exception):
    """A server sends too many lines or bytes without a response head or a chunk of its body."""


class LimitedStream(httpcore.AsyncNetworkStream):
    """A connection that limits each read, and the lines and bytes between two events."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self.reset_counters()

    def reset_counters(self) -> None:
        """Reset the counters after an event: the head or a chunk of the body was read."""
        self._line_count = self._byte_count = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109  httpcore's
        """Read at most 4 KiB; other tasks run first."""
        # All bytes since the last event are framing: a head or a body chunk would have reset the counters.
        if self._line_count > MAX_FRAMING_LINES or self._byte_count > MAX_FRAMING_BYTES:
            raise TooMuchFraming
        # Let other tasks run: a read of bytes that TLS has already decrypted does not wait.
        await asyncio.sleep(0)
        data = await self._inner.read(min(max_bytes, MAX_READ_BYTES), timeout)
        self._line_count += data.count(b"\n")
        self._byte_count += len(data)
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109  httpcore's
        """Write a part of a request and reset the counters for its response."""
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
        """Upgrade the connection to TLS; the same limits apply."""
        return LimitedStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:  # noqa: ANN401  httpcore's own signature
        """Return a property of the connection, such as its socket."""
        return self._inner.get_extra_info(info)


class LimitedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections through another backend and limits each of them."""

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
