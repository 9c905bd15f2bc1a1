"""Connections that outlive an exchange, for whoever asks the same servers again and again."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from hermes_mcp_auth_remote.http.client import Connections
from hermes_mcp_auth_remote.http.ssrf_guard import Resolve
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.timeouts import LIMITS, Limits
from hermes_mcp_auth_remote.values import Server

T = TypeVar("T")

# Then names are looked up anew, and certificates and proxies read.
KEEP_SECONDS = 60.0


@dataclass(slots=True)
class _Place:
    server: Server
    connections: Connections
    until: float
    users: int = 0


class KeptConnections:
    """Runs exchanges as `http.client.run` does, under the same limits; for one event loop."""

    def __init__(
        self,
        *,
        environ: Mapping[str, str] = os.environ,
        resolve: Resolve | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        self._limits = limits
        self._environ = environ
        self._resolve = resolve
        self._places: dict[tuple[str, str], _Place] = {}

    async def __call__(self, exchange: Exchange[T], server: Server) -> T:
        """Run an exchange to its end on behalf of a server, and return what it returns."""
        place = await self._place(server)
        place.users += 1
        try:
            return await place.connections.run(exchange)
        finally:
            place.users -= 1
            if place is not self._places.get((server.name, server.url)):
                await self._closed(place)

    async def aclose(self) -> None:
        """Close all connections that are not in use; those that are, close after use."""
        places, self._places = list(self._places.values()), {}
        for place in places:
            await self._closed(place)

    async def _place(self, server: Server) -> _Place:
        key, now = (server.name, server.url), asyncio.get_running_loop().time()
        known = self._places.get(key)
        if known is not None and known.until > now and known.server == server:
            return known
        connections = Connections(
            server, self._environ, self._resolve, self._limits.response_seconds, self._limits
        )
        place = self._places[key] = _Place(server, connections, now + KEEP_SECONDS)
        if known is not None:
            await self._closed(known)
        return place

    async def _closed(self, place: _Place) -> None:
        if not place.users:
            await place.connections.aclose()
