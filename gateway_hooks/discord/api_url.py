"""Point one discord.py client at another API endpoint, without affecting other clients of the process.

The library stores the API's URL in classes, and responds to interactions through an adapter in a context
variable. So this module redirects requests at three places of the client.
"""

from __future__ import annotations

import os
from typing import Any

import aiohttp
import discord
import yarl
from discord.gateway import DiscordWebSocket
from discord.http import Route
from discord.webhook.async_ import async_context

from gateway_hooks.discord.proxies import ProxyWebhookAdapter


class _ApiUrlWebhookAdapter(ProxyWebhookAdapter):
    """Responds to interactions at another endpoint."""

    def __init__(self, api_url: str) -> None:
        super().__init__(os.environ)
        self._api_url = api_url

    async def request(self, route: Route, session: aiohttp.ClientSession, **options: Any) -> Any:  # noqa: ANN401
        """Send a request to the other endpoint."""
        return await super().request(route_at(route, self._api_url), session, **options)


def use_api_url(client: discord.Client, api_url: str) -> None:
    """Send the client's requests to an API base such as ".../api/v10".

    Call this function in the context that runs the client.
    """
    base = api_url.rstrip("/")
    http = client.http
    request, ws_connect = http.request, http.ws_connect

    async def request_at_api_url(route: Route, **options: Any) -> Any:  # noqa: ANN401  as in the library
        return await request(route_at(route, base), **options)

    async def connect_to_gateway(url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
        requested_url = yarl.URL(url)
        if requested_url.host == DiscordWebSocket.DEFAULT_GATEWAY.host:
            gateway = await request_at_api_url(Route("GET", "/gateway"))
            url = str(yarl.URL(gateway["url"]).with_query(requested_url.query))
        return await ws_connect(url, compress=compress)

    vars(http).update(request=request_at_api_url, ws_connect=connect_to_gateway)
    async_context.set(_ApiUrlWebhookAdapter(base))


def route_at(route: Route, api_url: str) -> Route:
    """Set the API base of a route and return the route. The library creates one per request."""
    if route.url.startswith(Route.BASE):
        route.url = api_url + route.url.removeprefix(Route.BASE)
    return route
