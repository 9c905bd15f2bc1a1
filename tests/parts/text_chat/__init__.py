"""A small chat platform with text only. It shows what a new platform needs, outside of this package.

User ids look like `@ada:example.org`. A bot and the server exchange JSON lines over TCP.
"""

from __future__ import annotations

import asyncio
import itertools
import json

from gateway_hooks.dialog.cards import Card, spans
from gateway_hooks.dialog.platform import Capabilities, Chat, Sender
from hermes_mcp_auth_remote.platforms import ChatPlatform
from hermes_mcp_auth_remote.values import Origin

WIRE = ChatPlatform(
    name="wire-chat",
    title="Wire Chat",
    id_pattern=r"@[a-z0-9.]+:[a-z0-9.-]+",
    id_rule="names such as @ada:example.org",
    token_variable="WIRE_CHAT_TOKEN",
    setting_keys=("allow", "admins", "device"),
    extra="wire-chat",
    libraries=("wire_chat",),
    package="tests.parts.text_chat",
    first_step="Write help to it",
)


class TextPlatform:
    """The platform, connected through one bot."""

    name, bot_id = WIRE.name, "bot"
    capabilities = Capabilities(has_buttons=False, can_delete=False, can_copy=False)

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.message_ids = itertools.count(1)

    def private_chat(self, user_id: str) -> Chat:
        return TextChat(self, user_id)

    async def fetch_sender(self, user_id: str) -> Sender:
        return Sender(user_id)

    def deep_link(self, payload: str) -> str | None:
        del payload
        return None


class TextChat:
    """The private chat with a user. An edit is a new line of text."""

    is_private = True

    def __init__(self, platform: TextPlatform, user_id: str) -> None:
        self._platform = platform
        self._user_id = user_id

    @property
    def origin(self) -> Origin:
        return Origin(WIRE.name, self._user_id, "", self._user_id, self._platform.bot_id)

    async def send(self, card: Card) -> str:
        text = "".join(part for part, _ in spans(card, with_link=True))
        return await self._write(text)

    async def send_picture(self, png: bytes, card: Card) -> str:
        del png
        return await self.send(card)

    async def edit(self, message_id: str, card: Card) -> None:
        del message_id
        await self.send(card)

    async def delete(self, message_id: str) -> bool:
        del message_id
        return False

    async def show_toast(self, text: str) -> None:
        await self._write(text)

    async def _write(self, text: str) -> str:
        if text:
            self._platform.writer.write(json.dumps({"to": self._user_id, "text": text}).encode() + b"\n")
            await self._platform.writer.drain()
        return str(next(self._platform.message_ids))
