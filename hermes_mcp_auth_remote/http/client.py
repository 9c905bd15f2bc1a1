"""Run an exchange: send each of its requests within limits and return each response to it.

Each request is limited to 20 seconds and 1 MiB, redirects included. A POST is never redirected; each redirect
of a GET is checked like the first URL. The response to a token request that was sent may take 90 seconds
(`timeouts`). The application's own HTTP client, cookies and headers are never used.
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
from hermes_mcp_auth_remote.exit_delay import hold_exit_for_response
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
from hermes_mcp_auth_remote.oauth.host_names import is_listed_host
from hermes_mcp_auth_remote.oauth.urls import MAX_URL_CHARS, host_of, is_loopback_host, origin_of, safe_url
from hermes_mcp_auth_remote.oauth.wire import (
    FORM_MEDIA_TYPE,
    Exchange,
    Request,
    Response,
    configured_headers,
)
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS, TimeLimits
from hermes_mcp_auth_remote.values import Secret, Server

T = TypeVar("T")

RESPONSE_SECONDS = TIME_LIMITS.response_seconds
CONNECT_SECONDS = 10.0
# In a network in which only the proxy resolves names, the local lookup must not use up the whole time.
TRUSTED_LOOKUP_SECONDS = 3.0
# An untrusted name is refused unless it resolves. A second name server may have to answer, so wait longer.
UNTRUSTED_LOOKUP_SECONDS = 10.0
MAX_REDIRECTS = 3
# Connections to one origin. Only many parallel exchanges reach this limit.
MAX_CONNECTIONS = 64
# Servers close idle connections after five seconds, some sooner. So this client closes them even earlier.
IDLE_SECONDS = 2.0
_REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
# RFC 9110 section 5.1 and 5.5: the characters of header names and values.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")


@lru_cache(maxsize=1)
def user_agent() -> str:
    """Return the default User-Agent."""
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
    """Run an exchange to its end on behalf of one configured server, and return its result.

    `resolve` looks up names; None means the system's resolver. `response_seconds` limits one response.
    `limits` limits the response to a token request, and all requests together. A NetworkError is thrown into
    the exchange, which may yield another request or raise the error. Raises ConfigError for proxies,
    certificates and headers that cannot be used.
    """
    async with HttpClient(server, environ, resolve, response_seconds, limits) as client:
        return await client.run_exchange(exchange)


class HttpClient(AsyncExitStack):
    """Connections on behalf of one server, closed at the end of the block; each name is resolved once."""

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
            allows_loopback=is_loopback_host(host_of(server.url)) and not server.is_public_only,
            allowed_networks=read_networks(server.options.allow_addresses),
        )
        self._trusted_hosts = trusted_hosts(server)
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}
        self._pools_lock = asyncio.Lock()

    async def run_exchange(self, exchange: Exchange[T]) -> T:
        """Do what the function `run_exchange` does. Parallel exchanges may share the connections."""
        started_at = asyncio.get_running_loop().time()
        try:
            request = next(exchange)
            while True:
                try:
                    response = await self.send_request(request, started_at)
                except NetworkError as error:
                    request = exchange.throw(error)
                else:
                    request = exchange.send(response)
        except StopIteration as stop:
            result: T = stop.value
            return result

    async def send_request(self, request: Request, started_at: float) -> Response:
        """Send a request and return its response; follow redirects of a GET.

        `started_at` is the start of the exchange by the event loop's clock. Raises NetworkError, ConfigError.
        """
        now = asyncio.get_running_loop().time()
        if now - started_at > self._limits.send_seconds:
            raise TimedOut(
                f"The {request.step} was not sent: the requests before it took {now - started_at:.0f} s."
            )
        exchange_ends_at = started_at + self._limits.exchange_seconds
        deadline = Deadline(min(self._response_seconds, exchange_ends_at - now))
        attempt = RequestAttempt(request, deadline, exchange_ends_at)
        try:
            try:
                async with attempt.deadline:
                    return await self._send_following_redirects(request, attempt)
            except TimeoutError:
                raise attempt.timeout_error() from None
        except NetworkError as error:
            attempt.correct_advice(error)
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
                # No connection existed, so a retry is safe. The first attempt often fails after a wake-up.
                return await self._send_once(pool, request, attempt)
        except TooMuchFraming:
            host = host_of(request.url)
            raise ResponseTooLarge(
                f"{host} responded to the {request.step} with too many header lines."
            ) from None
        except TRANSPORT_ERRORS as error:
            raise network_error(error, host_of(request.url), request.step) from None

    async def _send_once(
        self, pool: httpcore.AsyncConnectionPool, request: Request, attempt: RequestAttempt
    ) -> Response:
        # Set no timeouts for reading and writing: the attempt's Deadline limits both. If it ends the attempt,
        # data that arrived in time is still read.
        extensions: dict[str, Any] = {"timeout": {"connect": min(CONNECT_SECONDS, self._response_seconds)}}
        if request.method == "POST":
            extensions["trace"] = attempt.trace
        with mute_httpcore_logs():
            async with pool.stream(
                request.method,
                _httpcore_url(request.url),
                headers=_encode_headers(
                    self._with_configured_headers(request), self._server.options.user_agent or user_agent()
                ),
                content=request.body or (b"" if request.method == "POST" else None),
                extensions=extensions,
            ) as httpcore_response:
                response = Response(httpcore_response.status, _read_headers(httpcore_response))
                # Do not read an event stream: it may never end, and no step needs its content.
                if (response.header("content-type") or "").lower().startswith("text/event-stream"):
                    return response
                reset_counters = _counter_reset_for(httpcore_response)
                reset_counters()
                chunks = httpcore_response.aiter_stream()
                return replace(
                    response,
                    body=await read_body(chunks, host_of(request.url), request.step, reset_counters),
                )

    def _with_configured_headers(self, request: Request) -> Request:
        """Add the operator's `headers` to a request to the server's own origin, and to no other (quirk 56).

        A firewall may admit only requests with these headers. The request's own headers take precedence. A
        form gets no `authorization`, because it contains the client's authentication (RFC 6749 section 2.3
        allows only one method).
        """
        if not self._server.headers or origin_of(request.url) != origin_of(self._server.url):
            return request
        own_names = {name.lower() for name, _ in request.headers}
        is_form = any(name == "content-type" and value == FORM_MEDIA_TYPE for name, value in request.headers)
        if is_form:
            own_names.add("authorization")
        added = tuple(
            header for header in configured_headers(self._server.headers) if header[0] not in own_names
        )
        return replace(request, headers=request.headers + added)

    async def _pool_for(self, url: str) -> httpcore.AsyncConnectionPool:
        origin = origin_of(url)
        async with self._pools_lock:
            if origin not in self._pools:
                self._pools[origin] = await self._open_pool(url)
            return self._pools[origin]

    async def _open_pool(self, url: str) -> httpcore.AsyncConnectionPool:
        host, server_host = host_of(url), host_of(self._server.url)
        proxy = proxy_for(url, self._environ)
        guard = SsrfGuard(
            self._policy,
            None if self._server.is_public_only else server_host,
            trusted_hosts=self._trusted_hosts,
            proxy_host=proxy.url.host.decode("ascii") if proxy else None,
            resolve=self._resolve,
        )
        if proxy is not None:
            await self._check_proxied_host(guard, host, urlsplit(url).port or 443)
            if proxy.url.scheme == b"https":
                proxy.ssl_context = self._tls_context(is_server_host=False)
        pool = httpcore.AsyncConnectionPool(
            ssl_context=self._tls_context(is_server_host=host == server_host)
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
        """Check a name that the proxy will resolve; raises AddressRefused or HostNotChecked.

        If this machine does not resolve the name in time, the proxy may connect to any address. Only the
        operator can trust such a name. A name from metadata could lead requests to internal hosts.
        """
        is_trusted = is_listed_host(host, self._trusted_hosts)
        lookup_seconds = (
            TRUSTED_LOOKUP_SECONDS
            if is_trusted
            else min(UNTRUSTED_LOOKUP_SECONDS, self._response_seconds / 2)
        )
        try:
            async with asyncio.timeout(lookup_seconds):
                is_checked = bool(await guard.resolve_allowed(host, port))
        except (Unreachable, TimeoutError):
            is_checked = False
        if not is_checked and not is_trusted:
            raise HostNotChecked(
                f"The addresses of {host} cannot be checked: this machine does not resolve its name. Only "
                "the proxy would resolve it.",
                f"If you trust that host, add {host} to `oauth.allow_hosts` of this server in config.yaml.",
            )

    def _tls_context(self, *, is_server_host: bool) -> ssl.SSLContext:
        return tls_context(self._server.options, self._environ, is_server_host=is_server_host)


def _read_headers(httpcore_response: httpcore.Response) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in httpcore_response.headers
    )


def _counter_reset_for(httpcore_response: httpcore.Response) -> Callable[[], object]:
    """Return the function that resets the framing counters of a response's connection."""
    extensions = cast("Mapping[str, object]", httpcore_response.extensions)  # pyright: ignore[reportUnknownMemberType]
    connection = extensions.get("network_stream")
    # After status 101, httpcore returns another type of stream.
    return connection.reset_counters if isinstance(connection, LimitedStream) else lambda: None


