"""Bound the body of a refusal (401, 403) before the flow waits for a token: 64 KiB, two seconds.

An unread body holds its connection, so the flow has to read it; a hostile body never ends. What was read
takes the place of `response.stream`: the caller's own read, streamed or not, then returns just that.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Generator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock, Timer
from typing import Any, Protocol

# Decoded in pieces: brotli and zstd make megabytes of a few bytes, and the libraries' decoders know no limit.
_DECODE_CHUNK_BYTES = 16
# What a task decodes or unpacks before others get their turn.
_CHUNKS_PER_TURN = 64


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """How much of a body is read: bytes (also decompressed), seconds, and parts as the library yields them.

    A part costs the same however short it is: a body of one-byte chunks is cut by `parts`.
    """

    max_bytes: int = 65_536
    timeout_seconds: float = 2.0
    max_chunks: int = 2048


BODY_LIMITS = BodyLimits()


class Headers(Protocol):
    """The headers of a response."""

    def get_list(self, key: str, /) -> list[str]:
        """Return each value of a header."""
        ...

    def pop(self, key: str, default: str | None, /) -> str | None:
        """Remove a header."""
        ...


class StreamedResponse(Protocol):
    """What this module needs of a response of httpx or httpx2."""

    stream: Any

    @property
    def status_code(self) -> int:
        """The status."""
        ...

    @property
    def headers(self) -> Headers:
        """The headers."""
        ...

    @property
    def extensions(self) -> MutableMapping[str, Any]:
        """What the transport tells, such as its network stream."""
        ...

    @property
    def is_stream_consumed(self) -> bool:
        """True if the body was read already."""
        ...

    @property
    def is_closed(self) -> bool:
        """True if the body cannot be read any more."""
        ...


class _PartialBody:
    """What was read of one body so far."""

    def __init__(self, limits: BodyLimits) -> None:
        self.raw = bytearray()
        self.is_complete = False
        self._limits = limits
        self._chunk_count = 0
        self._deadline = time.monotonic() + limits.timeout_seconds

    def add_chunk(self, chunk: bytes) -> bool:
        """Keep a part; False if a limit is reached."""
        self.raw += chunk
        self._chunk_count += 1
        return (
            len(self.raw) <= self._limits.max_bytes
            and self._chunk_count < self._limits.max_chunks
            and time.monotonic() < self._deadline
        )

    @property
    def should_yield(self) -> bool:
        """True if other tasks should run before the next part."""
        return self._chunk_count % _CHUNKS_PER_TURN == 0


async def limit_body(response: StreamedResponse) -> None:
    """Read a response's body within LIMITS and put it in place of `response.stream`.

    A body that exceeds them is cut there, and its connection closed. So is one that breaks off: a refusal is
    worth reading as far as it came.
    """
    # It costs more to import than the rest of `auth`, and is there once a loop runs.
    import asyncio  # noqa: PLC0415

    if response.is_stream_consumed or response.is_closed:
        return
    limits, stream = BODY_LIMITS, response.stream
    taken = _PartialBody(limits)
    try:
        # TimeoutError: cut. The rest are errors of the library, which this module does not import.
        with suppress(Exception):
            async with asyncio.timeout(limits.timeout_seconds):
                async for part in stream:
                    if not taken.add_chunk(part):
                        break
                    if taken.should_yield:
                        await asyncio.sleep(0)
                else:
                    taken.is_complete = True
    finally:
        await stream.aclose()
    _replace_stream(response, stream, taken, limits)


def limit_body_blocking(response: StreamedResponse) -> None:
    """Do what `bound_body` does, for a synchronous client.

    A blocked read of HTTP/1.1 is ended by shutting its socket down. On HTTP/2, whose socket other requests
    share, and on transports without a socket, the time is checked between two parts only: there the
    client's own read timeout adds to it.
    """
    if response.is_stream_consumed or response.is_closed:
        return
    limits, stream = BODY_LIMITS, response.stream
    taken = _PartialBody(limits)
    try:
        with suppress(Exception), _shut_down_after(limits.timeout_seconds, response.extensions):
            for part in stream:
                if not taken.add_chunk(part):
                    break
            else:
                taken.is_complete = True
    finally:
        stream.close()
    _replace_stream(response, stream, taken, limits)


@contextmanager
def _shut_down_after(timeout_seconds: float, extensions: Mapping[str, Any]) -> Generator[None]:
    """Shut a response's own connection down after so many seconds, unless the block ends first."""
    connection = _own_socket(extensions)
    if connection is None:
        yield
        return
    # Held while deciding, so that a connection which is in the pool again is never shut down.
    lock, is_over = Lock(), False

    def shut_down() -> None:
        with lock:
            if not is_over:
                # Not the method of an SSLSocket, which takes the TLS away under the reader.
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
    found = None if network_stream is None else network_stream.get_extra_info("socket")
    return found if isinstance(found, socket.socket) else None


def _replace_stream(
    response: StreamedResponse, stream: object, partial_body: _PartialBody, limits: BodyLimits
) -> None:
    body, is_whole = bytes(partial_body.raw[: limits.max_bytes]), partial_body.is_complete
    codings = [c.strip() for line in response.headers.get_list("content-encoding") for c in line.split(",")]
    if len(codings) == 1:
        decoded, is_decoded = _decode_body(response, codings[0], body, limits)
        if not (is_whole and is_decoded):
            body, is_whole = decoded, False
    elif codings:
        # One bomb inside another: they multiply, so these bytes stay as they came.
        is_whole = False
    if not is_whole:
        # They describe a body that is not there any more.
        for name in ("content-encoding", "content-length"):
            response.headers.pop(name, None)
    elapsed = getattr(stream, "elapsed", None)
    # The libraries make such a stream of bytes for synchronous and asynchronous readers alike.
    response.stream = _response_like(response, {}, body).stream
    if elapsed is not None:
        # httpx2 asks the stream for it.
        response.__setattr__("elapsed", elapsed)


def _decode_body(
    response: StreamedResponse, content_coding: str, body: bytes, limits: BodyLimits
) -> tuple[bytes, bool]:
    """Decompress with the library's own decoder; returns what fits, and True if that is all."""
    pieces = (body[start : start + _DECODE_CHUNK_BYTES] for start in range(0, len(body), _DECODE_CHUNK_BYTES))
    plain = bytearray()
    try:
        for part in _response_like(response, {"content-encoding": content_coding}, pieces).iter_bytes():
            plain += part
            if len(plain) > limits.max_bytes:
                return bytes(plain[: limits.max_bytes]), False
    except Exception:  # noqa: BLE001  the library's DecodingError; this module imports neither library
        return bytes(plain), False
    return bytes(plain), True


def _response_like(response: StreamedResponse, headers: Mapping[str, str], content: object) -> Any:  # noqa: ANN401
    make: Any = type(response)
    return make(response.status_code, headers=headers, content=content)
