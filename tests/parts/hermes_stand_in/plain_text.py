"""A gateway in this process with adapters for plain text, for tests that drive it directly.

async with run_plain_gateway(home, model_url, monkeypatch) as gateway:
    slack = gateway.add_adapter(Platform.SLACK)
    await slack.say("U1", "/mcpauth notes")
    await slack.wait_for("U1", "Connect notes")
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway_hooks import hermes
from tests.parts.hermes_stand_in import mcp_client
from tests.parts.hermes_stand_in.gateway import (
    BaseAdapter,
    GatewayRunner,
    MessageEvent,
    Platform,
    Plugins,
    SendResult,
    SessionSource,
)
from tests.parts.hermes_stand_in.layout import make_modules

WAIT_SECONDS = 20.0


@dataclass
class SentMessage:
    """A message in a chat. `is_deleted`: the adapter has deleted it."""

    chat_id: str
    text: str
    is_from_bot: bool
    is_deleted: bool = False


class PlainTextAdapter(BaseAdapter):
    """An adapter without a library. The id of a private chat is "D" followed by the user's id."""

    def __init__(self, platform: Platform, profile: str = "") -> None:
        super().__init__()
        self.platform = platform
        self.profile = profile
        self.messages: dict[str, SentMessage] = {}
        self._ids = count(1)
        self._changed = asyncio.Condition()

    async def say(self, user_id: str, text: str, chat_id: str = "") -> str:
        """Let a user write, by default in private; return the message's id."""
        chat_id = chat_id or f"D{user_id}"
        message_id = await self._add(SentMessage(chat_id, text, is_from_bot=False))
        chat_type = "dm" if chat_id.startswith("D") else "group"
        source = SessionSource(self.platform, chat_id, chat_type, user_id, profile=self.profile or None)
        await self.handle_message(MessageEvent(text, source, message_id))
        return message_id

    async def wait_for(self, user_id: str, text: str, chat_id: str = "") -> str:
        """Wait until the bot's messages in a chat show a text; return the latest such message."""

        def matching() -> list[str]:
            return [
                message.text
                for message in self.messages.values()
                if message.is_from_bot
                and message.chat_id == (chat_id or f"D{user_id}")
                and text in message.text
            ]

        try:
            async with asyncio.timeout(WAIT_SECONDS), self._changed:
                await self._changed.wait_for(matching)
        except TimeoutError:
            raise AssertionError(f"{text!r} is in none of {list(self.messages.values())}") from None
        return matching()[-1]

    async def send(
        self,
        chat_id: str,
        content: str,
        reply_to: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> SendResult:
        return SendResult(
            success=True, message_id=await self._add(SentMessage(chat_id, content, is_from_bot=True))
        )

    async def edit_message(self, _chat_id: str, message_id: str, content: str) -> SendResult:
        self.messages[message_id].text = content
        await self._notify()
        return SendResult(success=True, message_id=message_id)

    async def delete_message(self, _chat_id: str, message_id: str) -> bool:
        self.messages[message_id].is_deleted = True
        await self._notify()
        return True

    async def _add(self, message: SentMessage) -> str:
        message_id = str(next(self._ids))
        self.messages[message_id] = message
        await self._notify()
        return message_id

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@dataclass
class PlainGateway:
    """A running gateway; `plugins` has the plugin of this package."""

    runner: GatewayRunner
    plugins: Plugins = field(default_factory=Plugins)

    def add_adapter(
        self,
        platform: Platform = Platform.SLACK,
        profile: str = "",
        kind: type[PlainTextAdapter] = PlainTextAdapter,
    ) -> PlainTextAdapter:
        adapter = kind(platform, profile)
        self.runner.add_adapter(platform, adapter, profile)
        return adapter


def write_settings(home: Path, servers: Mapping[str, str], model_url: str = "") -> None:
    """Write config.yaml with these servers (name and URL)."""
    home.mkdir(parents=True, exist_ok=True)
    settings = {
        "model": {"default": "stand-in", "base_url": model_url},
        "mcp_servers": {name: {"url": url, "auth": "oauth", "timeout": 10} for name, url in servers.items()},
    }
    (home / "config.yaml").write_text(yaml.safe_dump(settings))


class Hidden:
    """An object without some of its attributes. The object itself keeps them, because it needs them."""

    def __init__(self, target: object, names: Collection[str]) -> None:
        vars(self).update(_target=target, _names=frozenset(names))

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            raise AttributeError(name)
        return getattr(self._target, name)

    def __dir__(self) -> list[str]:
        return [name for name in dir(self._target) if name not in self._names]


class HiddenGateway(Hidden):
    """A gateway without some attributes of its own and of its adapters."""

    def __init__(self, target: GatewayRunner, names: Collection[str]) -> None:
        super().__init__(target, names)
        vars(self)["_hidden"] = dict[int, Hidden]()

    def _hide(self, adapter: object) -> Hidden:
        hidden: Hidden = self._hidden.setdefault(id(adapter), Hidden(adapter, self._names))
        return hidden

    @property
    def adapters(self) -> dict[Platform, Hidden]:
        return {platform: self._hide(adapter) for platform, adapter in self._target.adapters.items()}

    def _adapter_for_source(self, source: SessionSource) -> Hidden:
        return self._hide(self._target._adapter_for_source(source))


@asynccontextmanager
async def run_plain_gateway(
    home: Path, monkeypatch: pytest.MonkeyPatch, *, without: Collection[str] = (), users: str = "U1,U2"
) -> AsyncGenerator[PlainGateway]:
    """Run a gateway with the plugin, without the names in `without`: of modules, gateway and adapters."""
    for name, module in make_modules(without).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("HERMES_HOME", str(home))
    monkeypatch.setenv("SLACK_ALLOWED_USERS", users)
    plugins = Plugins()
    gateway = PlainGateway(GatewayRunner(home, plugins), plugins)
    gateway.runner._gateway_loop = asyncio.get_running_loop()
    gateway.runner.shown_to_plugins = HiddenGateway(gateway.runner, without) if without else gateway.runner
    hermes.register(plugins)
    try:
        yield gateway
    finally:
        await asyncio.to_thread(mcp_client.shutdown_mcp_servers)
