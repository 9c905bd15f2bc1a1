"""Runs an exchange and tells of every request in it, each redirect for itself: what a person is shown."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from hermes_mcp_auth_remote.errors import AddressRefused, ConfigError, McpAuthError
from hermes_mcp_auth_remote.http.body import decompress_body
from hermes_mcp_auth_remote.http.client import RESPONSE_SECONDS, HttpClient, RequestAttempt
from hermes_mcp_auth_remote.http.proxies import proxy_for
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from hermes_mcp_auth_remote.values import Server

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TracedRequest:
    """One request as it went out, and what came of it after how many seconds.

    `proxy` is the host and port of the proxy that it went through, None for a direct connection.
    """

    request: Request
    outcome: Response | McpAuthError
    seconds: float
    proxy: str | None = None


TraceCallback = Callable[[TracedRequest], None]
"""Is told of each request once it is over."""


async def run_traced_exchange(
    exchange: Exchange[T],
    server: Server,
    on_request: TraceCallback,
    *,
    environ: Mapping[str, str] = os.environ,
) -> T:
    """Run an exchange as `http.client.run` does, under the same limits, and tell `watch` of each request."""
    async with _TracingHttpClient(server, environ, on_request) as connections:
        return await connections.run_exchange(exchange)


def proxy_address_for(url: str, environ: Mapping[str, str]) -> str | None:
    """Return host and port of the proxy for a URL, without its password; None for a direct connection."""
    try:
        proxy = proxy_for(url, environ)
    except ConfigError:
        # Said where the request fails of it.
        return None
    return None if proxy is None else f"{proxy.url.host.decode('ascii')}:{proxy.url.port}"


class _TracingHttpClient(HttpClient):
    def __init__(self, server: Server, environ: Mapping[str, str], on_request: TraceCallback) -> None:
        # A walk through everything has no limit for all requests together: each one is told of as it comes.
        unlimited = replace(TIME_LIMITS, send_seconds=math.inf, exchange_seconds=math.inf)
        super().__init__(server, environ, None, RESPONSE_SECONDS, unlimited)
        self._on_request = on_request

    async def _send_with_retry(self, request: Request, attempt: RequestAttempt) -> Response:
        started = time.monotonic()
        # What else can end it is the time limit, which is set around all redirects together.
        outcome: Response | McpAuthError | None = None
        try:
            response = await super()._send_with_retry(request, attempt)
            encoding = response.header("content-encoding")
            outcome = replace(response, body=decompress_body(response.body, encoding, host_of(request.url)))
        except McpAuthError as trouble:
            outcome = trouble
            raise
        finally:
            # What is refused for its address goes nowhere.
            is_refused = isinstance(outcome, AddressRefused)
            proxy = None if is_refused else proxy_address_for(request.url, self._environ)
            seconds = time.monotonic() - started
            self._on_request(
                TracedRequest(
                    request, attempt.timeout_error() if outcome is None else outcome, seconds, proxy
                )
            )
        return response
