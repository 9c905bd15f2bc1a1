"""The listener for the redirect on this machine. RFC 8252 §7.3 and §8.3.

It answers on loopback only, to a GET of one exact path with its own name in the Host header, and hands each
such URL on as the hostile text it is. Whatever else comes in is answered and forgotten: nothing but `close`
ends the listening. The URLs hold codes, so that none is logged, kept or put into an error.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import h11

from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, NetworkError
from hermes_mcp_auth_remote.terminal.page import HEADERS, Page, render_page
from hermes_mcp_auth_remote.traceback_redaction import hide_locals
from hermes_mcp_auth_remote.values import Secret

RedirectHandler = Callable[[Secret], Awaitable[Page]]
"""Takes a redirect URL as it came in and returns what the browser shall show."""

# Other programs on this machine set cookies for 127.0.0.1 too, and a browser sends them all.
MAX_HEAD_BYTES = 65_536
# Small, or a whole head of any size would be there before its size is looked at.
_CHUNK_BYTES = 4096
# A browser opens a few connections ahead; more than this is somebody's noise, and the oldest gives way.
MAX_CONNECTIONS = 32
HEAD_SECONDS = 10.0
CLOSE_SECONDS = 2.0
# "localhost" may need one port free in both families.
_PORT_TRIES = 10

_REFUSAL_TEXTS = {
    400: "That request could not be understood.",
    404: "There is nothing at this address.",
    405: "This address takes a browser's redirect only.",
    431: "That request is too large.",
}


class Listener:
    """Listens for redirects until it is closed: `async with await Listener.open(…) as listener`."""

    def __init__(
        self,
        handle_redirect: RedirectHandler,
        host: str,
        path: str,
        sockets: list[socket.socket],
        head_seconds: float,
    ) -> None:
        port: int = sockets[0].getsockname()[1]
        self._port = port
        name = f"[{host}]" if ":" in host else host
        self._origin = f"{name}:{port}"
        self._allowed_hosts = {self._origin, name} if port == 80 else {self._origin}
        self._path = path
        self._handle_redirect = handle_redirect
        self._sockets = sockets
        self._servers: list[asyncio.Server] = []
        self._pending_writers: dict[asyncio.StreamWriter, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._head_seconds = head_seconds

    @classmethod
    async def open(
        cls,
        handle_redirect: RedirectHandler,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        path: str = "/callback",
        head_seconds: float = HEAD_SECONDS,
    ) -> Self:
        """Begin to listen; port 0 takes a free one.

        `host` is 127.0.0.1, ::1 or localhost (then both). `decide` is awaited once for each candidate, also
        for several at once; a McpAuthError out of it is shown as a refusal. `head_seconds` is how long a
        request may take to arrive. Raises ConfigError for another host, NetworkError for a port in use.
        """
        name = host.strip("[]")
        listener = cls(handle_redirect, name, path, _bind(name, port), head_seconds)
        for bound in listener._sockets:
            listener._servers.append(await asyncio.start_server(listener._accept, sock=bound))
        return listener

    @property
    def redirect_uri(self) -> str:
        """The redirect URI that leads here."""
        return f"http://{self._origin}{self._path}"

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._port

    async def close(self) -> None:
        """Stop listening; pages under way get two seconds to reach their browser."""
        for server in self._servers:
            server.close()
        for writer in list(self._pending_writers):
            writer.transport.abort()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._pending_writers) >= MAX_CONNECTIONS:
            next(iter(self._pending_writers)).transport.abort()
        self._pending_writers[writer] = None
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._finish_task)

    def _finish_task(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            hide_locals(error)
            task.get_loop().call_exception_handler(
                {"message": "the loopback listener failed on a request", "exception": error}
            )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        try:
            try:
                async with asyncio.timeout(self._head_seconds):
                    request = await _read_request(connection, reader)
            finally:
                self._pending_writers.pop(writer, None)
            if request is None:
                return
            status, page = (
                (request, _refusal_page(request))
                if isinstance(request, int)
                else await self._respond(request)
            )
            bodiless = isinstance(request, _Request) and request.method == b"HEAD"
            writer.write(_encode_response(connection, status, page, bodiless=bodiless))
            async with asyncio.timeout(CLOSE_SECONDS):
                await writer.drain()
                # Closing on a browser that still sends would take the page away from it.
                writer.write_eof()
                while await reader.read(_CHUNK_BYTES):
                    pass
        except (OSError, TimeoutError):
            # Slow, or gone: nobody is left to tell.
            pass
        finally:
            writer.transport.abort()

    async def _respond(self, request: _Request) -> tuple[int, Page]:
        # Another name in Host means DNS rebinding: a page elsewhere made the browser come here.
        if request.host.lower() not in self._allowed_hosts:
            return 400, _refusal_page(400)
        if request.target.reveal().partition("?")[0] != self._path:
            return 404, _refusal_page(404)
        if request.method != b"GET":
            return 405, _refusal_page(405)
        try:
            page = await self._handle_redirect(Secret(f"http://{self._origin}{request.target.reveal()}"))
        except McpAuthError as error:
            page = Page(ok=False, title="Not connected", text=f"{error} {error.advice}")
        return (200 if page.ok else 400), page


@dataclass(frozen=True, slots=True)
class _Request:
    """What a browser asks for; the target carries the code."""

    method: bytes
    target: Secret
    host: str


async def _read_request(connection: h11.Connection, reader: asyncio.StreamReader) -> _Request | int | None:
    """Read one request's head: a status where it is none, None where a connection was opened for nothing."""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                host = next((value for name, value in event.headers if name == b"host"), b"")
                target = Secret(event.target.decode("ascii", "replace"))
                return _Request(event.method, target, host.decode("ascii", "replace"))
            if event is not h11.NEED_DATA:
                return None
            connection.receive_data(await reader.read(_CHUNK_BYTES))
    except h11.RemoteProtocolError as error:
        return error.error_status_hint if error.error_status_hint in _REFUSAL_TEXTS else 400


