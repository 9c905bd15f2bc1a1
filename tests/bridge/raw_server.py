"""An HTTP server whose handler decides each byte: responses, event streams, and connections that break.

async with serve(handler) as url: ...
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """A received request. Header names are lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def message(self) -> dict[str, Any]:
        """The JSON-RPC message of a POST."""
        message: dict[str, Any] = json.loads(self.body)
        return message

    @property
    def rpc_method(self) -> str:
        """The JSON-RPC method of a POST, else the HTTP method."""
        return str(self.message.get("method", "response")) if self.method == "POST" else self.method


class Reply:
    """Writes one response."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, keeps_connection: bool = False
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._keeps_connection = keeps_connection
        self._is_chunked = False

    async def send(
        self,
        status: int,
        body: bytes | Mapping[str, Any] = b"",
        *,
        content_type: str = "application/json",
        **headers: str,
    ) -> None:
        """Send a whole response. Underscores in the names of headers become hyphens."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._write_head(
            status, {"Content-Type": content_type, "Content-Length": str(len(content)), **headers}
        )
        self._writer.write(content)
        await self._writer.drain()

    async def result(self, request: Request, result: Mapping[str, Any], **headers: str) -> None:
        """Send a result as JSON."""
        await self.send(200, {"jsonrpc": "2.0", "id": request.message["id"], "result": result}, **headers)

    async def start_stream(self, content_type: str = "text/event-stream", **headers: str) -> None:
        """Send the head of a stream."""
        self._write_head(200, {"Content-Type": content_type, "Transfer-Encoding": "chunked", **headers})
        self._is_chunked = True
        await self._writer.drain()

    async def write(self, data: bytes) -> None:
        """Send a part of a stream."""
        self._writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await self._writer.drain()

    async def event(self, message: Mapping[str, Any] | None, event_id: str | None = None) -> None:
        """Send an event; without a message, the event has only an id."""
        lines = [] if event_id is None else [f"id: {event_id}"]
        lines.append(f"data: {json.dumps(message)}" if message is not None else "data:")
        await self.write("\n".join([*lines, "", ""]).encode())

    async def end_stream(self) -> None:
        """End a stream as HTTP demands."""
        self._writer.write(b"0\r\n\r\n")
        await self._writer.drain()

    def abort(self) -> None:
        """Break the connection."""
        self._writer.transport.abort()

    async def wait_for_disconnect(self) -> None:
        """Return when the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            await self._reader.read()

    def _write_head(self, status: int, headers: Mapping[str, str]) -> None:
        lines = [f"HTTP/1.1 {status} x", *(f"{n.replace('_', '-')}: {v}" for n, v in headers.items())]
        if not self._keeps_connection:
            lines.append("Connection: close")
        self._writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))


Handler = Callable[[Request, Reply], Awaitable[None]]


@contextlib.asynccontextmanager
async def serve(
    handler: Handler,
    port: int = 0,
    connections: list[asyncio.StreamWriter] | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> AsyncGenerator[str]:
    """Serve until the block ends; yield the URL. The end of the block breaks all connections.

    If `connections` is a list, each connection is added to it, and takes one request after the other.
    """
    tasks = set[asyncio.Task[Any]]()

    async def handle_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        if connections is not None:
            connections.append(writer)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await handler(
                    await _read_request(reader), Reply(reader, writer, keeps_connection=bool(connections))
                )
                while connections is not None:
                    await handler(await _read_request(reader), Reply(reader, writer, keeps_connection=True))
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(handle_connection, "127.0.0.1", port, limit=2**20, ssl=ssl_context)
    scheme = "http" if ssl_context is None else "https"
    try:
        yield f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(method, path, headers, body)
