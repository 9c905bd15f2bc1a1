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

from gateway_hooks.dialog.intents import contains_authorization_response
from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.platform import Chat, IncomingEvent, Platform, Sender
from gateway_hooks.dialog.servers import ConfigServers
from gateway_hooks.discord import McpLogins, Options
from gateway_hooks.discord.chat import ChannelChat, DirectChat, DiscordPlatform, InteractionChat
from gateway_hooks.discord.people import sender_of
from gateway_hooks.discord.texts import collect_texts
from gateway_hooks.hermes import internals as hermes
from gateway_hooks.hermes.adapter import PRIVATE_CHAT_TYPES, HermesAdapter
from gateway_hooks.hermes.plain_text import COMMAND_PREFIX
from gateway_hooks.hermes.policy import HermesPolicy, HermesSender
from gateway_hooks.log_redaction import redact_discord_logs
from gateway_hooks.runtime.dispatcher import Dispatcher
from gateway_hooks.runtime.error_logging import log_errors
from hermes_mcp_auth_remote.service import AuthService

log = logging.getLogger(__name__)

MessageHandler = Callable[[discord.Message], Coroutine[Any, Any, None]]

_MENTION = re.compile(r"\s*<@!?\d+>\s*")


class _RolePolicy(HermesPolicy):
    """Hermes's own rules, also those by roles, which count in their guild.

    A login may be asked for and finished there, unseen by others: it needs no second place.
    """

    def required_sources(self, sender: Sender) -> tuple[Any, ...]:
        """Return the places in which this person must be allowed."""
        return (self.source_of(sender),)

    def source_of(self, sender: Sender) -> Any:  # noqa: ANN401  Hermes's own
        """Return where somebody speaks, with what Hermes makes of their roles there."""
        if isinstance(sender, HermesSender) and sender.source is not None:
            return sender.source
        adapter = self.adapter_ref.platform_adapter
        guild = adapter._client.get_guild(int(sender.guild_id)) if sender.guild_id else None  # noqa: SLF001
        by_role = bool(adapter._is_allowed_user(sender.user_id, guild=guild, is_dm=guild is None))  # noqa: SLF001
        kind = "dm" if guild is None else "group"
        return hermes.make_source(
            self.adapter_ref,
            sender.user_id,
            sender.guild_id,
            kind,
            guild_id=sender.guild_id or None,
            role_authorized=by_role,
        )


class _AcknowledgedCommandChat(InteractionChat):
    """The answer to a command that Hermes has acknowledged; it takes its "is thinking" away again."""

    async def delete_acknowledgement(self) -> None:
        """Take it away first: the next message would otherwise stand in its place, and go with it."""
        with contextlib.suppress(discord.HTTPException):
            await self._interaction.delete_original_response()


class HermesDiscordAdapter(HermesAdapter):
    """The people of Hermes's bot on Discord."""

    def __init__(
        self,
        gateway: Any,  # noqa: ANN401  Hermes's own
        adapter_ref: hermes.AdapterRef,
        service: AuthService,
        servers: ConfigServers,
    ) -> None:
        """Take an adapter that is connected; raises AttributeError where its client has moved."""
        self._client: commands.Bot = adapter_ref.platform_adapter._client  # noqa: SLF001
        self._original_on_message: MessageHandler | None = None
        super().__init__(gateway, adapter_ref, service, servers)

    def _create_dispatcher(self) -> tuple[Platform, Dispatcher]:
        self.policy = _RolePolicy(self.policy.gateway, self.adapter_ref)
        options = Options(command_prefix=COMMAND_PREFIX, adds_commands=False, listens_to_messages=False)
        self._cog = McpLogins(self._client, self.service, self.servers, self.policy, ENGLISH, options)
        return self._cog.platform, self._cog.dispatcher

    @property
    def is_current(self) -> bool:
        """True until the adapter has connected anew, with another client."""
        return getattr(self.adapter_ref.platform_adapter, "_client", None) is self._client

    def start(self) -> None:
        """Hear each message before Hermes does, and what is pressed."""
        redact_discord_logs()
        # An event's handler is an attribute; Hermes has put its own there.
        before = self._original_on_message = self._client.on_message

        async def handle_message_first(message: discord.Message) -> None:
            if not self._handle_message(message):
                await before(message)

        self._client.on_message = handle_message_first  # type: ignore[method-assign]
        self._client.add_listener(self._handle_edited_message, "on_raw_message_edit")
        self.spawn(self._client.add_cog(self._cog))

    async def stop(self) -> None:
        """Leave the client as it was."""
        if self._original_on_message is not None:
            self._client.on_message = self._original_on_message  # type: ignore[method-assign]
        self._client.remove_listener(self._handle_edited_message, "on_raw_message_edit")
        with contextlib.suppress(discord.DiscordException):
            await self._client.remove_cog(self._cog.qualified_name)
        await super().stop()

    def chat_for(self, source: Any, hermes_event: Any = None) -> Chat:  # noqa: ANN401
        """Return the place that Hermes's SessionSource describes; for a command, its own answer."""
        platform, asked = cast("DiscordPlatform", self.platform), getattr(hermes_event, "raw_message", None)
        if isinstance(asked, discord.Interaction):
            return _AcknowledgedCommandChat(
                platform, cast("discord.Interaction[discord.Client]", asked), ENGLISH.working
            )
        if source.chat_type in PRIVATE_CHAT_TYPES:
            return DirectChat(platform, str(source.user_id))
        return ChannelChat(platform, int(source.chat_id), str(source.user_id))

    def _handle_message(self, message: discord.Message, *, is_edited: bool = False) -> bool:
        """Take a message if it is ours; so is one that cannot be searched for a code."""
        with log_errors("A message was not read", log):
            return self._claim_message(message, is_edited=is_edited)
        return True

    def _claim_message(self, message: discord.Message, *, is_edited: bool) -> bool:
        """Take a message if it is ours. An edited command was carried out when it was written."""
        bot = self._cog.platform.bot_id
        if str(message.author.id) == bot or message.webhook_id == (self._client.application_id or 0):
            return False
        found = collect_texts(message, bot)
        if not (found.text or found.extra_texts or found.quoted_text):
            return False
        heard = IncomingEvent(
            Sender(""),
            message_id=str(message.id),
            quoted_text=found.quoted_text,
            extra_texts=found.extra_texts,
            quoted_message_id=found.quoted_message_id,
        )
        if message.author.bot:
            heard = replace(heard, extra_texts=(found.text, *found.extra_texts))
            return self.claim_event(heard, self._cog.chat_without_user(message))
        sender = Sender(str(message.author.id))
        if isinstance(message.author, discord.Member):
            sender = sender_of(message.author)
        text = _MENTION.sub("", found.text, count=1) if message.mentions else found.text
        if is_edited and text.lstrip().startswith("/") and not contains_authorization_response(text):
            text = ""
        heard = replace(heard, sender=sender, text=text)
        return self.claim_event(heard, self._cog.chat_for(message.channel, message.author))

    async def _handle_edited_message(self, payload: discord.RawMessageUpdateEvent) -> None:
        self._handle_message(payload.message, is_edited=True)

    async def _dispatch(self, event: IncomingEvent, chat: Chat) -> None:
        if isinstance(chat, _AcknowledgedCommandChat):
            await chat.delete_acknowledgement()
        await super()._dispatch(event, chat)