class RequestAttempt:
    """A request in progress: whether the server may have received it, and the deadline of its response."""

    __slots__ = ("_exchange_ends_at", "_request", "deadline", "was_sent")

    def __init__(self, request: Request, deadline: Deadline, exchange_ends_at: float) -> None:
        """Store the request and its deadline; `exchange_ends_at` is by the event loop's clock."""
        self._request = request
        self._exchange_ends_at = exchange_ends_at
        self.deadline = deadline
        self.was_sent = False

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Handle an event of httpcore's `trace` extension: record that the POST (not a CONNECT) is sent."""
        if event != "http11.send_request_headers.started" or info["request"].method != b"POST":
            return
        if self._request.is_token_request:
            # Raises CancelledError before anything is sent if the process is about to exit.
            hold_exit_for_response(
                host_of(self._request.url), self._exchange_ends_at - asyncio.get_running_loop().time()
            )
            self.deadline.reschedule(self._exchange_ends_at)
        self.was_sent = True

    def timeout_error(self) -> TimedOut:
        """Return the error for a deadline that has passed."""
        return timeout_error(host_of(self._request.url), self._request.step, was_sent=self.was_sent)

    def correct_advice(self, error: NetworkError) -> None:
        """Replace the advice if the server may have used the grant of a token request that was sent."""
        if self.was_sent and self._request.is_token_request and error.advice == NetworkError.advice:
            error.advice = SENT_REQUEST_ADVICE


