"""Hermes's Telegram adapter: ours is put into its application, and sees each message singly and first.

So a code is taken before Hermes merges it with other messages, asks whether a turn is running, or logs it.
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
from gateway_hooks.dialog.servers import ConfigServers
from gateway_hooks.hermes import internals as hermes
from gateway_hooks.hermes.adapter import PRIVATE_CHAT_TYPES, HermesAdapter
from gateway_hooks.hermes.plain_text import COMMAND_PREFIX
from gateway_hooks.hermes.policy import HermesSender
from gateway_hooks.log_redaction import redact_logs
from gateway_hooks.runtime.dispatcher import Dispatcher
from gateway_hooks.runtime.error_logging import log_errors
from gateway_hooks.telegram import HANDLER_GROUP, HandlerContext, TelegramApplication, TelegramPlatform
from gateway_hooks.telegram.api_calls import ApiCalls
from gateway_hooks.telegram.chat import TelegramChat
from gateway_hooks.telegram.updates import PLATFORM
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Origin

log = logging.getLogger(__name__)


class _HermesTelegramPlatform(TelegramPlatform):
    """Telegram as Hermes has it: all is said by one command, as the others are Hermes's."""

    @property
    def capabilities(self) -> Capabilities:
        """What Telegram offers, with the command that we have there."""
        return replace(super().capabilities, command_prefix=COMMAND_PREFIX)


class HermesTelegramAdapter(HermesAdapter):
    """The people of Hermes's bot on Telegram."""

    def __init__(
        self,
        gateway: Any,  # noqa: ANN401  Hermes's own
        adapter_ref: hermes.AdapterRef,
        service: AuthService,
        servers: ConfigServers,
    ) -> None:
        """Take an adapter that is connected; raises AttributeError where its application has moved."""
        self._app: TelegramApplication = adapter_ref.platform_adapter._app  # noqa: SLF001
        # Asked for here: a bot that has not been initialised knows no id.
        self._bot: Bot = self._app.bot
        self._bot_id = str(self._bot.id)
        self._calls = ApiCalls()
        self._handler = TypeHandler[Update, HandlerContext, None](Update, self._handle_update, block=True)
        super().__init__(gateway, adapter_ref, service, servers)

    def _create_dispatcher(self) -> tuple[Platform, Dispatcher]:
        platform = _HermesTelegramPlatform(self._bot, asyncio.sleep)
        return platform, Dispatcher(self.service, platform, self.servers, self.policy)

    @property
    def is_current(self) -> bool:
        """True until the adapter has connected anew, with another application."""
        return getattr(self.adapter_ref.platform_adapter, "_app", None) is self._app

    def start(self) -> None:
        """Hear each update before Hermes does."""
        redact_logs()
        self._app.add_handler(self._handler, HANDLER_GROUP)
        super().start()

    async def stop(self) -> None:
        """Leave the application as it was."""
        self._app.remove_handler(self._handler, HANDLER_GROUP)
        await super().stop()

    def chat_for(self, source: Any, hermes_event: Any = None) -> Chat:  # noqa: ANN401, ARG002
        """Return the place that Hermes's SessionSource describes."""
        origin = Origin(
            PLATFORM, str(source.chat_id), str(source.thread_id or ""), self.user_id_of(source), self._bot_id
        )
        return TelegramChat(self._bot, self._calls, origin, is_private=source.chat_type in PRIVATE_CHAT_TYPES)

    def is_private_chat(self, chat_id: str, user_id: str) -> bool:
        """True where that is the person's own chat with the bot: it has their number."""
        return chat_id == user_id

    async def _handle_update(self, update: Update, _context: HandlerContext) -> None:
        # What cannot be searched for a code goes to nobody.
        is_ours = True
        with log_errors("An update was not read", log):
            found = self._read_update(update)
            is_ours = found is not None and self.claim_event(*found)
        if is_ours:
            raise ApplicationHandlerStop

    def _read_update(self, update: Update) -> tuple[IncomingEvent, Chat] | None:
        """Read an update as Hermes's people mean it; None for what cannot be ours."""
        platform = cast("_HermesTelegramPlatform", self.platform)
        found = platform.read_update(update) or platform.read_other_update(update)
        if found is None:
            return None
        heard, chat = found
        message = update.message or update.edited_message
        if message is not None and heard.command != "start":
            # Whole: what Hermes has other commands for is no command of ours.
            heard = replace(heard, command="", text=message.text or message.caption or "")
            is_command = heard.text.lstrip().startswith("/") and not contains_authorization_response(
                heard.text
            )
            if update.edited_message and is_command:
                # Carried out when it was written; a code may have come since.
                heard = replace(heard, text="")
        return replace(heard, sender=self._make_sender(heard, chat.origin, update)), chat

    def _make_sender(self, event: IncomingEvent, origin: Origin, update: Update) -> HermesSender:
        chat, user = update.effective_chat, update.effective_user
        kind = "dm" if chat is None or chat.type == ChatType.PRIVATE else "group"
        where = hermes.make_source(
            self.adapter_ref,
            event.sender.user_id,
            origin.chat_id,
            kind,
            user_name=None if user is None else user.full_name,
            thread_id=origin.thread_id or None,
        )
        return HermesSender(event.sender.user_id, source=where)

    def _bot_name(self) -> str:
        return self._bot.username
