"""Listen for the redirect on a loopback address. RFC 8252 §7.3 and §8.3.

The listener accepts a GET of one exact path with its own host name in the Host header. It passes each such
URL to the handler as untrusted text. It responds to every other request with an error page. Only `close`
stops the listener. The URLs contain codes: the listener never logs them, stores them or puts them into an
error.
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
from hermes_mcp_auth_remote.terminal.loopback_page import HEADERS, Page, render_page
from hermes_mcp_auth_remote.traceback_redaction import hide_locals
from hermes_mcp_auth_remote.values import Secret

RedirectHandler = Callable[[Secret], Awaitable[Page]]
"""Takes an untrusted redirect URL and returns the page for the browser."""

# Large, because other programs on this machine set cookies for 127.0.0.1 and a browser sends all of them.
MAX_HEAD_BYTES = 65_536
# Small, so that the listener checks the size of a head before it has read all of it.
_CHUNK_BYTES = 4096
# A browser opens a few connections in advance. At the first limit, the listener looks at the oldest
# connection that has sent no request, and aborts it if it is older than IDLE_SECONDS. A younger one may still
# bring the redirect. At the second limit, it aborts the oldest one in any case, because the process has few
# file descriptors. A browser sends its request at once, so its connection does not become the oldest.
MAX_CONNECTIONS, HARD_MAX_CONNECTIONS = 32, 256
IDLE_SECONDS = 1.0
HEAD_SECONDS = 10.0
CLOSE_SECONDS = 2.0
# For "localhost" the same port must be free in both address families.
_PORT_TRIES = 10

_REFUSAL_TEXTS = {
    400: "That request could not be understood.",
    404: "There is no page at this address.",
    405: "This address accepts only a browser's redirect.",
    431: "That request is too large.",
}


class Listener:
    """Listens for redirects until `close`: `async with await Listener.open(…) as listener`."""

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
        # Connections without a whole request, the oldest first, with the time at which each one opened.
        self._pending_writers: dict[asyncio.StreamWriter, float] = {}
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
        """Start to listen. Port 0 selects a free port.

        `host` is 127.0.0.1, ::1 or localhost (which binds both). The listener awaits `handle_redirect` once
        per redirect, concurrently if several arrive; if the handler raises McpAuthError, the browser gets an
        error page. `head_seconds` limits the time in which the request head must arrive. Raises ConfigError
        for another host, NetworkError if the port is in use.
        """
        name = host.strip("[]")
        listener = cls(handle_redirect, name, path, _bind(name, port), head_seconds)
        try:
            for bound_socket in listener._sockets:
                server = await asyncio.start_server(listener._accept, sock=bound_socket, start_serving=False)
                listener._servers.append(server)
                # The caller may be cancelled here, when the port is already in use.
                await server.start_serving()
        except BaseException:
            await listener.close()
            for bound_socket in listener._sockets:
                bound_socket.close()
            raise
        return listener

    @property
    def redirect_uri(self) -> str:
        """The redirect URI of this listener."""
        return f"http://{self._origin}{self._path}"

    @property
    def port(self) -> int:
        """The port of this listener."""
        return self._port

    async def close(self) -> None:
        """Stop listening. Pages that are being sent get two seconds to reach the browser."""
        for server in self._servers:
            server.close()
        for writer in list(self._pending_writers):
            writer.transport.abort()
        if self._tasks:
            _, unfinished = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            for task in unfinished:
                task.cancel()
            await asyncio.gather(*unfinished, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        now = asyncio.get_running_loop().time()
        while (count := len(self._pending_writers)) >= MAX_CONNECTIONS:
            oldest, opened_at = next(iter(self._pending_writers.items()))
            if now - opened_at < IDLE_SECONDS and count < HARD_MAX_CONNECTIONS:
                break
            del self._pending_writers[oldest]
            oldest.transport.abort()
        self._pending_writers[writer] = now
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
            omit_body = isinstance(request, _Request) and request.method == b"HEAD"
            writer.write(_encode_response(connection, status, page, omit_body=omit_body))
            async with asyncio.timeout(CLOSE_SECONDS):
                await writer.drain()
                # Read until the browser stops sending: an earlier close would discard the page.
                writer.write_eof()
                while await reader.read(_CHUNK_BYTES):
                    pass
        except (OSError, TimeoutError):
            # The browser is too slow or has disconnected, so no page can reach it.
            pass
        finally:
            writer.transport.abort()

    async def _respond(self, request: _Request) -> tuple[int, Page]:
        # Another name in Host means DNS rebinding: a foreign page made the browser send this request.
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
    """A browser's request. The target contains the code."""

    method: bytes
    target: Secret
    host: str


async def _read_request(connection: h11.Connection, reader: asyncio.StreamReader) -> _Request | int | None:
    """Read the head of one request.

    Return an HTTP status if the request is malformed, None if the connection closed without a request.
    """
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


def _encode_response(connection: h11.Connection, status: int, page: Page, *, omit_body: bool) -> bytes:
    body = render_page(page)
    headers = [*HEADERS, ("Content-Length", str(len(body))), ("Connection", "close")]
    if status == 405:
        headers.append(("Allow", "GET"))
    head = connection.send(h11.Response(status_code=status, headers=headers)) or b""
    return head if omit_body else head + (connection.send(h11.Data(data=body)) or b"")


def _refusal_page(status: int) -> Page:
    return Page(ok=False, title="This request was refused", text=_REFUSAL_TEXTS[status])


def _bind(host: str, port: int) -> list[socket.socket]:
    """Bind to loopback: one socket, or for localhost one in each address family of this machine."""
    # A browser may resolve "localhost" to either address. Bind both, so that no other program can bind one.
    families = {
        "127.0.0.1": [(socket.AF_INET, "127.0.0.1")],
        "::1": [(socket.AF_INET6, "::1")],
        "localhost": [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")],
    }.get(host)
    if families is None:
        raise ConfigError(
            "The listener for the redirect accepts only a loopback host.",
            "Set `oauth.redirect_host` to 127.0.0.1, ::1 or localhost.",
        )
    for _ in range(_PORT_TRIES):
        try:
            return _bind_all(families, port)
        except OSError as error:
            if port != 0 or error.errno != errno.EADDRINUSE:
                break
    port_text = f"port {port}" if port else "any port"
    raise NetworkError(
        f"The listener for the redirect cannot use {port_text} on {host}.",
        "Stop the program that uses it (perhaps another login), or set `oauth.redirect_port` to a free port.",
    )


def _bind_all(families: list[tuple[socket.AddressFamily, str]], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    try:
        for family, address in families:
            try:
                listening_socket = socket.socket(family, socket.SOCK_STREAM)
            except OSError:
                if sockets:  # a machine without IPv6
                    continue
                raise
            sockets.append(listening_socket)
            if sys.platform == "win32":
                # On Windows, SO_REUSEADDR would let another program take over the port.
                listening_socket.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                listening_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening_socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listening_socket.bind((address, port))
            except OSError as error:
                if len(sockets) > 1 and error.errno == errno.EADDRNOTAVAIL:
                    sockets.pop().close()
                    continue
                raise
            port = listening_socket.getsockname()[1]
            listening_socket.listen(HARD_MAX_CONNECTIONS)
    except OSError:
        for listening_socket in sockets:
            listening_socket.close()
        raise
    return sockets
