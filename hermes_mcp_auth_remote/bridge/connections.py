"""The connections of a bridge to its server, for many requests at once.

The pool of httpx2 examines every connection at each request and at each response, and asks the system about
each idle one. 100 calls at once thus cost 10 000 questions. Here a request takes the connection that was used
last, and examines only that one.
"""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import cast

import httpx2

from hermes_mcp_auth_remote.bridge.transport import TransportError

CONNECT_SECONDS = 10.0
# Set no read timeout: a server sends nothing while a tool works, and the client decides how long to wait.
TIMEOUT = httpx2.Timeout(None, connect=CONNECT_SECONDS, write=60.0)
MAX_CONNECTIONS = 512
# The default of httpx2. Some servers close an idle connection soon after that.
IDLE_SECONDS = 5.0


def open_http_client(
    ssl_context: ssl.SSLContext,
    *,
    auth: httpx2.Auth | None,
    headers: Mapping[str, str],
    can_use_proxy: bool,
) -> httpx2.AsyncClient:
    """Return an HTTP client for requests to one server: it follows no redirect to another origin."""
    uses_proxy = can_use_proxy and any(name != "no" for name in urllib.request.getproxies())
    return httpx2.AsyncClient(
        auth=auth,
        headers=headers,
        timeout=TIMEOUT,
        # With a proxy, httpx2 chooses the connections itself.
        transport=None if uses_proxy else ConnectionStack(ssl_context, MAX_CONNECTIONS),
        limits=httpx2.Limits(max_connections=MAX_CONNECTIONS),
        verify=ssl_context,
        follow_redirects=True,
        event_hooks={"response": [_refuse_redirect]},
        trust_env=can_use_proxy,
    )


async def _refuse_redirect(response: httpx2.Response) -> None:
    """Raise TransportError for a redirect that would not carry out the request.

    After most redirects, httpx2 repeats a POST as a GET: a server may respond to that with an endless stream
    without the response. At another origin, configured headers may be secret.
    """
    if response.has_redirect_location:
        source, target = response.url, response.url.join(response.headers["location"])
        if (source.scheme, source.host, source.port) != (target.scheme, target.host, target.port):
            raise TransportError(
                "The server redirects to another host. If that is right, configure its new address."
            )
        if response.request.method == "POST" and response.status_code not in {307, 308}:
            raise TransportError(
                f"The server redirects to another address with status {response.status_code}, which drops "
                "the message. Configure the address to which it redirects: it may only add or remove a slash."
            )


class ConnectionStack(httpx2.AsyncBaseTransport):
    """Connections without a proxy. Each is a transport of httpx2 with one connection."""

    def __init__(self, ssl_context: ssl.SSLContext, max_connections: int) -> None:
        self._ssl_context = ssl_context
        self._slots = asyncio.Semaphore(max_connections)
        # With the time since when they are idle, in ascending order.
        self._idle: deque[tuple[float, httpx2.AsyncHTTPTransport]] = deque()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request when a connection is free. Raises an HTTPError of httpx2."""
        await self._slots.acquire()
        connection = self._idle.pop()[1] if self._idle else self._open()
        try:
            response = await connection.handle_async_request(request)
        except BaseException:
            await self._release(connection)
            raise
        body = cast("httpx2.AsyncByteStream", response.stream)
        response.stream = _Body(body, lambda: self._release(connection))
        return response

    async def aclose(self) -> None:
        """Close the idle connections. The others close with their responses."""
        while self._idle:
            await self._idle.pop()[1].aclose()

    async def _release(self, connection: httpx2.AsyncHTTPTransport) -> None:
        """Let another request use a connection, and close those that were idle for too long."""
        now = asyncio.get_running_loop().time()
        self._idle.append((now, connection))
        self._slots.release()
        while self._idle and self._idle[0][0] < now - IDLE_SECONDS:
            await self._idle.popleft()[1].aclose()

    def _open(self) -> httpx2.AsyncHTTPTransport:
        limits = httpx2.Limits(max_connections=1, keepalive_expiry=IDLE_SECONDS)
        return httpx2.AsyncHTTPTransport(verify=self._ssl_context, trust_env=False, limits=limits)


class _Body(httpx2.AsyncByteStream):
    """The body of a response. Its connection is free when the body is closed."""

    def __init__(self, body: httpx2.AsyncByteStream, release: Callable[[], Awaitable[None]]) -> None:
        self._body = body
        self._release = release
        self._is_closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._body.__aiter__()

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            try:
                await self._body.aclose()
            finally:
                await self._release()