def _redirect_request(request: Request, location: str) -> Request:
    host = host_of(request.url)
    try:
        # If a location is too long for a URL, it is still too long after this cut, so `safe_url` refuses it.
        url = safe_url(urljoin(request.url, location[: MAX_URL_CHARS + 1]), "address of a redirect")
    except (UnsafeUrl, ValueError):
        raise RedirectRefused(f"{host} redirects the {request.step} to an unsafe address.") from None
    if origin_of(url) == origin_of(request.url):
        return replace(request, url=url)
    # Do not send the other headers to another origin: they may contain credentials.
    return replace(request, url=url, headers=tuple(h for h in request.headers if h[0] == "accept"))


def _encode_headers(request: Request, default_user_agent: str) -> list[tuple[bytes, bytes]]:
    """Encode a request's headers, and default values for missing headers; raises ConfigError."""
    request_names = {name.lower() for name, _ in request.headers}
    # Set Host here: httpcore omits the brackets of an IPv6 address.
    defaults = (
        ("host", urlsplit(request.url).netloc),
        ("user-agent", default_user_agent),
        ("accept-encoding", "identity"),
    )
    request_headers = (
        (name, value.reveal() if isinstance(value, Secret) else value) for name, value in request.headers
    )
    headers = [*(header for header in defaults if header[0] not in request_names), *request_headers]
    for name, value in headers:
        # Check here, because an error of the HTTP library would quote the value.
        if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            raise ConfigError(
                "A configured header of this server cannot be sent.",
                "Check `headers` and `oauth.user_agent` for invalid names and line breaks.",
            )
    return [(name.encode(), value.strip().encode()) for name, value in headers]


def _httpcore_url(url: str) -> httpcore.URL:
    # Split the URL here: httpcore drops everything after a semicolon in the path.
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return httpcore.URL(scheme=parts.scheme, host=parts.hostname or "", port=parts.port, target=target)
