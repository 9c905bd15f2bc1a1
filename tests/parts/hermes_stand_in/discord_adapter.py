"""The Discord adapter of the later Hermes: direct messages, mentions in channels, and plugins' commands."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

import discord
import discord.gateway
import discord.http
import yarl
from discord import app_commands
from discord.ext import commands

from tests.parts.hermes_stand_in.gateway import (
    BaseAdapter,
    MessageEvent,
    Platform,
    SendResult,
    SessionSource,
    get_document_cache_dir,
)

# How many earlier messages of a channel the model sees.
CONTEXT_MESSAGES = 20


class DiscordAdapter(BaseAdapter):
    """Discord. `_client` is the client, None until `connect`."""

    def __init__(self, token: str, command_names: Collection[str]) -> None:
        super().__init__()
        self._token = token
        self._command_names = command_names
        self._client: Any = None
        self._ready = asyncio.Event()

    async def connect(self) -> None:
        url, gateway = os.environ["HERMES_TEST_DISCORD_URL"], os.environ["HERMES_TEST_DISCORD_GATEWAY"]
        discord.http.Route.BASE = url
        discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = yarl.URL(gateway)
        intents = discord.Intents.default()
        intents.message_content = True
        client = self._client = commands.Bot(command_prefix="!", intents=intents)

        @client.event
        async def on_ready() -> None:
            self._ready.set()

        @client.event
        async def on_message(message: discord.Message) -> None:
            await self._on_message(message)

        for name in self._command_names:
            command: app_commands.Command[Any, ..., None] = app_commands.Command(
                name=name, description="A command of a plugin", callback=self._make_callback(name)
            )
            client.tree.add_command(command)
        task = asyncio.create_task(client.start(self._token))
        self._tasks.add(task)
        await self._ready.wait()
        await client.tree.sync()

    async def disconnect(self) -> None:
        await self._client.close()

    def _make_callback(self, name: str) -> Callable[..., Any]:
        async def run_command(interaction: discord.Interaction, args: str = "") -> None:
            if not self._is_allowed_user(str(interaction.user.id), guild=interaction.guild):
                await interaction.response.send_message("You are not allowed.", ephemeral=True)
                return
            await interaction.response.defer(ephemeral=True)
            source = self._source_of(interaction.channel, interaction.user)
            await self.handle_message(
                MessageEvent(f"/{name} {args}".strip(), source, str(interaction.id), interaction)
            )

        return run_command

    def _is_allowed_user(
        self, user_id: str, _author: Any = None, *, guild: Any = None, is_dm: bool = False
    ) -> bool:
        return user_id in os.environ.get("DISCORD_ALLOWED_USERS", "").split(",")

    async def _on_message(self, message: discord.Message) -> None:
        client_user = self._client.user
        is_private = message.guild is None
        if message.author == client_user or not self._is_allowed_user(
            str(message.author.id), message.author, guild=message.guild, is_dm=is_private
        ):
            return
        if not is_private and client_user not in message.mentions:
            return
        text = message.content.replace(f"<@{client_user.id}>", "").strip()
        context = None if is_private else await self._read_context(message)
        paths: list[str] = []
        for attachment in message.attachments:
            path = get_document_cache_dir() / f"{message.id}_{attachment.filename}"
            await attachment.save(path)
            paths.append(str(path))
        event = MessageEvent(
            text,
            self._source_of(message.channel, message.author),
            str(message.id),
            message,
            media_urls=paths,
            media_types=["text/plain"] * len(paths),
            channel_context=context,
        )
        await self.handle_message(event)

    async def _read_context(self, message: discord.Message) -> str | None:
        """Return the messages of a channel since the bot's last one."""
        lines: list[str] = []
        async for earlier in message.channel.history(limit=CONTEXT_MESSAGES, before=message):
            if earlier.author == self._client.user:
                break
            lines.insert(0, f"{earlier.author.display_name}: {earlier.content}")
        return "\n".join(lines) or None

    def _source_of(self, channel: Any, user: Any) -> SessionSource:
        guild = getattr(channel, "guild", None)
        return SessionSource(
            Platform.DISCORD,
            str(channel.id),
            "dm" if guild is None else "group",
            str(user.id),
            user.display_name,
            guild_id=None if guild is None else str(guild.id),
        )

    async def send(
        self,
        chat_id: str,
        content: str,
        reply_to: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> SendResult:
        channel = self._client.get_channel(int(chat_id)) or await self._client.fetch_channel(int(chat_id))
        message = await channel.send(content)
        return SendResult(success=True, message_id=str(message.id))

    async def edit_message(self, chat_id: str, message_id: str, content: str) -> SendResult:
        channel = self._client.get_partial_messageable(int(chat_id))
        with suppress(discord.DiscordException):
            await channel.get_partial_message(int(message_id)).edit(content=content)
            return SendResult(success=True, message_id=message_id)
        return SendResult(success=False)
