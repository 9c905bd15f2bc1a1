"""Send a discord.py client's requests through the proxy of the environment: REST, gateway and webhooks.

The library takes one proxy for all requests and ignores NO_PROXY. The requests go to different hosts
(discord.com and gateway.discord.gg), so this module chooses a proxy for each request.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import aiohttp
import discord
from discord.http import HTTPClient, Route
from discord.webhook.async_ import AsyncWebhookAdapter, async_context

from hermes_mcp_auth_remote.http.proxies import check_socks_package, read_proxy

GATEWAY_URL = "https://gateway.discord.gg"


class ProxyWebhookAdapter(AsyncWebhookAdapter):
    """Responds to interactions through the proxy of the environment."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._environ = environ

    async def request(self, route: Route, session: aiohttp.ClientSession, **options: Any) -> Any:  # noqa: ANN401
        """Send a request through the proxy for its URL."""
        options["proxy"] = http_proxy_url(route.url, self._environ)
        return await super().request(route, session, **options)


def use_proxies(client: discord.Client, environ: Mapping[str, str]) -> None:
    """Choose a proxy for each request of a client.

    Call this function in the context that runs the client, and before `use_api_url`, which changes the URLs.
    Raises ConfigError if the proxy cannot be used.
    """
    http = client.http
    request = http.request
    # Fail now, and not at the first request.
    http_proxy_url(Route.BASE, environ)
    http_proxy_url(GATEWAY_URL, environ)

    async def request_through_proxy(route: Route, **options: Any) -> Any:  # noqa: ANN401  as in the library
        return await request(route, proxy=http_proxy_url(route.url, environ), **options)

    async def connect_through_proxy(url: str, *, compress: int = 0) -> aiohttp.ClientWebSocketResponse:
        # The library reads `http.proxy` in this call. The copy shares the session of the client.
        http_with_proxy = copy.copy(http)
        http_with_proxy.proxy = http_proxy_url(_as_https(url), environ)
        return await HTTPClient.ws_connect(http_with_proxy, url, compress=compress)

    vars(http).update(request=request_through_proxy, ws_connect=connect_through_proxy)
    async_context.set(ProxyWebhookAdapter(environ))


def http_proxy_url(url: str, environ: Mapping[str, str]) -> str | None:
    """Return the URL of the HTTP proxy for a URL; None for a direct connection or a SOCKS proxy.

    Raises ConfigError if the proxy cannot be used, or if the package for SOCKS proxies is missing.
    """
    proxy = read_proxy(url, environ)
    if proxy is None:
        return None
    if proxy.is_socks:
        check_socks_package("aiohttp_socks", "aiohttp-socks")
        return None
    return proxy.to_url()


def make_connector(environ: Mapping[str, str]) -> aiohttp.BaseConnector | None:
    """Return a connector through the SOCKS proxy of the environment; None if there is no such proxy.

    Every request of the client uses the connector, so NO_PROXY has an effect only if it names Discord's REST
    host.
    """
    proxy = read_proxy(Route.BASE, environ)
    if proxy is None or not proxy.is_socks:
        return None
    # No extra of this package installs aiohttp-socks: few operators have such a proxy.
    aiohttp_socks: Any = import_module("aiohttp_socks")
    connector: aiohttp.BaseConnector = aiohttp_socks.ProxyConnector(
        proxy_type=aiohttp_socks.ProxyType.SOCKS5,
        host=proxy.host,
        port=proxy.port,
        username=proxy.user or None,
        password=proxy.password or None,
        rdns=True,
        limit=0,
    )
    return connector


def _as_https(url: str) -> str:
    """Return the URL of a web socket as an https URL."""
    return f"https{url.removeprefix('wss')}" if url.startswith("wss:") else f"http{url.removeprefix('ws')}"
