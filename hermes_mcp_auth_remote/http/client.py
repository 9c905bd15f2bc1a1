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
    ConfigError,
    HostNotChecked,
    NetworkError,
    RedirectRefused,
    ResponseTooLarge,
    TimedOut,
    Unreachable,
    UnsafeUrl,
)
from hermes_mcp_auth_remote.exit_hold import hold_exit_for_response
from hermes_mcp_auth_remote.http.addresses import AddressPolicy, read_networks
from hermes_mcp_auth_remote.http.body import decompress_body, read_body
from hermes_mcp_auth_remote.http.framing import LimitedBackend, LimitedStream, TooMuchFraming
from hermes_mcp_auth_remote.http.log_suppression import mute_httpcore_logs
from hermes_mcp_auth_remote.http.proxies import proxy_for
from hermes_mcp_auth_remote.http.ssrf_guard import Resolver, SsrfGuard, make_caching_resolver, resolver_for
from hermes_mcp_auth_remote.http.tls import tls_context
from hermes_mcp_auth_remote.http.transport_errors import (
    SENT_REQUEST_ADVICE,
    TRANSPORT_ERRORS,
    network_error,
    timeout_error,
)
from hermes_mcp_auth_remote.http.trusted_hosts import trusted_hosts
from hermes_mcp_auth_remote.oauth.hosts import is_listed_host
from hermes_mcp_auth_remote.oauth.urls import MAX_URL_CHARS, host_of, is_loopback_host, origin_of, safe_url
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS, TimeLimits
from hermes_mcp_auth_remote.values import Secret, Server

T = TypeVar("T")

RESPONSE_SECONDS = TIME_LIMITS.response_seconds
CONNECT_SECONDS = 10.0
# A network whose names only its proxy can resolve must not use up the whole time on our own look-up.
TRUSTED_LOOKUP_SECONDS = 3.0
# A name that is refused unless we can resolve it may take longer: a second name server may have to answer.
UNTRUSTED_LOOKUP_SECONDS = 10.0
MAX_REDIRECTS = 3
# To one origin at once, which only many exchanges together reach.
MAX_CONNECTIONS = 64
# Servers close idle connections after five seconds, some sooner; a request must not cross that.
IDLE_SECONDS = 2.0
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
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


async def run_exchange(
    exchange: Exchange[T],
    server: Server,
    *,
    environ: Mapping[str, str] = os.environ,
    resolve: Resolver | None = None,
    response_seconds: float = RESPONSE_SECONDS,
    limits: TimeLimits = TIME_LIMITS,
) -> T:
    """Run an exchange to its end on behalf of one configured server, and return what it returns.

    Names are looked up by `resolve`, or by the system's resolver if it is None. A NetworkError is thrown into
    the exchange, which may go on with another request or let it through. Raises ConfigError for proxies,
    certificates and headers that cannot be used. `answer_seconds` is for one response; `limits` says how long
    a token request is read, and how long all requests last together.
    """
    async with HttpClient(server, environ, resolve, response_seconds, limits) as connections:
        return await connections.run_exchange(exchange)


