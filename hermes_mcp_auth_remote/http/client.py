"""Runs an exchange: each request goes out under our limits, each answer comes back as a value.

20 seconds and 1 MiB per request, redirects included; no redirect of a POST; each redirect of a GET checked
again like a first address. A token request that was sent is read for 90 seconds (`times`). The caller's own
HTTP client, its cookies and its headers never take part.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar, cast
from urllib.parse import urljoin, urlsplit

import httpcore

from hermes_mcp_auth_remote.deadline import Deadline
from hermes_mcp_auth_remote.errors import (
    AnswerTooLarge,
    ConfigError,
    HostNotChecked,
    NetworkError,
    RedirectRefused,
    TimedOut,
    Unreachable,
    UnsafeUrl,
)
from hermes_mcp_auth_remote.exit_hold import note_sent
from hermes_mcp_auth_remote.http.addresses import AddressPolicy, read_networks
from hermes_mcp_auth_remote.http.body import decoded, read_body
from hermes_mcp_auth_remote.http.framing import LimitedBackend, LimitedStream, TooMuchFraming
from hermes_mcp_auth_remote.http.log_suppression import unlogged
from hermes_mcp_auth_remote.http.proxies import proxy_for
from hermes_mcp_auth_remote.http.ssrf_guard import Guard, Resolve, remembering, resolver_for
from hermes_mcp_auth_remote.http.tls import tls_context
from hermes_mcp_auth_remote.http.transport_errors import SPENT, WAYS_TO_FAIL, network_error, timed_out
from hermes_mcp_auth_remote.http.trusted_hosts import trusted_hosts
from hermes_mcp_auth_remote.oauth.hosts import is_same_host
from hermes_mcp_auth_remote.oauth.urls import MAX_URL_CHARS, host_of, is_loopback_host, origin_of, safe_url
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.timeouts import LIMITS, Limits
from hermes_mcp_auth_remote.values import Secret, Server

T = TypeVar("T")

ANSWER_SECONDS = LIMITS.response_seconds
CONNECT_SECONDS = 10.0
# A network whose names only its proxy can resolve must not use up the whole time on our own look-up.
LOOK_UP_SECONDS = 3.0
# A name that is refused unless we can resolve it may take longer: a second name server may have to answer.
CHECK_SECONDS = 10.0
MAX_REDIRECTS = 3
# To one origin at once, which only many exchanges together reach.
MAX_CONNECTIONS = 64
# Servers close idle connections after five seconds, some sooner; a request must not cross that.
IDLE_SECONDS = 2.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
# RFC 9110 section 5.1 and 5.5: what a header may consist of.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


@lru_cache(maxsize=1)
def user_agent() -> str:
    """Return how we name ourselves to servers."""
    try:
        return f"hermes-mcp-auth-remote/{version('hermes-mcp-auth-remote')}"
    except PackageNotFoundError:
        return "hermes-mcp-auth-remote"


async def run(
    exchange: Exchange[T],
    server: Server,
    *,
    environ: Mapping[str, str] = os.environ,
    resolve: Resolve | None = None,
    answer_seconds: float = ANSWER_SECONDS,
    limits: Limits = LIMITS,
) -> T:
    """Run an exchange to its end on behalf of one configured server, and return what it returns.

    Names are looked up by `resolve`, or by the system's resolver if it is None. A NetworkError is thrown into
    the exchange, which may go on with another request or let it through. Raises ConfigError for proxies,
    certificates and headers that cannot be used. `answer_seconds` is for one response; `limits` says how long
    a token request is read, and how long all requests last together.
    """
    async with Connections(server, environ, resolve, answer_seconds, limits) as connections:
        return await connections.run(exchange)


class Connections(AsyncExitStack):
    """Connections on behalf of one server, closed with the block; each name is resolved once."""

    def __init__(
        self,
        server: Server,
        environ: Mapping[str, str],
        resolve: Resolve | None,
        answer_seconds: float,
        limits: Limits = LIMITS,
    ) -> None:
        super().__init__()
        self._server = server
        self._environ = environ
        self._resolve = remembering(resolve or resolver_for(server.url))
        self._answer_seconds = answer_seconds
        self._limits = limits
        self._policy = AddressPolicy(
            loopback=is_loopback_host(host_of(server.url)),
            networks=read_networks(server.options.allow_addresses),
        )
        self._trusted_hosts = trusted_hosts(server)
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}
        self._opening = asyncio.Lock()

    async def run(self, exchange: Exchange[T]) -> T:
        """Run an exchange; several at once may share the connections. As `run` does."""
        started = asyncio.get_running_loop().time()
        try:
            request = next(exchange)
            while True:
                try:
                    response = await self.answer(request, started)
                except NetworkError as trouble:
                    request = exchange.throw(trouble)
                else:
                    request = exchange.send(response)
        except StopIteration as end:
            result: T = end.value
            return result

    async def answer(self, request: Request, started: float) -> Response:
        """Send a request and read its answer, following what redirects may be followed.

        `started` is when its exchange began, by the event loop's clock.
        """
        now = asyncio.get_running_loop().time()
        if now - started > self._limits.send_seconds:
            raise TimedOut(
                f"The {request.step} was not sent: what came before it took {now - started:.0f} s."
            )
        ends = started + self._limits.flight_seconds
        sending = Sending(request, Deadline(min(self._answer_seconds, ends - now)), ends)
        try:
            try:
                async with sending.deadline:
                    return await self._followed(request, sending)
            except TimeoutError:
                raise sending.timed_out() from None
        except NetworkError as trouble:
            sending.correct(trouble)
            raise

    async def _followed(self, request: Request, sending: Sending) -> Response:
        for _ in range(MAX_REDIRECTS + 1):
            response, host = await self._asked(request, sending), host_of(request.url)
            location = response.header("location")
            if response.status not in _REDIRECTS or location is None or not request.follow_redirects:
                encoding = response.header("content-encoding")
                return replace(response, body=decoded(response.body, encoding, host))
            if request.method != "GET":
                raise RedirectRefused(
                    f"{host} redirects the {request.step} elsewhere; a POST is never redirected.",
                    "If the server moved, put its new address into the configuration.",
                )
            request = _redirected(request, location)
        raise RedirectRefused(f"{host_of(request.url)} redirects the {request.step} in circles.")

    async def _asked(self, request: Request, sending: Sending) -> Response:
        pool = await self._pool(request.url)
        try:
            try:
                return await self._sent(pool, request, sending)
            except Unreachable:
                # There was no connection yet, so once more is safe; phones and laptops wake up like this.
                return await self._sent(pool, request, sending)
        except TooMuchFraming:
            host = host_of(request.url)
            raise AnswerTooLarge(f"{host} answered the {request.step} with too many header lines.") from None
        except WAYS_TO_FAIL as error:
            raise network_error(error, host_of(request.url), request.step) from None

    async def _sent(self, pool: httpcore.AsyncConnectionPool, request: Request, sending: Sending) -> Response:
        # Reading and writing have the deadline around them alone, which polls the socket once more.
        extensions: dict[str, Any] = {"timeout": {"connect": min(CONNECT_SECONDS, self._answer_seconds)}}
        if request.method == "POST":
            extensions["trace"] = sending.trace
        with unlogged():
            async with pool.stream(
                request.method,
                _httpcore_url(request.url),
                headers=_headers(request, self._server.options.user_agent or user_agent()),
                content=request.body or (b"" if request.method == "POST" else None),
                extensions=extensions,
            ) as answer:
                response = Response(answer.status, _read_headers(answer))
                # An event stream has no end to wait for, and nothing that any step reads.
                if (response.header("content-type") or "").lower().startswith("text/event-stream"):
                    return response
                note_event = _event_noter(answer)
                note_event()
                parts = answer.aiter_stream()
                return replace(
                    response, body=await read_body(parts, host_of(request.url), request.step, note_event)
                )

    async def _pool(self, url: str) -> httpcore.AsyncConnectionPool:
        origin = origin_of(url)
        async with self._opening:
            if origin not in self._pools:
                self._pools[origin] = await self._opened(url)
            return self._pools[origin]

    async def _opened(self, url: str) -> httpcore.AsyncConnectionPool:
        host, own_host = host_of(url), host_of(self._server.url)
        proxy = proxy_for(url, self._environ)
        guard = Guard(
            self._policy,
            own_host,
            proxy_host=proxy.url.host.decode("ascii") if proxy else None,
            resolve=self._resolve,
        )
        if proxy is not None:
            await self._check_behind_proxy(guard, host, urlsplit(url).port or 443)
            if proxy.url.scheme == b"https":
                proxy.ssl_context = self._tls(own_host=False)
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._tls(own_host=host == own_host) if url.startswith("https:") else None,
            proxy=proxy,
            max_connections=MAX_CONNECTIONS,
            keepalive_expiry=IDLE_SECONDS,
            network_backend=LimitedBackend(guard),
        )
        self.push_async_callback(guard.aclose)
        return await self.enter_async_context(pool)

    async def _check_behind_proxy(self, guard: Guard, host: str, port: int) -> None:
        """Check a name that the proxy will resolve; raises AddressRefused, or HostNotChecked.

        For a name that this machine does not resolve in time we cannot tell where the proxy goes. Only the
        operator can trust such a name: metadata would otherwise send our requests to inner hosts.
        """
        is_trusted = is_same_host(host, self._trusted_hosts)
        seconds = LOOK_UP_SECONDS if is_trusted else min(CHECK_SECONDS, self._answer_seconds / 2)
        try:
            async with asyncio.timeout(seconds):
                is_checked = bool(await guard.checked(host, port))
        except (Unreachable, TimeoutError):
            is_checked = False
        if not is_checked and not is_trusted:
            raise HostNotChecked(
                f"The addresses of {host} cannot be checked: this machine does not resolve its name, and the "
                "proxy would.",
                f"If you trust that host, add {host} to `oauth.allow_hosts` of this server in config.yaml.",
            )

    def _tls(self, *, own_host: bool) -> ssl.SSLContext:
        return tls_context(self._server.options, self._environ, own_host=own_host)


def _read_headers(answer: httpcore.Response) -> tuple[tuple[str, str], ...]:
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in answer.headers)


def _event_noter(answer: httpcore.Response) -> Callable[[], object]:
    """Return what tells the response's connection that its head, or a part of its body, was read."""
    extensions = cast("Mapping[str, object]", answer.extensions)  # pyright: ignore[reportUnknownMemberType]
    connection = extensions.get("network_stream")
    # It is another kind of stream after a 101.
    return connection.note_event if isinstance(connection, LimitedStream) else lambda: None