def _encode_response(connection: h11.Connection, status: int, page: Page, *, bodiless: bool) -> bytes:
    body = render_page(page)
    headers = [*HEADERS, ("Content-Length", str(len(body))), ("Connection", "close")]
    if status == 405:
        headers.append(("Allow", "GET"))
    head = connection.send(h11.Response(status_code=status, headers=headers)) or b""
    return head if bodiless else head + (connection.send(h11.Data(data=body)) or b"")


def _refusal_page(status: int) -> Page:
    return Page(ok=False, title="Nothing to see here", text=_REFUSAL_TEXTS[status])


def _bind(host: str, port: int) -> list[socket.socket]:
    """Bind to loopback: one socket, or for localhost one in each family that this machine has."""
    # "localhost" is what a browser may resolve to either; left open, the other one could be somebody else's.
    families = {
        "127.0.0.1": [(socket.AF_INET, "127.0.0.1")],
        "::1": [(socket.AF_INET6, "::1")],
        "localhost": [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")],
    }.get(host)
    if families is None:
        raise ConfigError(
            "The listener for the redirect answers on this machine only.",
            "Set `oauth.redirect_host` to 127.0.0.1, ::1 or localhost.",
        )
    for _ in range(_PORT_TRIES):
        try:
            return _bind_all(families, port)
        except OSError as error:
            if port != 0 or error.errno != errno.EADDRINUSE:
                break
    where = f"port {port}" if port else "any port"
    raise NetworkError(
        f"The listener for the redirect cannot have {where} on {host}.",
        "Close whatever else uses it (perhaps another login), or set `oauth.redirect_port` to a free port.",
    )


def _bind_all(families: list[tuple[socket.AddressFamily, str]], port: int) -> list[socket.socket]:
    bound: list[socket.socket] = []
    try:
        for family, address in families:
            try:
                listening = socket.socket(family, socket.SOCK_STREAM)
            except OSError:
                if bound:  # a machine without IPv6
                    continue
                raise
            bound.append(listening)
            if sys.platform == "win32":
                # There, SO_REUSEADDR would let another program take the port over.
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listening.bind((address, port))
            except OSError as error:
                if len(bound) > 1 and error.errno == errno.EADDRNOTAVAIL:
                    bound.pop().close()
                    continue
                raise
            port = listening.getsockname()[1]
            listening.listen(MAX_CONNECTIONS)
    except OSError:
        for listening in bound:
            listening.close()
        raise
    return bound
