"""What the two HTTP transports of MCP share: errors, responses, streams, and the delivery of messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol

import httpx2

from hermes_mcp_auth_remote.bridge.buffers import MessageBuffer
from hermes_mcp_auth_remote.bridge.json_rpc import MalformedMessage, Message, parse_items, read_envelope
from hermes_mcp_auth_remote.bridge.sse import Event, SseParser

JSON, EVENT_STREAM = "application/json", "text/event-stream"
# The number of bytes that the stream parser handles before other tasks run.
SLICE_BYTES = 16_384
# The end of a body that does not matter is read so long, so that the connection can be used again.
_DRAIN_SECONDS = 1.0
_DRAIN_BYTES = 65_536

Deliver = Callable[[bytes | MessageBuffer], Awaitable[None]]
"""Passes one message of the server to the client."""


class TransportError(Exception):
    """The server could not be reached, or its response is no MCP message. The text is for the client."""


class SessionLost(Exception):
    """The server no longer knows the session."""


class LegacyServer(Exception):
    """The server does not accept POST requests at its URL: it may speak HTTP+SSE (2024-11-05)."""


class Transport(Protocol):
    """Sends the client's messages to one server."""

    async def send(self, message: Message) -> None:
        """Send a message. For a request, return when its response was delivered.

        Raises TransportError, or the McpAuthError of a login or refresh.
        """
        ...

    async def open_session(self, initialize: Message, initialized: Message | None) -> None:
        """Open a session with messages whose responses the client must not get. Raises as `send` does."""
        ...

    async def close(self) -> None:
        """End the session at the server; do not wait longer than two seconds."""
        ...


class HttpConnection:
    """Sends HTTP requests to one server, and lets a connection be used again after each whole response."""

    def __init__(self, http_client: httpx2.AsyncClient) -> None:
        self._http_client = http_client
        self._drain_tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def stream(
        self, method: str, url: httpx2.URL, headers: Mapping[str, str], content: bytes | None = None
    ) -> AsyncGenerator[tuple[httpx2.Response, AsyncIterator[bytes]]]:
        """Send a request; yield the response and its body. An exception in the block breaks the connection.

        If the block ends before the body does, the rest is read in the background. The values of headers are
        the bytes of Latin-1. Raises an HTTPError of httpx2, or the McpAuthError of a login or refresh.
        """
        encoded = httpx2.Headers(headers, encoding="latin-1")
        request = self._http_client.build_request(method, url, content=content, headers=encoded)
        response = await self._http_client.send(request, stream=True)
        body = response.aiter_bytes()
        try:
            yield response, body
        except BaseException:
            await response.aclose()
            raise
        if not response.is_closed:
            task = asyncio.create_task(_drain(response, body))
            self._drain_tasks.add(task)
            task.add_done_callback(self._drain_tasks.discard)

    async def close(self) -> None:
        """Stop reading in the background."""
        for task in self._drain_tasks:
            task.cancel()
        await asyncio.gather(*self._drain_tasks, return_exceptions=True)


async def _drain(response: httpx2.Response, body: AsyncIterator[bytes]) -> None:
    """Read the rest of a body that does not matter, within limits."""
    size = 0
    try:
        with contextlib.suppress(TimeoutError, httpx2.HTTPError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for chunk in body:
                    size += len(chunk)
                    if size > _DRAIN_BYTES:
                        break
    finally:
        await response.aclose()


def media_type(response: httpx2.Response) -> str:
    """Return the media type of a response in lower case, without parameters; empty if it has none."""
    content_type: str = response.headers.get("content-type", "")
    return content_type.partition(";")[0].strip().lower()


async def read_events(
    body: AsyncIterator[bytes], parser: SseParser, handle: Callable[[Event], Awaitable[bool]]
) -> bool:
    """Pass each event of a stream to `handle`. Return True when `handle` does, False at the stream's end."""
    async for chunk in body:
        # A compressed body may expand to a chunk of any size.
        for start in range(0, len(chunk), SLICE_BYTES):
            for event in parser.feed(chunk[start : start + SLICE_BYTES]):
                if await handle(event):
                    return True
            if start:
                await asyncio.sleep(0)
    return False


async def deliver_text(
    buffer: MessageBuffer, deliver: Deliver, inspect: Callable[[Message], Message] | None = None
) -> list[Message]:
    """Deliver the message or batch in a buffer, and close the buffer.

    `inspect` returns the message that the client gets in place of one of the server's. Return what the
    client gets. Of a message that is too large to parse, return the kind and the id, or nothing if they
    cannot be read. Of a batch, malformed messages are left out. Raises MalformedMessage if no message is
    left.
    """
    with buffer:
        if not buffer.is_small:
            envelope = read_envelope(*buffer.read_ends())
            await deliver(buffer)
            return [] if envelope is None else [envelope]
        items = parse_items(buffer.read_all())
    messages = [item for item in items if isinstance(item, Message)]
    if not messages and isinstance(items[0], MalformedMessage):
        raise items[0]
    if inspect is not None:
        messages = [inspect(message) for message in messages]
    for message in messages:
        await deliver(message.line)
    return messages


__all__ = [
    "EVENT_STREAM",
    "JSON",
    "Deliver",
    "HttpConnection",
    "LegacyServer",
    "MalformedMessage",
    "SessionLost",
    "Transport",
    "TransportError",
    "deliver_text",
    "media_type",
    "read_events",
]