class Sending:
    """A request under way: whether its server may have got it, and until when its response is read."""

    __slots__ = ("_ends", "_request", "deadline", "was_sent")

    def __init__(self, request: Request, deadline: Deadline, ends: float) -> None:
        """`ends` is when the exchange ends at the latest, by the event loop's clock."""
        self._request = request
        self._ends = ends
        self.deadline = deadline
        self.was_sent = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Hear of each step of httpcore (its `trace` extension); a proxy's CONNECT is not the request."""
        if event != "http11.send_request_headers.started" or info["request"].method != b"POST":
            return
        if self._request.brings_tokens:
            # Raises CancelledError, before anything is sent, if the process is about to end.
            note_sent(host_of(self._request.url), self._ends - asyncio.get_running_loop().time())
            self.deadline.move_to(self._ends)
        self.was_sent = True

    def timed_out(self) -> TimedOut:
        """Make the error of a deadline that has passed."""
        return timed_out(host_of(self._request.url), self._request.step, was_sent=self.was_sent)

    def correct(self, trouble: NetworkError) -> None:
        """Promise no longer that nothing was lost, if the server may have taken what the request spends."""
        if self.was_sent and self._request.brings_tokens and trouble.advice == NetworkError.advice:
            trouble.advice = SPENT


def _redirected(request: Request, location: str) -> Request:
    host = host_of(request.url)
    try:
        # What is cut here is still too long for a URL.
        url = safe_url(urljoin(request.url, location[: MAX_URL_CHARS + 1]), "address of a redirect")
    except (UnsafeUrl, ValueError):
        raise RedirectRefused(f"{host} redirects the {request.step} to an unsafe address.") from None
    if origin_of(url) == origin_of(request.url):
        return replace(request, url=url)
    # Whatever else was meant for one server is none of another's business.
    return replace(request, url=url, headers=tuple(h for h in request.headers if h[0] == "accept"))


def _headers(request: Request, named: str) -> list[tuple[bytes, bytes]]:
    """Write out a request's headers, with ours where it has none of that name; raises ConfigError."""
    given = {name.lower() for name, _ in request.headers}
    # httpcore's own Host forgets the brackets of an IPv6 address.
    ours = (("host", urlsplit(request.url).netloc), ("user-agent", named), ("accept-encoding", "identity"))
    own = ((name, value.reveal() if isinstance(value, Secret) else value) for name, value in request.headers)
    sent = [*(header for header in ours if header[0] not in given), *own]
    for name, value in sent:
        # Checked here, since the error of a library below would quote it.
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ConfigError(
                "A header that this server is configured with cannot be sent.",
                "Check `headers` and `oauth.user_agent` for odd names and line breaks.",
            )
    return [(name.encode(), value.strip().encode()) for name, value in sent]


def _httpcore_url(url: str) -> httpcore.URL:
    # Taken apart here: httpcore loses what follows a semicolon in the path.
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return httpcore.URL(scheme=parts.scheme, host=parts.hostname or "", port=parts.port, target=target)
