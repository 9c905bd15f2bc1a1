"""Servers on loopback that send raw HTTP, and a forward proxy, in the test's event loop."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from hermes_mcp_auth_remote.http.addresses import Address
from hermes_mcp_auth_remote.http.client import run_exchange
from hermes_mcp_auth_remote.http.ssrf_guard import Resolver
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response, get_json
from hermes_mcp_auth_remote.values import Server, ServerOptions

LOOPBACK = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as the server received it. Header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


RequestHandler = Callable[[ReceivedRequest, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Peer:
    """A running server, the requests that it received, and the number of its connections."""

    port: int
    requests: list[ReceivedRequest] = field(default_factory=list[ReceivedRequest])
    connections: int = 0
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    request_received: asyncio.Event = field(default_factory=asyncio.Event)
    disconnected: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def run_http_server(
    handler: RequestHandler | None = None, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncGenerator[Peer]:
    """Serve until the block ends. Without a `handler`, accept connections and never respond."""
    peer = Peer(0)

    async def handle_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader)) is not None:
            peer.requests.append(request)
            peer.request_received.set()
            if handler is None:
                await reader.read()
                return
            await handler(request, writer)
            await writer.drain()

    async with _run_server(peer, handle_connection, tls, host):
        yield peer


@asynccontextmanager
async def run_raw_server(greeting: bytes = b"") -> AsyncGenerator[Peer]:
    """Accept connections, send `greeting` at once, and read until the client disconnects."""
    peer = Peer(0)

    async def handle_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read()

    async with _run_server(peer, handle_connection, None, "127.0.0.1"):
        yield peer


@asynccontextmanager
async def run_proxy(
    target: Peer, *, password: str | None = None, tls: ssl.SSLContext | None = None, status: int = 200
) -> AsyncGenerator[Peer]:
    """Run a forward proxy. It connects each CONNECT to the same peer. `password` is "user:password"."""
    peer = Peer(0)

    async def handle_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        if request is None:
            return
        peer.requests.append(request)
        expected_header = f"Basic {b64encode((password or '').encode()).decode()}"
        if password is not None and request.headers.get("proxy-authorization") != expected_header:
            writer.write(encode_response(407, b"", {"proxy-authenticate": "Basic"}))
            return
        writer.write(f"HTTP/1.1 {status} Said\r\n\r\n".encode())
        if status != 200:
            return
        target_reader, target_writer = await asyncio.open_connection("127.0.0.1", target.port)
        await asyncio.gather(_copy_stream(reader, target_writer), _copy_stream(target_reader, writer))

    async with _run_server(peer, handle_connection, tls, "127.0.0.1"):
        yield peer


@asynccontextmanager
async def _run_server(
    peer: Peer,
    handle_connection: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None,
    host: str,
) -> AsyncGenerator[None]:
    tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            tasks[task] = writer
        peer.connections += 1
        peer.connected.set()
        with suppress(OSError, asyncio.IncompleteReadError):
            await handle_connection(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        peer.disconnected.set()

    server = await asyncio.start_server(serve_connection, host, 0, ssl=tls)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        for writer in tasks.values():
            writer.transport.abort()
        await asyncio.gather(*tasks)


async def _copy_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    writer.close()


async def read_request(reader: asyncio.StreamReader) -> ReceivedRequest | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    request_line, *lines = head.decode("utf-8").strip().split("\r\n")
    method, target, _ = request_line.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return ReceivedRequest(method, target, headers, body)


def encode_response(
    status: int = 200, body: bytes = b"{}", headers: Mapping[str, str] | None = None
) -> bytes:
    """Return a valid response as bytes."""
    merged_headers = {"content-length": str(len(body)), "content-type": "application/json", **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in merged_headers.items())
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + body


def respond_with(raw: bytes, *, hang_up: bool = False) -> RequestHandler:
    """Answer every request with the same bytes. With `hang_up`, close the connection afterwards."""

    async def handle(request: ReceivedRequest, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if hang_up:
            writer.close()

    return handle


def send_requests(*requests: Request) -> Exchange[list[Response]]:
    responses: dict[int, Response] = {}
    for number, request in enumerate(requests):
        responses[number] = yield request
    return list(responses.values())


async def fetch(server: Server | Peer, *requests: Request, **options: Any) -> list[Response]:
    """Send requests. The default is a GET of the server's URL, with an empty environment."""
    target_server = server if isinstance(server, Server) else Server("s", server.url("/mcp"))
    options.setdefault("environ", {})
    responses: list[Response] = await run_exchange(
        send_requests(*(requests or (get_json(target_server.url, "step"),))), target_server, **options
    )
    return responses


def make_sequence_resolver(*results: str | list[str], queries: list[str] | None = None) -> Resolver:
    """Return a resolver that gives one result after the other (then the last again) and records queries."""
    remaining = [[result] if isinstance(result, str) else result for result in results]

    async def resolve(host: str, port: int) -> list[Address]:
        if queries is not None:
            queries.append(host)
        addresses = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        return [ip_address(text) for text in addresses]

    return resolve


def make_table_resolver(**names: str | list[str]) -> Resolver:
    """Return a resolver with addresses for only these names. In a name, write `_` for a dot."""
    table = {name.replace("_", "."): [v] if isinstance(v, str) else v for name, v in names.items()}

    async def resolve(host: str, port: int) -> list[Address]:
        if host not in table:
            raise OSError(-2, "Name or service not known")
        return [ip_address(text) for text in table[host]]

    return resolve


def make_server(url: str, **options: Any) -> Server:
    """Return a server whose options allow addresses on loopback, as for an intranet."""
    return Server("s", url, ServerOptions(**{"allow_addresses": LOOPBACK, **options}))
