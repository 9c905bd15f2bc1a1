"""Limit the body of a 401 or 403 response to 64 KiB and two seconds.

An unread body holds its connection, so the flow must read it before it waits for a token. A hostile body may
never end. The part that was read replaces `response.stream`, so the caller reads exactly that part.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Generator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock, Timer
from typing import Any, Protocol

# Decode in small chunks: brotli and zstd expand a few bytes to megabytes, and the libraries have no limit.
_DECODE_CHUNK_BYTES = 16
# The number of chunks that a task reads before it lets other tasks run.
_CHUNKS_PER_TURN = 64


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The limits of a body: bytes (also after decompression), seconds, and chunks that httpx yields.

    `max_chunks` limits a body that arrives in one-byte chunks: each chunk costs CPU time, whatever its size.
    """

    max_bytes: int = 65_536
    timeout_seconds: float = 2.0
    max_chunks: int = 2048


BODY_LIMITS = BodyLimits()


class Headers(Protocol):
    """The headers of a response."""

    def get_list(self, key: str, /) -> list[str]:
        """Return all values of a header."""
        ...

    def pop(self, key: str, default: str | None, /) -> str | None:
        """Remove a header."""
        ...


class StreamedResponse(Protocol):
    """The interface of an httpx or httpx2 response that this module uses."""

    stream: Any

    @property
    def status_code(self) -> int:
        """The HTTP status code."""
        ...

    @property
    def headers(self) -> Headers:
        """The headers."""
        ...

    @property
    def extensions(self) -> MutableMapping[str, Any]:
        """The transport's extensions, such as its network stream."""
        ...

    @property
    def is_stream_consumed(self) -> bool:
        """True if the body has been read."""
        ...

    @property
    def is_closed(self) -> bool:
        """True if the response is closed, so that its body cannot be read."""
        ...


class _PartialBody:
    """The part of a body that has been read."""

    def __init__(self, limits: BodyLimits) -> None:
        self.raw = bytearray()
        self.is_complete = False
        self._limits = limits
        self._chunk_count = 0
        self._deadline = time.monotonic() + limits.timeout_seconds

    def add_chunk(self, chunk: bytes) -> bool:
        """Append a chunk; return False if a limit is reached."""
        self.raw += chunk
        self._chunk_count += 1
        return (
            len(self.raw) <= self._limits.max_bytes
            and self._chunk_count < self._limits.max_chunks
            and time.monotonic() < self._deadline
        )

    @property
    def should_yield(self) -> bool:
        """True if other tasks should run before the next chunk."""
        return self._chunk_count % _CHUNKS_PER_TURN == 0


async def limit_body(response: StreamedResponse) -> None:
    """Read a response's body within BODY_LIMITS and replace `response.stream` with it.

    A body that exceeds the limits is cut, and its connection closed. If the connection breaks, the part that
    was read is kept: it may contain the server's error.
    """
    # Import asyncio late: it loads more slowly than the rest of `auth`. A running event loop has loaded it.
    import asyncio  # noqa: PLC0415

    if response.is_stream_consumed or response.is_closed:
        return
    limits, stream = BODY_LIMITS, response.stream
    partial_body = _PartialBody(limits)
    try:
        # Any exception ends the read: TimeoutError, or an error of httpx or httpx2 (not imported here).
        with suppress(Exception):
            async with asyncio.timeout(limits.timeout_seconds):
                async for chunk in stream:
                    if not partial_body.add_chunk(chunk):
                        break
                    if partial_body.should_yield:
                        await asyncio.sleep(0)
                else:
                    partial_body.is_complete = True
    finally:
        await stream.aclose()
    _replace_stream(response, stream, partial_body, limits)


def limit_body_blocking(response: StreamedResponse) -> None:
    """Do what `limit_body` does, for a synchronous client.

    On HTTP/1.1, a timer shuts down the socket at the time limit, which ends a blocked read. On HTTP/2 other
    requests share the socket, and some transports have no socket. In both cases, the time is checked only
    between two chunks, so the call can exceed the limit by the client's read timeout.
    """
    if response.is_stream_consumed or response.is_closed:
        return
    limits, stream = BODY_LIMITS, response.stream
    partial_body = _PartialBody(limits)
    try:
        with suppress(Exception), _shut_down_after(limits.timeout_seconds, response.extensions):
            for chunk in stream:
                if not partial_body.add_chunk(chunk):
                    break
            else:
                partial_body.is_complete = True
    finally:
        stream.close()
    _replace_stream(response, stream, partial_body, limits)


@contextmanager
def _shut_down_after(timeout_seconds: float, extensions: Mapping[str, Any]) -> Generator[None]:
    """Shut down a response's own socket after `timeout_seconds`, unless the block ends first."""
    connection = _own_socket(extensions)
    if connection is None:
        yield
        return
    # The lock ensures that a connection which has returned to the pool is never shut down.
    lock, is_over = Lock(), False

    def shut_down() -> None:
        with lock:
            if not is_over:
                # Do not call SSLSocket.shutdown: it also removes the TLS layer while the reader uses it.
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = Timer(timeout_seconds, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            is_over = True
        timer.cancel()


def _own_socket(extensions: Mapping[str, Any]) -> socket.socket | None:
    if not extensions.get("http_version", b"").startswith(b"HTTP/1"):
        return None
    network_stream = extensions.get("network_stream")
    connection = None if network_stream is None else network_stream.get_extra_info("socket")
    return connection if isinstance(connection, socket.socket) else None


def _replace_stream(
    response: StreamedResponse, stream: object, partial_body: _PartialBody, limits: BodyLimits
) -> None:
    body, is_complete = bytes(partial_body.raw[: limits.max_bytes]), partial_body.is_complete
    codings = [c.strip() for line in response.headers.get_list("content-encoding") for c in line.split(",")]
    if len(codings) == 1:
        decoded, is_decoded = _decode_body(response, codings[0], body, limits)
        if not (is_complete and is_decoded):
            body, is_complete = decoded, False
    elif codings:
        # Nested codings multiply the size of a decompression bomb, so leave these bytes encoded.
        is_complete = False
    if not is_complete:
        # These headers describe the original body.
        for name in ("content-encoding", "content-length"):
            response.headers.pop(name, None)
    elapsed = getattr(stream, "elapsed", None)
    # A stream that the libraries make from bytes serves synchronous and asynchronous readers.
    response.stream = _response_like(response, {}, body).stream
    if elapsed is not None:
        # httpx2 reads `elapsed` from the stream, which is replaced here.
        response.__setattr__("elapsed", elapsed)


def _decode_body(
    response: StreamedResponse, content_coding: str, body: bytes, limits: BodyLimits
) -> tuple[bytes, bool]:
    """Decompress with the library's decoder; return the part within the limit, and True if it is complete."""
    chunks = (body[start : start + _DECODE_CHUNK_BYTES] for start in range(0, len(body), _DECODE_CHUNK_BYTES))
    decoded = bytearray()
    try:
        for chunk in _response_like(response, {"content-encoding": content_coding}, chunks).iter_bytes():
            decoded += chunk
            if len(decoded) > limits.max_bytes:
                return bytes(decoded[: limits.max_bytes]), False
    except Exception:  # noqa: BLE001  the library's DecodingError; this module imports neither library
        return bytes(decoded), False
    return bytes(decoded), True


def _response_like(response: StreamedResponse, headers: Mapping[str, str], content: object) -> Any:  # noqa: ANN401
    response_class: Any = type(response)
    return response_class(response.status_code, headers=headers, content=content)
