"""Requests of discord.py through the proxy of the environment: REST, gateway and webhooks."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Any, cast

import aiohttp
import pytest
from discord.http import Route
from discord.webhook.async_ import async_context

from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.dialog.servers import StaticServers
from gateway_hooks.discord.api_url import use_api_url
from gateway_hooks.discord.bot import LoginBot, run_bot
from gateway_hooks.discord.proxies import use_proxies
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.installation import install_command
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Secret
from tests.requirements import covers

PROXY = "http://user:pass%20word@proxy.example:3128"
GATEWAY = "wss://gateway.discord.gg/?v=10"


class NoConnection(Exception):
    """The session below is not connected."""


class RecordingSession:
    """Records the proxy of each request that the library makes."""

    def __init__(self) -> None:
        self.proxies: list[tuple[str, str | None]] = []

    def request(self, method: str, url: str, *, proxy: str | None = None, **options: object) -> object:
        del method, options
        self.proxies.append((url.partition("?")[0], proxy))
        raise NoConnection

    async def ws_connect(self, url: str, *, proxy: str | None = None, **options: object) -> object:
        del options
        self.proxies.append((url.partition("?")[0], proxy))
        raise NoConnection


def legs(environ: dict[str, str], api_url: str | None = None) -> list[tuple[str, str | None]]:
    """For each leg, return the URL and the proxy of a request that the library makes."""
    session = RecordingSession()

    async def main() -> None:
        bot = LoginBot()
        vars(bot.http)["_HTTPClient__session"] = session
        vars(bot.http)["_global_over"] = asyncio.Event()
        bot.http._global_over.set()
        use_proxies(bot, environ)
        if api_url is not None:
            use_api_url(bot, api_url)
        with pytest.raises(NoConnection):
            await bot.http.request(Route("GET", "/users/@me"))
        with pytest.raises(NoConnection):
            await bot.http.ws_connect(GATEWAY)
        with pytest.raises(NoConnection):
            await async_context.get().request(
                Route("POST", "/interactions/1/token/callback"), cast("aiohttp.ClientSession", session)
            )

    asyncio.run(main())
    return session.proxies


@covers("bot-proxy")
@pytest.mark.parametrize(
    ("environ", "proxies"),
    [
        ({}, [None, None, None]),
        ({"HTTPS_PROXY": PROXY}, [PROXY] * 3),
        ({"all_proxy": "proxy.example:3128"}, ["http://proxy.example:3128"] * 3),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "discord.com"}, [None, PROXY, None]),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": ".discord.gg"}, [PROXY, None, PROXY]),
        ({"HTTPS_PROXY": PROXY, "no_proxy": "*"}, [None] * 3),
        ({"HTTP_PROXY": PROXY}, [None] * 3),
    ],
)
def test_each_leg_uses_the_proxy_for_its_host(environ: dict[str, str], proxies: list[str | None]) -> None:
    assert legs(environ) == list(
        zip(
            (
                f"{Route.BASE}/users/@me",
                GATEWAY.partition("?")[0],
                f"{Route.BASE}/interactions/1/token/callback",
            ),
            proxies,
            strict=True,
        )
    )


@covers("bot-proxy")
@pytest.mark.skipif(find_spec("aiohttp_socks") is not None, reason="the package for SOCKS is installed")
def test_socks_without_its_package_is_one_sentence_with_the_command(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5h://user:hush@proxy.example:1080")
    with pytest.raises(ConfigError, match="is a SOCKS proxy") as caught:
        asyncio.run(run_bot(Secret("t"), AuthService(tmp_path), StaticServers([]), AllowList()))
    assert caught.value.advice == f"Run `{install_command('aiohttp-socks')}`."
    assert "hush" not in f"{caught.value} {caught.value.advice}"