class HttpClient(AsyncExitStack):
    """Connections on behalf of one server, closed with the block; each name is resolved once."""

    def __init__(
        self,
        server: Server,
        environ: Mapping[str, str],
        resolve: Resolver | None,
        response_seconds: float,
        limits: TimeLimits = TIME_LIMITS,
    ) -> None:
        super().__init__()
        self._server = server
        self._environ = environ
        self._resolve = make_caching_resolver(resolve or resolver_for(server.url))
        self._response_seconds = response_seconds
        self._limits = limits
        self._policy = AddressPolicy(
            allows_loopback=is_loopback_host(host_of(server.url)),
            allowed_networks=read_networks(server.options.allow_addresses),
        )
        self._trusted_hosts = trusted_hosts(server)
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}
        self._pools_lock = asyncio.Lock()

    async def run_exchange(self, exchange: Exchange[T]) -> T:
        """Run an exchange; several at once may share the connections. As `run` does."""
        started = asyncio.get_running_loop().time()
        try:
            request = next(exchange)
            while True:
                try:
                    response = await self.send_request(request, started)
                except NetworkError as trouble:
                    request = exchange.throw(trouble)
                else:
                    request = exchange.send(response)
        except StopIteration as end:
            result: T = end.value
            return result

    async def send_request(self, request: Request, started_at: float) -> Response:
        """Send a request and read its answer, following what redirects may be followed.

        `started` is when its exchange began, by the event loop's clock.
        """
        now = asyncio.get_running_loop().time()
        if now - started_at > self._limits.send_seconds:
            raise TimedOut(
                f"The {request.step} was not sent: what came before it took {now - started_at:.0f} s."
            )
        ends = started_at + self._limits.exchange_seconds
        sending = RequestAttempt(request, Deadline(min(self._response_seconds, ends - now)), ends)
        try:
            try:
                async with sending.deadline:
                    return await self._send_following_redirects(request, sending)
            except TimeoutError:
                raise sending.timeout_error() from None
        except NetworkError as trouble:
            sending.correct_advice(trouble)
            raise

    async def _send_following_redirects(self, request: Request, attempt: RequestAttempt) -> Response:
        for _ in range(MAX_REDIRECTS + 1):
            response, host = await self._send_with_retry(request, attempt), host_of(request.url)
            location = response.header("location")
            if response.status not in _REDIRECT_STATUSES or location is None or not request.follow_redirects:
                encoding = response.header("content-encoding")
                return replace(response, body=decompress_body(response.body, encoding, host))
            if request.method != "GET":
                raise RedirectRefused(
                    f"{host} redirects the {request.step} elsewhere; a POST is never redirected.",
                    "If the server moved, put its new address into the configuration.",
                )
            request = _redirect_request(request, location)
        raise RedirectRefused(f"{host_of(request.url)} redirects the {request.step} in circles.")

    async def _send_with_retry(self, request: Request, attempt: RequestAttempt) -> Response:
        pool = await self._pool_for(request.url)
        try:
            try:
                return await self._send_once(pool, request, attempt)
            except Unreachable:
                # There was no connection yet, so once more is safe; phones and laptops wake up like this.
                return await self._send_once(pool, request, attempt)
        except TooMuchFraming:
            host = host_of(request.url)
            raise ResponseTooLarge(
                f"{host} answered the {request.step} with too many header lines."
            ) from None
        except TRANSPORT_ERRORS as error:
            raise network_error(error, host_of(request.url), request.step) from None

    async def _send_once(
        self, pool: httpcore.AsyncConnectionPool, request: Request, attempt: RequestAttempt
    ) -> Response:
        # Reading and writing have the deadline around them alone, which polls the socket once more.
        extensions: dict[str, Any] = {"timeout": {"connect": min(CONNECT_SECONDS, self._response_seconds)}}
        if request.method == "POST":
            extensions["trace"] = attempt.trace
        with mute_httpcore_logs():
            async with pool.stream(
                request.method,
                _httpcore_url(request.url),
                headers=_encode_headers(request, self._server.options.user_agent or user_agent()),
                content=request.body or (b"" if request.method == "POST" else None),
                extensions=extensions,
            ) as answer:
                response = Response(answer.status, _read_headers(answer))
                # An event stream has no end to wait for, and nothing that any step reads.
                if (response.header("content-type") or "").lower().startswith("text/event-stream"):
                    return response
                note_event = _counter_reset_for(answer)
                note_event()
                parts = answer.aiter_stream()
                return replace(
                    response, body=await read_body(parts, host_of(request.url), request.step, note_event)
                )

    async def _pool_for(self, url: str) -> httpcore.AsyncConnectionPool:
        origin = origin_of(url)
        async with self._pools_lock:
            if origin not in self._pools:
                self._pools[origin] = await self._open_pool(url)
            return self._pools[origin]

    async def _open_pool(self, url: str) -> httpcore.AsyncConnectionPool:
        host, own_host = host_of(url), host_of(self._server.url)
        proxy = proxy_for(url, self._environ)
        guard = SsrfGuard(
            self._policy,
            own_host,
            proxy_host=proxy.url.host.decode("ascii") if proxy else None,
            resolve=self._resolve,
        )
        if proxy is not None:
            await self._check_proxied_host(guard, host, urlsplit(url).port or 443)
            if proxy.url.scheme == b"https":
                proxy.ssl_context = self._tls_context(is_server_host=False)
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._tls_context(is_server_host=host == own_host)
            if url.startswith("https:")
            else None,
            proxy=proxy,
            max_connections=MAX_CONNECTIONS,
            keepalive_expiry=IDLE_SECONDS,
            network_backend=LimitedBackend(guard),
        )
        self.push_async_callback(guard.aclose)
        return await self.enter_async_context(pool)

    async def _check_proxied_host(self, guard: SsrfGuard, host: str, port: int) -> None:
        """Check a name that the proxy will resolve; raises AddressRefused, or HostNotChecked.

        For a name that this machine does not resolve in time we cannot tell where the proxy goes. Only the
        operator can trust such a name: metadata would otherwise send our requests to inner hosts.
        """
        is_trusted = is_listed_host(host, self._trusted_hosts)
        seconds = (
            TRUSTED_LOOKUP_SECONDS
            if is_trusted
            else min(UNTRUSTED_LOOKUP_SECONDS, self._response_seconds / 2)
        )
        try:
            async with asyncio.timeout(seconds):
                is_checked = bool(await guard.resolve_allowed(host, port))
        except (Unreachable, TimeoutError):
            is_checked = False
        if not is_checked and not is_trusted:
            raise HostNotChecked(
                f"The addresses of {host} cannot be checked: this machine does not resolve its name, and the "
                "proxy would.",
                f"If you trust that host, add {host} to `oauth.allow_hosts` of this server in config.yaml.",
            )

    def _tls_context(self, *, is_server_host: bool) -> ssl.SSLContext:
        return tls_context(self._server.options, self._environ, is_server_host=is_server_host)


