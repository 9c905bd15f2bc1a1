"""Receive Telegram updates before Hermes does, by a handler in the application of Hermes's adapter.

The handler claims a code before Hermes merges it with other messages, queues it during a turn, or logs it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any, cast

from telegram import Bot, Update
from telegram.constants import ChatType
from telegram.ext import ApplicationHandlerStop, TypeHandler

from gateway_hooks.dialog.intents import contains_authorization_response
from gateway_hooks.dialog.platform import Capabilities, Chat, IncomingEvent, Platform
from gateway_hooks.hermes import internals as hermes
from gateway_hooks.hermes.adapter import PRIVATE_CHAT_TYPES, HermesAdapter
from gateway_hooks.hermes.login_cache import LoginCache
from gateway_hooks.hermes.plain_text import COMMAND_PREFIX
from gateway_hooks.hermes.policy import HermesSender
from gateway_hooks.log_redaction import redact_logs
from gateway_hooks.runtime.dispatcher import Dispatcher
from gateway_hooks.runtime.error_logging import log_errors
from gateway_hooks.telegram import HANDLER_GROUP, HandlerContext, TelegramApplication, TelegramPlatform
from gateway_hooks.telegram.api_calls import ApiCalls
from gateway_hooks.telegram.chat import TelegramChat
from gateway_hooks.telegram.updates import PLATFORM
from hermes_mcp_auth_remote.values import Origin

log = logging.getLogger(__name__)


class _HermesTelegramPlatform(TelegramPlatform):
    """Telegram in Hermes: this package handles only /mcpauth; the other commands belong to Hermes."""

    @property
    def capabilities(self) -> Capabilities:
        """What Telegram offers, with /mcpauth as the prefix of all commands."""
        return replace(super().capabilities, command_prefix=COMMAND_PREFIX)


class HermesTelegramAdapter(HermesAdapter):
    """Handles the users of Hermes's Telegram bot."""

    def __init__(
        self,
        gateway: Any,  # noqa: ANN401  Hermes's own
        adapter_ref: hermes.AdapterRef,
        login_cache: LoginCache,
    ) -> None:
        """Attach to a connected adapter; raises AttributeError if Hermes has moved its application."""
        self._app: TelegramApplication = hermes.telegram_application(adapter_ref.platform_adapter)
        # Read the id now. If the bot is not initialised, the read raises, and the caller uses plain text.
        self._bot: Bot = self._app.bot
        self._bot_id = str(self._bot.id)
        self._calls = ApiCalls()
        self._handler = TypeHandler[Update, HandlerContext, None](Update, self._handle_update, block=True)
        super().__init__(gateway, adapter_ref, login_cache)

    def _create_dispatcher(self) -> tuple[Platform, Dispatcher]:
        platform = _HermesTelegramPlatform(self._bot, asyncio.sleep)
        return platform, Dispatcher(self.service, platform, self.servers, self.policy)

    @property
    def is_current(self) -> bool:
        """Whether the adapter still uses this application; a reconnect creates another one."""
        return hermes.has_telegram_application(self.adapter_ref.platform_adapter, self._app)

    def start(self) -> None:
        """Receive each update before Hermes does."""
        redact_logs()
        self._app.add_handler(self._handler, HANDLER_GROUP)
        super().start()

    async def stop(self) -> None:
        """Remove the handler from the application."""
        self._app.remove_handler(self._handler, HANDLER_GROUP)
        await super().stop()

    def chat_for(self, source: Any, hermes_event: Any = None) -> Chat:  # noqa: ANN401, ARG002
        """Return the chat of a SessionSource."""
        origin = Origin(
            PLATFORM, str(source.chat_id), str(source.thread_id or ""), self.user_id_of(source), self._bot_id
        )
        return TelegramChat(self._bot, self._calls, origin, is_private=source.chat_type in PRIVATE_CHAT_TYPES)

    def is_private_chat(self, chat_id: str, user_id: str) -> bool:
        """Return whether this is the user's private chat: on Telegram it has the user's id."""
        return chat_id == user_id

    async def _handle_update(self, update: Update, _context: HandlerContext) -> None:
        # An update that cannot be searched for a code must not reach Hermes.
        is_ours = True
        with log_errors("An update was not read", log):
            if not self.login_cache.is_loaded:
                await self.login_cache.refresh()
            event_and_chat = self._read_update(update)
            is_ours = event_and_chat is not None and self.claim_event(*event_and_chat)
        if is_ours:
            raise ApplicationHandlerStop

    def _read_update(self, update: Update) -> tuple[IncomingEvent, Chat] | None:
        """Return the event and chat of an update; None if it contains nothing for this package."""
        platform = cast("_HermesTelegramPlatform", self.platform)
        event_and_chat = platform.read_update(update) or platform.read_other_update(update)
        if event_and_chat is None:
            return None
        event, chat = event_and_chat
        message = update.message or update.edited_message
        if message is not None and event.command != "start":
            # Use the whole text: other commands belong to Hermes.
            event = replace(event, command="", text=message.text or message.caption or "")
            is_command = event.text.lstrip().startswith("/") and not contains_authorization_response(
                event.text
            )
            if update.edited_message and is_command:
                # The command ran when the user sent it. Only search the edited message for a code.
                event = replace(event, text="")
        return replace(event, sender=self._make_sender(event, chat.origin, update)), chat

    def _make_sender(self, event: IncomingEvent, origin: Origin, update: Update) -> HermesSender:
        chat, user = update.effective_chat, update.effective_user
        chat_type = "dm" if chat is None or chat.type == ChatType.PRIVATE else "group"
        source = hermes.make_source(
            self.adapter_ref,
            event.sender.user_id,
            origin.chat_id,
            chat_type,
            user_name=None if user is None else user.full_name,
            thread_id=origin.thread_id or None,
        )
        return HermesSender(event.sender.user_id, source=source)

    def _bot_name(self) -> str:
        return self._bot.username
