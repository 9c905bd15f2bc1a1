"""Receive Discord messages before Hermes does, by a cog in the client of Hermes's adapter.

Hermes registers the slash command and acknowledges each use first, so our reply is a separate ephemeral
message.
The form for the pasted address opens from a button. A code is never an argument of a command, because Hermes
logs the arguments.
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
from gateway_hooks.discord import McpLogins, Options
from gateway_hooks.discord.chat import ChannelChat, DirectChat, DiscordPlatform, InteractionChat
from gateway_hooks.discord.senders import sender_of
from gateway_hooks.discord.texts import collect_texts
from gateway_hooks.hermes import internals as hermes
from gateway_hooks.hermes.adapter import PRIVATE_CHAT_TYPES, HermesAdapter, Judgement
from gateway_hooks.hermes.login_cache import LoginCache
from gateway_hooks.hermes.plain_text import COMMAND_PREFIX
from gateway_hooks.hermes.policy import HermesPolicy, HermesSender
from gateway_hooks.log_redaction import redact_discord_logs
from gateway_hooks.runtime.dispatcher import Dispatcher
from gateway_hooks.runtime.error_logging import log_errors

log = logging.getLogger(__name__)

MessageHandler = Callable[[discord.Message], Coroutine[Any, Any, None]]

_MENTION = re.compile(r"\s*<@!?\d+>\s*")


class _RolePolicy(HermesPolicy):
    """Hermes's rules, including roles. A role counts only in its guild.

    A user may request and finish a login in the guild by ephemeral messages: no private chat is needed.
    """

    def required_sources(self, sender: Sender) -> tuple[Any, ...]:
        """Return the SessionSources in which this user must be allowed."""
        return (self.source_of(sender),)

    def source_of(self, sender: Sender) -> Any:  # noqa: ANN401  Hermes's own
        """Return the sender's SessionSource, with the result of Hermes's role check."""
        if isinstance(sender, HermesSender) and sender.source is not None:
            return sender.source
        adapter = self.adapter_ref.platform_adapter
        guild = hermes.discord_client(adapter).get_guild(int(sender.guild_id)) if sender.guild_id else None
        by_role = hermes.is_allowed_by_discord_role(adapter, sender.user_id, guild)
        chat_type = "dm" if guild is None else "group"
        return hermes.make_source(
            self.adapter_ref,
            sender.user_id,
            sender.guild_id,
            chat_type,
            guild_id=sender.guild_id or None,
            role_authorized=by_role,
        )


class _AcknowledgedCommandChat(InteractionChat):
    """A reply to a command that Hermes has acknowledged. It removes the "is thinking" message."""

    async def delete_acknowledgement(self) -> None:
        """Delete the acknowledgement. Call this method first: the next message would replace it."""
        with contextlib.suppress(discord.HTTPException):
            await self._interaction.delete_original_response()


class HermesDiscordAdapter(HermesAdapter):
    """Handles the users of Hermes's Discord bot."""

    def __init__(
        self,
        gateway: Any,  # noqa: ANN401  Hermes's own
        adapter_ref: hermes.AdapterRef,
        login_cache: LoginCache,
    ) -> None:
        """Attach to a connected adapter; raises AttributeError if Hermes has moved its client."""
        self._client: commands.Bot = hermes.discord_client(adapter_ref.platform_adapter)
        self._original_on_message: MessageHandler | None = None
        super().__init__(gateway, adapter_ref, login_cache)

    def _create_dispatcher(self) -> tuple[Platform, Dispatcher]:
        self.policy = _RolePolicy(self.policy.gateway, self.adapter_ref)
        options = Options(command_prefix=COMMAND_PREFIX, adds_commands=False, listens_to_messages=False)
        self._cog = McpLogins(self._client, self.service, self.servers, self.policy, ENGLISH, options)
        return self._cog.platform, self._cog.dispatcher

    @property
    def is_current(self) -> bool:
        """Whether the adapter still uses this client; a reconnect creates another client."""
        return hermes.has_discord_client(self.adapter_ref.platform_adapter, self._client)

    def start(self) -> None:
        """Receive each message and each pressed button before Hermes does."""
        redact_discord_logs()
        # discord.py reads the handler of an event from an attribute. Hermes has set this attribute.
        hermes_handler = self._original_on_message = self._client.on_message

        async def handle_message_first(message: discord.Message) -> None:
            if not await self._handle_message(message):
                await hermes_handler(message)

        self._client.on_message = handle_message_first  # type: ignore[method-assign]
        self._client.add_listener(self._handle_edited_message, "on_raw_message_edit")
        self.spawn(self._client.add_cog(self._cog))

    async def stop(self) -> None:
        """Restore the client's handlers and remove the cog."""
        if self._original_on_message is not None:
            self._client.on_message = self._original_on_message  # type: ignore[method-assign]
        self._client.remove_listener(self._handle_edited_message, "on_raw_message_edit")
        with contextlib.suppress(discord.DiscordException):
            await self._client.remove_cog(self._cog.qualified_name)
        await super().stop()

    def chat_for(self, source: Any, hermes_event: Any = None) -> Chat:  # noqa: ANN401
        """Return the chat of a SessionSource; for a slash command, the reply to its interaction."""
        platform = cast("DiscordPlatform", self.platform)
        raw_message = getattr(hermes_event, "raw_message", None)
        if isinstance(raw_message, discord.Interaction):
            return _AcknowledgedCommandChat(
                platform, cast("discord.Interaction[discord.Client]", raw_message), ENGLISH.please_wait
            )
        if source.chat_type in PRIVATE_CHAT_TYPES:
            return DirectChat(platform, str(source.user_id))
        return ChannelChat(platform, int(source.chat_id), str(source.user_id))

    async def _handle_message(self, message: discord.Message, *, is_edited: bool = False) -> bool:
        """Claim a message if it is ours, or if it cannot be searched for a code."""
        with log_errors("A message was not read", log):
            if not self.login_cache.is_loaded:
                await self.login_cache.refresh()
            return self._claim_message(message, is_edited=is_edited)
        return True

    def _claim_message(self, message: discord.Message, *, is_edited: bool) -> bool:
        """Claim a message if it is ours. Ignore an edited command: the command ran when the user sent it."""
        bot_id = self._cog.platform.bot_id
        if str(message.author.id) == bot_id or message.webhook_id == (self._client.application_id or 0):
            return False
        texts = collect_texts(message, bot_id)
        if not (texts.text or texts.extra_texts or texts.quoted_text):
            return False
        event = IncomingEvent(
            Sender(""),
            message_id=str(message.id),
            quoted_text=texts.quoted_text,
            extra_texts=texts.extra_texts,
            quoted_message_id=texts.quoted_message_id,
        )
        if message.author.bot:
            event = replace(event, extra_texts=(texts.text, *texts.extra_texts))
            return self.claim_event(event, self._cog.chat_without_user(message))
        sender = Sender(str(message.author.id))
        if isinstance(message.author, discord.Member):
            sender = sender_of(message.author)
        text = _MENTION.sub("", texts.text, count=1) if message.mentions else texts.text
        if is_edited and text.lstrip().startswith("/") and not contains_authorization_response(text):
            text = ""
        event = replace(event, sender=sender, text=text)
        return self.claim_event(event, self._cog.chat_for(message.channel, message.author))

    async def _handle_edited_message(self, payload: discord.RawMessageUpdateEvent) -> None:
        await self._handle_message(payload.message, is_edited=True)

    async def _act_on(self, judgement: Judgement, chat: Chat) -> None:
        if isinstance(chat, _AcknowledgedCommandChat):
            await chat.delete_acknowledgement()
        await super()._act_on(judgement, chat)
