"""The plugin beside Telegram and Discord adapters of a later Hermes that lack an attribute."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway_hooks.hermes import internals
from gateway_hooks.hermes.internals import PLATFORM_ATTRIBUTES
from hermes_mcp_auth_remote.service.default import service_at
from tests.consent_form import approve
from tests.parts.authorization_server import Demo
from tests.parts.bot_api import serve_bot_api
from tests.parts.discord_api import Message, serve_discord_api
from tests.parts.hermes_stand_in.discord_adapter import DiscordAdapter
from tests.parts.hermes_stand_in.gateway import Platform
from tests.parts.hermes_stand_in.plain_text import PlainGateway, run_plain_gateway, write_settings
from tests.parts.hermes_stand_in.telegram_adapter import TelegramAdapter
from tests.requirements import covers

pytestmark = pytest.mark.slow

SECONDS = 20.0
PASTE_LABEL, ADDRESS_LABEL = "Paste the address", "The address your browser ended on"


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internals, "_logged_warnings", set[str]())
    service_at.cache_clear()


@asynccontextmanager
async def run_adapter(
    gateway: PlainGateway, platform: Platform, adapter: TelegramAdapter | DiscordAdapter
) -> AsyncGenerator[None]:
    await adapter.connect()
    gateway.runner.add_adapter(platform, adapter)
    try:
        yield
    finally:
        await adapter.disconnect()


def address_in(text: str) -> str:
    """Approve at the URL in a prompt of plain text; return the redirect URL."""
    url = re.search(r"http://\S+code_challenge[^\s>]+", text)
    assert url is not None
    return approve(url[0])


def assert_one_line_names(caplog: pytest.LogCaptureFixture, platform: str, name: str) -> None:
    """Assert that the line at the start names the attribute and what users lose, and no other one."""
    [line] = {it.getMessage() for it in caplog.records if "The plugin runs in" in it.getMessage()}
    consequence = PLATFORM_ATTRIBUTES[platform][name]
    assert f"Hermes's {platform} adapter has no {name}: {consequence}." in line
    assert line.count(" has no ") == 1


@covers("hermes-moved", "hermes-layouts")
def test_without_the_application_logins_in_telegram_are_in_plain_text(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_settings(tmp_path, {"notes": demo.mcp_url})

    async def main() -> None:
        with serve_bot_api() as api:
            anna = api.add_user(1001, "Anna")
            monkeypatch.setenv("TELEGRAM_ALLOWED_USERS", str(anna.id))

            def log_in() -> None:
                api.start(anna)
                api.say(anna, "/mcpauth notes")
                [prompt] = api.wait(
                    lambda: [it for it in api.messages(anna) if "code_challenge" in it.text], SECONDS
                )
                assert prompt.buttons == ()
                api.say(anna, address_in(prompt.text))
                api.wait(lambda: [it for it in api.messages(anna) if "notes: connected" in it.text], SECONDS)

            async with run_plain_gateway(tmp_path, monkeypatch, without=["_app"]) as gateway:
                extra = {"base_url": api.base_url, "base_file_url": api.base_file_url}
                async with run_adapter(gateway, Platform.TELEGRAM, TelegramAdapter(api.token, extra)):
                    await asyncio.to_thread(log_in)

    asyncio.run(main())
    assert_one_line_names(caplog, "telegram", "_app")


@covers("hermes-moved", "hermes-layouts")
@pytest.mark.parametrize("name", ["_client", "_is_allowed_user"])
def test_without_one_attribute_of_the_discord_adapter_users_still_log_in(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    write_settings(tmp_path, {"notes": demo.mcp_url})

    async def main() -> None:
        with serve_discord_api() as api:
            ada = api.add_user("ada")
            api.add_guild("Home", [ada], channels=["general"])
            direct = api.dm(ada)
            monkeypatch.setenv("DISCORD_ALLOWED_USERS", ada.id)
            monkeypatch.setenv("HERMES_TEST_DISCORD_URL", api.url)
            monkeypatch.setenv("HERMES_TEST_DISCORD_GATEWAY", api.gateway_url)

            def wait_for(text: str) -> Message:
                def matching() -> list[Message]:
                    messages = api.messages(direct, seen_by=ada)
                    return [it for it in messages if text in it.text and it.author != ada]

                api.wait(matching, SECONDS)
                return matching()[-1]

            def log_in() -> None:
                api.say(ada, direct, "/mcpauth notes")
                prompt = wait_for("Connect notes")
                if name == "_client":
                    assert prompt.buttons == []
                    api.say(ada, direct, address_in(prompt.text))
                else:
                    [url] = [str(button["url"]) for button in prompt.buttons if "url" in button]
                    modal = api.wait_for_modal(api.press(ada, prompt, PASTE_LABEL), seconds=SECONDS)
                    api.submit(ada, modal, {ADDRESS_LABEL: approve(url)})
                wait_for("notes: connected")

            async with run_plain_gateway(tmp_path, monkeypatch, without=[name]) as gateway:
                adapter = DiscordAdapter(api.token, gateway.plugins.commands)
                async with run_adapter(gateway, Platform.DISCORD, adapter):
                    await asyncio.to_thread(log_in)

    asyncio.run(main())
    assert_one_line_names(caplog, "discord", name)
