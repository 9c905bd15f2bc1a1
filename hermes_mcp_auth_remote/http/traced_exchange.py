"""Run an exchange and report each of its requests, redirects included, to show them to the user."""

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
    """One request, its response or error, and its duration in seconds.

    `proxy` is the host and port of the proxy that it used, None for a direct connection.
    """

    request: Request
    outcome: Response | McpAuthError
    seconds: float
    proxy: str | None = None


TraceCallback = Callable[[TracedRequest], None]
"""Receives each request when it is over."""


async def run_traced_exchange(
    exchange: Exchange[T],
    server: Server,
    on_request: TraceCallback,
    *,
    environ: Mapping[str, str] = os.environ,
) -> T:
    """Run an exchange as `http.client.run_exchange` does and call `on_request` for each request.

    The limits of a single request are the same, but all requests together have no limit.
    """
    async with _TracingHttpClient(server, environ, on_request) as client:
        return await client.run_exchange(exchange)


def proxy_address_for(url: str, environ: Mapping[str, str]) -> str | None:
    """Return host and port of the proxy for a URL, without its password; None for a direct connection."""
    try:
        proxy = proxy_for(url, environ)
    except ConfigError:
        # The request itself reports this error.
        return None
    return None if proxy is None else f"{proxy.url.host.decode('ascii')}:{proxy.url.port}"


class _TracingHttpClient(HttpClient):
    def __init__(self, server: Server, environ: Mapping[str, str], on_request: TraceCallback) -> None:
        # A diagnostic exchange may take long: the user sees each request when it is over.
        unlimited = replace(TIME_LIMITS, send_seconds=math.inf, exchange_seconds=math.inf)
        super().__init__(server, environ, None, RESPONSE_SECONDS, unlimited)
        self._on_request = on_request

    async def _send_with_retry(self, request: Request, attempt: RequestAttempt) -> Response:
        started_at = time.monotonic()
        # `outcome` stays None if the deadline, which covers all redirects together, ends the request.
        outcome: Response | McpAuthError | None = None
        try:
            response = await super()._send_with_retry(request, attempt)
            encoding = response.header("content-encoding")
            outcome = replace(response, body=decompress_body(response.body, encoding, host_of(request.url)))
        except McpAuthError as error:
            outcome = error
            raise
        finally:
            # A request to a refused address is never sent, so it uses no proxy.
            is_refused = isinstance(outcome, AddressRefused)
            proxy = None if is_refused else proxy_address_for(request.url, self._environ)
            seconds = time.monotonic() - started_at
            self._on_request(
                TracedRequest(
                    request, attempt.timeout_error() if outcome is None else outcome, seconds, proxy
                )
            )
        return response
