"""A proxy in the environment that python-telegram-bot cannot use."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from pathlib import Path

import pytest

from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.dialog.servers import StaticServers
from gateway_hooks.telegram.bot import run_bot
from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.installation import install_command
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Secret
from tests.requirements import covers

TOKEN = "123456789:AAa-token-that-nobody-may-see-0123456"


@covers("bot-proxy")
@pytest.mark.skipif(find_spec("socksio") is not None, reason="the package for SOCKS is installed")
@pytest.mark.parametrize("name", ["HTTPS_PROXY", "all_proxy", "HTTP_PROXY"])
def test_socks_without_its_package_is_one_sentence_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "socks5://user:hush@proxy.example:1080")
    with pytest.raises(ConfigError, match="is a SOCKS proxy") as caught:
        asyncio.run(run_bot(Secret(TOKEN), AuthService(tmp_path), StaticServers([]), AllowList()))
    assert caught.value.advice == f"Run `{install_command('httpx[socks]')}`."


@covers("bot-proxy")
def test_a_proxy_of_another_kind_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://user:hush@proxy.example")
    with pytest.raises(ConfigError, match="not an address that can be used") as caught:
        asyncio.run(run_bot(Secret(TOKEN), AuthService(tmp_path), StaticServers([]), AllowList()))
    assert "hush" not in f"{caught.value} {caught.value.advice}"
