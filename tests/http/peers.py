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
class Heard:
    """One request as the server received it. Header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


Answer = Callable[[Heard, asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Peer:
    """A running server, the requests that it received, and the number of its connections."""

    port: int
    heard: list[Heard] = field(default_factory=list[Heard])
    connections: int = 0
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def serving(
    answer: Answer | None = None, *, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncGenerator[Peer]:
    """Serve until the block ends. Without a `handler`, accept connections and never respond."""
    peer = Peer(0)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (heard := await read_request(reader)) is not None:
            peer.heard.append(heard)
            peer.asked.set()
            if answer is None:
                await reader.read()
                return
            await answer(heard, writer)
            await writer.drain()

    async with _listening(peer, speak, tls, host):
        yield peer


@asynccontextmanager
async def listening(said: bytes = b"") -> AsyncGenerator[Peer]:
    """Accept connections, send `greeting` at once, and read until the client disconnects."""
    peer = Peer(0)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()

    async with _listening(peer, speak, None, "127.0.0.1"):
        yield peer


@asynccontextmanager
async def proxying(
    to: Peer, *, password: str | None = None, tls: ssl.SSLContext | None = None, status: int = 200
) -> AsyncGenerator[Peer]:
    """Run a forward proxy that connects every CONNECT to one peer. `password` is "user:password"."""
    peer = Peer(0)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard = await read_request(reader)
        if heard is None:
            return
        peer.heard.append(heard)
        wanted = f"Basic {b64encode((password or '').encode()).decode()}"
        if password is not None and heard.headers.get("proxy-authorization") != wanted:
            writer.write(reply(407, b"", {"proxy-authenticate": "Basic"}))
            return
        writer.write(f"HTTP/1.1 {status} Said\r\n\r\n".encode())
        if status != 200:
            return
        back, forth = await asyncio.open_connection("127.0.0.1", to.port)
        await asyncio.gather(_pump(reader, forth), _pump(back, writer))

    async with _listening(peer, speak, tls, "127.0.0.1"):
        yield peer


@asynccontextmanager
async def _listening(
    peer: Peer,
    speak: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
    tls: ssl.SSLContext | None,
    host: str,
) -> AsyncGenerator[None]:
    tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            tasks[task] = writer
        peer.connections += 1
        peer.connected.set()
        with suppress(OSError, asyncio.IncompleteReadError):
            await speak(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        peer.left.set()

    server = await asyncio.start_server(serve, host, 0, ssl=tls)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        for writer in tasks.values():
            writer.transport.abort()
        await asyncio.gather(*tasks)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()
    writer.close()


async def read_request(reader: asyncio.StreamReader) -> Heard | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *lines = head.decode("utf-8").strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Heard(method, target, headers, body)


def reply(status: int = 200, body: bytes = b"{}", headers: Mapping[str, str] | None = None) -> bytes:
    """Return a valid response as bytes."""
    said = {"content-length": str(len(body)), "content-type": "application/json", **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in said.items())
    return f"HTTP/1.1 {status} Said\r\n{lines}\r\n".encode() + body


def always(raw: bytes, *, hang_up: bool = False) -> Answer:
    """Answer every request with the same bytes. `hang_up` then closes the connection."""

    async def answer(heard: Heard, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        if hang_up:
            writer.close()

    return answer


def asking(*requests: Request) -> Exchange[list[Response]]:
    answers: dict[int, Response] = {}
    for number, request in enumerate(requests):
        answers[number] = yield request
    return list(answers.values())


async def fetch(server: Server | Peer, *requests: Request, **options: Any) -> list[Response]:
    """Send requests (default: a GET of the server's URL), by default with an empty environment."""
    configured = server if isinstance(server, Server) else Server("s", server.url("/mcp"))
    options.setdefault("environ", {})
    answers: list[Response] = await run_exchange(
        asking(*(requests or (get_json(configured.url, "step"),))), configured, **options
    )
    return answers


def leading(*answers: str | list[str], asked: list[str] | None = None) -> Resolver:
    """Return a resolver that gives one result after the other, repeats the last, and records queries."""
    left = [[each] if isinstance(each, str) else each for each in answers]

    async def resolve(host: str, port: int) -> list[Address]:
        if asked is not None:
            asked.append(host)
        texts = left.pop(0) if len(left) > 1 else left[0]
        return [ip_address(text) for text in texts]

    return resolve


def leading_by_name(**names: str | list[str]) -> Resolver:
    """Return a resolver with addresses for a few names only, written with `_` for a dot."""
    known = {name.replace("_", "."): [v] if isinstance(v, str) else v for name, v in names.items()}

    async def resolve(host: str, port: int) -> list[Address]:
        if host not in known:
            raise OSError(-2, "Name or service not known")
        return [ip_address(text) for text in known[host]]

    return resolve


def configured(url: str, **options: Any) -> Server:
    """Return a server whose options allow addresses on loopback, like an intranet."""
    return Server("s", url, ServerOptions(**{"allow_addresses": LOOPBACK, **options}))
