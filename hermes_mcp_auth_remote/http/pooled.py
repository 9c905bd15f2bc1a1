"""Connections that outlive an exchange, for whoever asks the same servers again and again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from hermes_mcp_auth_remote.http.client import HttpClient
from hermes_mcp_auth_remote.http.ssrf_guard import Resolver
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS, TimeLimits
from hermes_mcp_auth_remote.values import Server

T = TypeVar("T")

# Then names are looked up anew, and certificates and proxies read.
CLIENT_LIFETIME_SECONDS = 60.0


@dataclass(slots=True)
class _PooledClient:
    server: Server
    http_client: HttpClient
    expires_at: float
    active_exchanges: int = 0


class HttpClientPool:
    """Runs exchanges as `http.client.run` does, under the same limits; for one event loop."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str] = os.environ,
        resolve: Resolver | None = None,
        limits: TimeLimits = TIME_LIMITS,
    ) -> None:
        self._limits = limits
        self._environ = environ
        self._resolve = resolve
        self._clients: dict[tuple[str, str], _PooledClient] = {}

    async def __call__(self, exchange: Exchange[T], server: Server) -> T:
        """Run an exchange to its end on behalf of a server, and return what it returns."""
        place = await self._get_or_create_client(server)
        place.active_exchanges += 1
        try:
            return await place.http_client.run_exchange(exchange)
        finally:
            place.active_exchanges -= 1
            if place is not self._clients.get((server.name, server.url)):
                await self._close_if_idle(place)

    async def aclose(self) -> None:
        """Close all connections that are not in use; those that are, close after use."""
        places, self._clients = list(self._clients.values()), {}
        for place in places:
            await self._close_if_idle(place)

    async def _get_or_create_client(self, server: Server) -> _PooledClient:
        key, now = (server.name, server.url), asyncio.get_running_loop().time()
        known = self._clients.get(key)
        if known is not None and known.expires_at > now and known.server == server:
            return known
        connections = HttpClient(
            server, self._environ, self._resolve, self._limits.response_seconds, self._limits
        )
        place = self._clients[key] = _PooledClient(server, connections, now + CLIENT_LIFETIME_SECONDS)
        if known is not None:
            await self._close_if_idle(known)
        return place

    async def _close_if_idle(self, pooled_client: _PooledClient) -> None:
        if not pooled_client.active_exchanges:
            await pooled_client.http_client.aclose()
