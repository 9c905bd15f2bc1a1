"""One client of discord.py at another endpoint than Discord's; others of the process stay where they are.

The library keeps its address in classes, and answers interactions over an adapter in a context variable. So
requests are led elsewhere at three places of the one client.
"""

from __future__ import annotations

from typing import Any

import aiohttp
import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route
from discord.webhook.async_ import AsyncWebhookAdapter, async_context


class _ApiUrlWebhookAdapter(AsyncWebhookAdapter):
    """Answers interactions at an endpoint."""

    def __init__(self, api_url: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._api_url = api_url

    async def request(self, route: Route, session: aiohttp.ClientSession, **options: Any) -> Any:  # noqa: ANN401
        """Send a request elsewhere."""
        return await super().request(route_at(route, self._api_url), session, **options)


def use_api_url(client: discord.Client, api_url: str) -> None:
    """Lead a client, in the context of whoever runs it, to an API of this base, such as ".../api/v10"."""
    base = api_url.rstrip("/")
    http = client.http
    request, ws_connect = http.request, http.ws_connect

    async def request_at_api_url(route: Route, **options: Any) -> Any:  # noqa: ANN401  as the library's own
        return await request(route_at(route, base), **options)

    async def connect_to_gateway(url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
        asked = yarl.URL(url)
        if asked.host == DiscordWebSocket.DEFAULT_GATEWAY.host:
            found = await request_at_api_url(Route("GET", "/gateway"))
            url = str(yarl.URL(found["url"]).with_query(asked.query))
        return await ws_connect(url, compress=compress)

    vars(http).update(request=request_at_api_url, ws_connect=connect_to_gateway)
    async_context.set(_ApiUrlWebhookAdapter(base))


def route_at(route: Route, api_url: str) -> Route:
    """Return a route at another base; changes the one it is given, which is made for one request."""
    if route.url.startswith(Route.BASE):
        route.url = api_url + route.url.removeprefix(Route.BASE)
    return route
