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

from gateway_hooks.dialog.intents import carries_answer
from gateway_hooks.dialog.platform import Abilities, Chat, Heard, Platform
from gateway_hooks.dialog.servers import Configured
from gateway_hooks.hermes import internals as hermes
from gateway_hooks.hermes.adapter import PRIVATE, Seat
from gateway_hooks.hermes.plain_text import PREFIX
from gateway_hooks.hermes.policy import HermesSender
from gateway_hooks.log_redaction import redact_logs
from gateway_hooks.runtime.dispatcher import Desk
from gateway_hooks.runtime.error_logging import contained
from gateway_hooks.telegram import FIRST, App, Context, TelegramPlatform
from gateway_hooks.telegram.api_calls import Calls
from gateway_hooks.telegram.chat import TelegramChat
from gateway_hooks.telegram.updates import PLATFORM
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Origin

log = logging.getLogger(__name__)


class _Platform(TelegramPlatform):
    """Telegram as Hermes has it: all is said by one command, as the others are Hermes's."""

    @property
    def can(self) -> Abilities:
        """What Telegram offers, with the command that we have there."""
        return replace(super().can, commands=PREFIX)


class TelegramSeat(Seat):
    """The people of Hermes's bot on Telegram."""

    def __init__(
        self,
        gateway: Any,  # noqa: ANN401  Hermes's own
        attached: hermes.Attached,
        service: AuthService,
        servers: Configured,
    ) -> None:
        """Take an adapter that is connected; raises AttributeError where its application has moved."""
        self._app: App = attached.adapter._app  # noqa: SLF001
        # Asked for here: a bot that has not been initialised knows no id.
        self._bot: Bot = self._app.bot
        self._bot_id = str(self._bot.id)
        self._calls = Calls()
        self._handler = TypeHandler[Update, Context, None](Update, self._first, block=True)
        super().__init__(gateway, attached, service, servers)

    def _made(self) -> tuple[Platform, Desk]:
        platform = _Platform(self._bot, asyncio.sleep)
        return platform, Desk(self.service, platform, self.servers, self.policy)

    @property
    def is_current(self) -> bool:
        """True until the adapter has connected anew, with another application."""
        return getattr(self.attached.adapter, "_app", None) is self._app

    def start(self) -> None:
        """Hear each update before Hermes does."""
        redact_logs()
        self._app.add_handler(self._handler, FIRST)
        super().start()

    async def stop(self) -> None:
        """Leave the application as it was."""
        self._app.remove_handler(self._handler, FIRST)
        await super().stop()

    def chat(self, where: Any, event: Any = None) -> Chat:  # noqa: ANN401, ARG002
        """Return the place that Hermes's SessionSource describes."""
        origin = Origin(
            PLATFORM, str(where.chat_id), str(where.thread_id or ""), self.speaker(where), self._bot_id
        )
        return TelegramChat(self._bot, self._calls, origin, is_private=where.chat_type in PRIVATE)

    def is_private(self, chat: str, user: str) -> bool:
        """True where that is the person's own chat with the bot: it has their number."""
        return chat == user

    async def _first(self, update: Update, _context: Context) -> None:
        # What cannot be searched for a code goes to nobody.
        is_ours = True
        with contained("An update was not read", log):
            found = self._heard(update)
            is_ours = found is not None and self.take(*found)
        if is_ours:
            raise ApplicationHandlerStop

    def _heard(self, update: Update) -> tuple[Heard, Chat] | None:
        """Read an update as Hermes's people mean it; None for what cannot be ours."""
        platform = cast("_Platform", self.platform)
        found = platform.read(update) or platform.overhear(update)
        if found is None:
            return None
        heard, chat = found
        message = update.message or update.edited_message
        if message is not None and heard.command != "start":
            # Whole: what Hermes has other commands for is no command of ours.
            heard = replace(heard, command="", text=message.text or message.caption or "")
            is_command = heard.text.lstrip().startswith("/") and not carries_answer(heard.text)
            if update.edited_message and is_command:
                # Carried out when it was written; a code may have come since.
                heard = replace(heard, text="")
        return replace(heard, sender=self._sender(heard, chat.origin, update)), chat

    def _sender(self, heard: Heard, origin: Origin, update: Update) -> HermesSender:
        chat, user = update.effective_chat, update.effective_user
        kind = "dm" if chat is None or chat.type == ChatType.PRIVATE else "group"
        where = hermes.source(
            self.attached,
            heard.sender.user,
            origin.chat,
            kind,
            user_name=None if user is None else user.full_name,
            thread_id=origin.thread or None,
        )
        return HermesSender(heard.sender.user, where=where)

    def _name_of_bot(self) -> str:
        return self._bot.username
