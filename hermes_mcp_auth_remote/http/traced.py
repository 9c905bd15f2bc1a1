"""Runs an exchange and tells of every request in it, each redirect for itself: what a person is shown."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from hermes_mcp_auth_remote.errors import AddressRefused, ConfigError, McpAuthError
from hermes_mcp_auth_remote.http.body import decoded
from hermes_mcp_auth_remote.http.client import ANSWER_SECONDS, Connections, Sending
from hermes_mcp_auth_remote.http.proxies import proxy_for
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.timeouts import LIMITS
from hermes_mcp_auth_remote.values import Server

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it went out, and what came of it after how many seconds.

    `proxy` is the host and port of the proxy that it went through, None for a direct connection.
    """

    request: Request
    outcome: Response | McpAuthError
    seconds: float
    proxy: str | None = None


Watch = Callable[[Seen], None]
"""Is told of each request once it is over."""


async def run_watched(
    exchange: Exchange[T], server: Server, watch: Watch, *, environ: Mapping[str, str] = os.environ
) -> T:
    """Run an exchange as `http.client.run` does, under the same limits, and tell `watch` of each request."""
    async with _Watched(server, environ, watch) as connections:
        return await connections.run(exchange)


def proxy_of(url: str, environ: Mapping[str, str]) -> str | None:
    """Return host and port of the proxy for a URL, without its password; None for a direct connection."""
    try:
        proxy = proxy_for(url, environ)
    except ConfigError:
        # Said where the request fails of it.
        return None
    return None if proxy is None else f"{proxy.url.host.decode('ascii')}:{proxy.url.port}"


class _Watched(Connections):
    def __init__(self, server: Server, environ: Mapping[str, str], watch: Watch) -> None:
        # A walk through everything has no limit for all requests together: each one is told of as it comes.
        unlimited = replace(LIMITS, send_seconds=math.inf, flight_seconds=math.inf)
        super().__init__(server, environ, None, ANSWER_SECONDS, unlimited)
        self._watch = watch

    async def _asked(self, request: Request, sending: Sending) -> Response:
        started = time.monotonic()
        # What else can end it is the time limit, which is set around all redirects together.
        outcome: Response | McpAuthError | None = None
        try:
            response = await super()._asked(request, sending)
            encoding = response.header("content-encoding")
            outcome = replace(response, body=decoded(response.body, encoding, host_of(request.url)))
        except McpAuthError as trouble:
            outcome = trouble
            raise
        finally:
            # What is refused for its address goes nowhere.
            is_refused = isinstance(outcome, AddressRefused)
            proxy = None if is_refused else proxy_of(request.url, self._environ)
            seconds = time.monotonic() - started
            self._watch(Seen(request, sending.timed_out() if outcome is None else outcome, seconds, proxy))
        return response
