"""Connections that outlive an exchange, for callers that send many requests to the same servers."""

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

# After this time, names are looked up again, and certificates and proxies are read again.
CLIENT_LIFETIME_SECONDS = 60.0


@dataclass(slots=True)
class _PooledClient:
    server: Server
    http_client: HttpClient
    expires_at: float
    active_exchanges: int = 0


class HttpClientPool:
    """Runs exchanges as `http.client.run_exchange` does, with the same limits; for one event loop."""

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
        """Run an exchange to its end on behalf of a server, and return its result."""
        pooled_client = await self._get_or_create_client(server)
        pooled_client.active_exchanges += 1
        try:
            return await pooled_client.http_client.run_exchange(exchange)
        finally:
            pooled_client.active_exchanges -= 1
            if pooled_client is not self._clients.get((server.name, server.url)):
                await self._close_if_idle(pooled_client)

    async def aclose(self) -> None:
        """Close all idle connections; the others close when their exchanges end."""
        pooled_clients, self._clients = list(self._clients.values()), {}
        for pooled_client in pooled_clients:
            await self._close_if_idle(pooled_client)

    async def _get_or_create_client(self, server: Server) -> _PooledClient:
        key, now = (server.name, server.url), asyncio.get_running_loop().time()
        existing = self._clients.get(key)
        if existing is not None and existing.expires_at > now and existing.server == server:
            return existing
        http_client = HttpClient(
            server, self._environ, self._resolve, self._limits.response_seconds, self._limits
        )
        created = self._clients[key] = _PooledClient(server, http_client, now + CLIENT_LIFETIME_SECONDS)
        if existing is not None:
            await self._close_if_idle(existing)
        return created

    async def _close_if_idle(self, pooled_client: _PooledClient) -> None:
        if not pooled_client.active_exchanges:
            await pooled_client.http_client.aclose()
