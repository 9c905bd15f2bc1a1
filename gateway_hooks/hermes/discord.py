"""Hermes's Discord adapter: our cog is put into its client, and sees each message singly and first.

Hermes registers the slash command and answers it first, so what we say in answer is a message of its own,
which nobody else sees either. The window for the pasted address opens from a button: a code is never an
argument, as Hermes logs those.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, cast

import discord
from discord.ext import commands

from gateway_hooks.dialog.intents import carries_answer
from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.platform import Chat, Heard, Platform, Sender
from gateway_hooks.dialog.servers import Configured
from gateway_hooks.discord import McpLogins, Options
from gateway_hooks.discord.chat import ChannelChat, DirectChat, DiscordPlatform, InteractionChat
from gateway_hooks.discord.people import sender_of
from gateway_hooks.discord.texts import collect
from gateway_hooks.hermes import internals as hermes
from gateway_hooks.hermes.adapter import PRIVATE, Seat
from gateway_hooks.hermes.plain_text import PREFIX
from gateway_hooks.hermes.policy import HermesPolicy, HermesSender
from gateway_hooks.log_redaction import redact_discord_logs
from gateway_hooks.runtime.dispatcher import Desk
from gateway_hooks.runtime.error_logging import contained
from hermes_mcp_auth_remote.service import AuthService

log = logging.getLogger(__name__)

OnMessage = Callable[[discord.Message], Coroutine[Any, Any, None]]

_MENTION = re.compile(r"\s*<@!?\d+>\s*")


class _Policy(HermesPolicy):
    """Hermes's own rules, also those by roles, which count in their guild.

    A login may be asked for and finished there, unseen by others: it needs no second place.
    """

    def places(self, sender: Sender) -> tuple[Any, ...]:
        """Return the places in which this person must be allowed."""
        return (self.where(sender),)

    def where(self, sender: Sender) -> Any:  # noqa: ANN401  Hermes's own
        """Return where somebody speaks, with what Hermes makes of their roles there."""
        if isinstance(sender, HermesSender) and sender.where is not None:
            return sender.where
        adapter = self.attached.adapter
        guild = adapter._client.get_guild(int(sender.guild)) if sender.guild else None  # noqa: SLF001
        by_role = bool(adapter._is_allowed_user(sender.user, guild=guild, is_dm=guild is None))  # noqa: SLF001
        kind = "dm" if guild is None else "group"
        return hermes.source(
            self.attached,
            sender.user,
            sender.guild,
            kind,
            guild_id=sender.guild or None,
            role_authorized=by_role,
        )


class _SlashChat(InteractionChat):
    """The answer to a command that Hermes has acknowledged; it takes its "is thinking" away again."""

    async def take_over(self) -> None:
        """Take it away first: the next message would otherwise stand in its place, and go with it."""
        with contextlib.suppress(discord.HTTPException):
            await self._interaction.delete_original_response()


class DiscordSeat(Seat):
    """The people of Hermes's bot on Discord."""

    def __init__(
        self,
        gateway: Any,  # noqa: ANN401  Hermes's own
        attached: hermes.Attached,
        service: AuthService,
        servers: Configured,
    ) -> None:
        """Take an adapter that is connected; raises AttributeError where its client has moved."""
        self._client: commands.Bot = attached.adapter._client  # noqa: SLF001
        self._before: OnMessage | None = None
        super().__init__(gateway, attached, service, servers)

    def _made(self) -> tuple[Platform, Desk]:
        self.policy = _Policy(self.policy.gateway, self.attached)
        options = Options(commands=PREFIX, adds_commands=False, hears_messages=False)
        self._cog = McpLogins(self._client, self.service, self.servers, self.policy, ENGLISH, options)
        return self._cog.platform, self._cog.desk

    @property
    def is_current(self) -> bool:
        """True until the adapter has connected anew, with another client."""
        return getattr(self.attached.adapter, "_client", None) is self._client

    def start(self) -> None:
        """Hear each message before Hermes does, and what is pressed."""
        redact_discord_logs()
        # An event's handler is an attribute; Hermes has put its own there.
        before = self._before = self._client.on_message

        async def first(message: discord.Message) -> None:
            if not self._hears(message):
                await before(message)

        self._client.on_message = first  # type: ignore[method-assign]
        self._client.add_listener(self._hear_edited, "on_raw_message_edit")
        self.spawn(self._client.add_cog(self._cog))

    async def stop(self) -> None:
        """Leave the client as it was."""
        if self._before is not None:
            self._client.on_message = self._before  # type: ignore[method-assign]
        self._client.remove_listener(self._hear_edited, "on_raw_message_edit")
        with contextlib.suppress(discord.DiscordException):
            await self._client.remove_cog(self._cog.qualified_name)
        await super().stop()

    def chat(self, where: Any, event: Any = None) -> Chat:  # noqa: ANN401
        """Return the place that Hermes's SessionSource describes; for a command, its own answer."""
        platform, asked = cast("DiscordPlatform", self.platform), getattr(event, "raw_message", None)
        if isinstance(asked, discord.Interaction):
            return _SlashChat(platform, cast("discord.Interaction[discord.Client]", asked), ENGLISH.working)
        if where.chat_type in PRIVATE:
            return DirectChat(platform, str(where.user_id))
        return ChannelChat(platform, int(where.chat_id), str(where.user_id))

    def _hears(self, message: discord.Message, *, is_edited: bool = False) -> bool:
        """Take a message if it is ours; so is one that cannot be searched for a code."""
        with contained("A message was not read", log):
            return self._takes(message, is_edited=is_edited)
        return True

    def _takes(self, message: discord.Message, *, is_edited: bool) -> bool:
        """Take a message if it is ours. An edited command was carried out when it was written."""
        bot = self._cog.platform.bot
        if str(message.author.id) == bot or message.webhook_id == (self._client.application_id or 0):
            return False
        found = collect(message, bot)
        if not (found.text or found.parts or found.beside):
            return False
        heard = Heard(
            Sender(""),
            message=str(message.id),
            beside=found.beside,
            parts=found.parts,
            beside_message=found.beside_message,
        )
        if message.author.bot:
            heard = replace(heard, parts=(found.text, *found.parts))
            return self.take(heard, self._cog.nobodys_chat(message))
        sender = Sender(str(message.author.id))
        if isinstance(message.author, discord.Member):
            sender = sender_of(message.author)
        text = _MENTION.sub("", found.text, count=1) if message.mentions else found.text
        if is_edited and text.lstrip().startswith("/") and not carries_answer(text):
            text = ""
        heard = replace(heard, sender=sender, text=text)
        return self.take(heard, self._cog.chat(message.channel, message.author))

    async def _hear_edited(self, payload: discord.RawMessageUpdateEvent) -> None:
        self._hears(payload.message, is_edited=True)

    async def _done(self, heard: Heard, chat: Chat) -> None:
        if isinstance(chat, _SlashChat):
            await chat.take_over()
        await super()._done(heard, chat)
