"""Runs an exchange: each request goes out under our limits, each answer comes back as a value.

20 seconds and 1 MiB per answer; no redirect of a POST; each redirect of a GET checked again like a first
address. The caller's own HTTP client, its cookies and its headers never take part.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import zlib
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from typing import TypeVar
from urllib.parse import urljoin

import httpcore

from hermes_mcp_auth_remote.errors import (
    AnswerTooLarge,
    ConfigError,
    NetworkError,
    RedirectRefused,
    TimedOut,
    Unreachable,
    UnsafeUrl,
)
from hermes_mcp_auth_remote.http.addresses import AddressPolicy, read_networks
from hermes_mcp_auth_remote.http.guard import Guard, Resolve, resolve
from hermes_mcp_auth_remote.http.tls import proxy_for, tls_context
from hermes_mcp_auth_remote.oauth.urls import host_of, is_loopback_host, origin_of, safe_url
from hermes_mcp_auth_remote.oauth.wire import MAX_BODY_BYTES, Exchange, Request, Response
from hermes_mcp_auth_remote.values import Server

T = TypeVar("T")

ANSWER_SECONDS = 20.0
CONNECT_SECONDS = 10.0
MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


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
    resolve: Resolve = resolve,
) -> T:
    """Run an exchange to its end on behalf of one configured server, and return what it returns.

    A NetworkError is thrown into the exchange, which may go on with another request or let it through.
    """
    async with _Connections(server, environ, resolve) as connections:
        try:
            request = next(exchange)
            while True:
                try:
                    response = await connections.answer(request)
                except NetworkError as trouble:
                    request = exchange.throw(trouble)
                else:
                    request = exchange.send(response)
        except StopIteration as end:
            result: T = end.value
            return result


class _Connections(AsyncExitStack):
    """The connections of one exchange, closed with it."""

    def __init__(self, server: Server, environ: Mapping[str, str], resolve: Resolve) -> None:
        super().__init__()
        self._server = server
        self._environ = environ
        self._resolve = resolve
        self._policy = AddressPolicy(
            loopback=is_loopback_host(host_of(server.url)),
            networks=read_networks(server.options.allow_addresses),
        )
        self._pools: dict[str, httpcore.AsyncConnectionPool] = {}

    async def answer(self, request: Request) -> Response:
        """Send a request and read its answer, following what redirects may be followed."""
        url = request.url
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._timed(request, url)
            location = response.header("location")
            if response.status not in _REDIRECTS or location is None or not request.follow_redirects:
                return replace(response, body=_decoded(response, host_of(url)))
            if request.method != "GET":
                raise RedirectRefused(
                    f"{host_of(url)} redirects the {request.step} elsewhere; a POST is never redirected.",
                    "If the server moved, put its new address into the configuration.",
                )
            try:
                url = safe_url(urljoin(url, location), "address of a redirect")
            except (UnsafeUrl, ValueError):
                raise RedirectRefused(
                    f"{host_of(url)} redirects the {request.step} to an unsafe address."
                ) from None
        raise RedirectRefused(f"{host_of(url)} redirects the {request.step} in circles.")

    async def _timed(self, request: Request, url: str) -> Response:
        host = host_of(url)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                try:
                    return await self._send(request, url)
                except Unreachable:
                    # Nothing was sent yet, so once more is safe; phones and laptops wake up like this.
                    return await self._send(request, url)
        except (TimeoutError, httpcore.TimeoutException):
            raise TimedOut(f"{host} did not answer the {request.step} in time.") from None
        except httpcore.ProxyError:
            raise Unreachable(f"The proxy did not let the {request.step} through to {host}.") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise _trouble(error, host, request.step) from None

    async def _send(self, request: Request, url: str) -> Response:
        pool = await self._pool(url)
        headers = [
            ("user-agent", self._server.options.user_agent or user_agent()),
            ("accept-encoding", "identity"),
            *request.headers,
        ]
        timeout = {"connect": CONNECT_SECONDS, "read": ANSWER_SECONDS, "write": ANSWER_SECONDS}
        async with pool.stream(
            request.method,
            url,
            headers=headers,
            content=request.body or None,
            extensions={"timeout": timeout},
        ) as answer:
            answered = tuple((k.decode("latin-1").lower(), v.decode("latin-1")) for k, v in answer.headers)
            body = b""
            # An event stream has no end to wait for, and nothing that any step reads.
            if not dict(answered).get("content-type", "").startswith("text/event-stream"):
                async for part in answer.aiter_stream():
                    body += part
                    if len(body) > MAX_BODY_BYTES:
                        raise AnswerTooLarge(
                            f"{host_of(url)} answered the {request.step} with more than 1 MiB."
                        )
            return Response(answer.status, answered, body)

    async def _pool(self, url: str) -> httpcore.AsyncConnectionPool:
        origin = origin_of(url)
        if origin not in self._pools:
            proxy = proxy_for(url, self._environ)
            host = host_of(url)
            guard = Guard(
                self._policy,
                host_of(self._server.url),
                proxy_host=proxy.url.host.decode("ascii") if proxy else None,
                resolve=self._resolve,
            )
            if proxy is not None:
                await self._check_behind_proxy(host, guard)
            pool = httpcore.AsyncConnectionPool(
                ssl_context=tls_context(
                    self._server.options, self._environ, own_host=host == host_of(self._server.url)
                ),
                proxy=proxy,
                network_backend=guard,
            )
            self._pools[origin] = await self.enter_async_context(pool)
        return self._pools[origin]

    @staticmethod
    async def _check_behind_proxy(host: str, guard: Guard) -> None:
        # The proxy resolves names for us, perhaps ones that we cannot; what we can see, we check.
        try:
            await guard.addresses(host, 443)
        except Unreachable:
            return


def _decoded(response: Response, host: str) -> bytes:
    """Undo gzip or deflate, which some servers send unasked, within the same limit."""
    encoding = (response.header("content-encoding") or "identity").strip().lower()
    if encoding == "identity" or not response.body:
        return response.body
    try:
        # 32: gzip or deflate, whichever it is; anything else fails here.
        plain = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32).decompress(response.body, MAX_BODY_BYTES + 1)
    except zlib.error:
        raise Unreachable(f"{host} sent an answer that cannot be decompressed.") from None
    if len(plain) > MAX_BODY_BYTES:
        raise AnswerTooLarge(f"{host} sent an answer that unpacks to more than 1 MiB.")
    return plain


def _trouble(error: Exception, host: str, step: str) -> NetworkError | ConfigError:
    text = str(error)
    if isinstance(error, ssl.SSLError) or "CERTIFICATE_VERIFY_FAILED" in text or "SSL" in text:
        return Unreachable(
            f"The TLS certificate of {host} was not accepted.",
            "If your network has its own certificate authority, name its file in SSL_CERT_FILE.",
        )
    return Unreachable(f"The connection to {host} broke during the {step}.")