def _read_headers(httpcore_response: httpcore.Response) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in httpcore_response.headers
    )


def _counter_reset_for(httpcore_response: httpcore.Response) -> Callable[[], object]:
    """Return what tells the response's connection that its head, or a part of its body, was read."""
    extensions = cast("Mapping[str, object]", httpcore_response.extensions)  # pyright: ignore[reportUnknownMemberType]
    connection = extensions.get("network_stream")
    # It is another kind of stream after a 101.
    return connection.reset_counters if isinstance(connection, LimitedStream) else lambda: None


class RequestAttempt:
    """A request under way: whether its server may have got it, and until when its response is read."""

    __slots__ = ("_exchange_ends_at", "_request", "deadline", "was_sent")

    def __init__(self, request: Request, deadline: Deadline, exchange_ends_at: float) -> None:
        """`ends` is when the exchange ends at the latest, by the event loop's clock."""
        self._request = request
        self._exchange_ends_at = exchange_ends_at
        self.deadline = deadline
        self.was_sent = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Hear of each step of httpcore (its `trace` extension); a proxy's CONNECT is not the request."""
        if event != "http11.send_request_headers.started" or info["request"].method != b"POST":
            return
        if self._request.is_token_request:
            # Raises CancelledError, before anything is sent, if the process is about to end.
            hold_exit_for_response(
                host_of(self._request.url), self._exchange_ends_at - asyncio.get_running_loop().time()
            )
            self.deadline.reschedule(self._exchange_ends_at)
        self.was_sent = True

    def timeout_error(self) -> TimedOut:
        """Make the error of a deadline that has passed."""
        return timeout_error(host_of(self._request.url), self._request.step, was_sent=self.was_sent)

    def correct_advice(self, error: NetworkError) -> None:
        """Promise no longer that nothing was lost, if the server may have taken what the request spends."""
        if self.was_sent and self._request.is_token_request and error.advice == NetworkError.advice:
            error.advice = SENT_REQUEST_ADVICE


def _redirect_request(request: Request, location: str) -> Request:
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


def _encode_headers(request: Request, default_user_agent: str) -> list[tuple[bytes, bytes]]:
    """Write out a request's headers, with ours where it has none of that name; raises ConfigError."""
    given = {name.lower() for name, _ in request.headers}
    # httpcore's own Host forgets the brackets of an IPv6 address.
    ours = (
        ("host", urlsplit(request.url).netloc),
        ("user-agent", default_user_agent),
        ("accept-encoding", "identity"),
    )
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
