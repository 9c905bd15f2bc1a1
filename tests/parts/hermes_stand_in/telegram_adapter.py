"""The Telegram adapter of the later Hermes. It merges texts that come close together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from telegram import Message, Update
from telegram.constants import ChatType
from telegram.error import TelegramError
from telegram.ext import Application, MessageHandler, filters

from tests.parts.hermes_stand_in.gateway import (
    BaseAdapter,
    MessageEvent,
    Platform,
    SendResult,
    SessionSource,
    get_document_cache_dir,
    session_key,
)

MERGE_SECONDS = 0.3
POLL_SECONDS = 1

log = logging.getLogger(__name__)


class TelegramAdapter(BaseAdapter):
    """Telegram. `_app` is the application, None until `connect`."""

    def __init__(self, token: str, extra: Mapping[str, Any]) -> None:
        super().__init__()
        self._token = token
        self._extra = extra
        self._app: Any = None
        self._pending_texts: dict[str, tuple[MessageEvent, asyncio.TimerHandle]] = {}

    async def connect(self) -> None:
        builder = Application.builder().token(self._token)
        builder = builder.base_url(self._extra["base_url"]).base_file_url(self._extra["base_file_url"])
        self._app = builder.build()
        self._app.add_handler(MessageHandler(filters.UpdateType.MESSAGE, self._on_message))
        await self._app.initialize()
        await self._app.start()
        await self._app.updater.start_polling(timeout=POLL_SECONDS)

    async def disconnect(self) -> None:
        await self._app.updater.stop()
        await self._app.stop()
        await self._app.shutdown()

    async def _on_message(self, update: Update, _context: Any) -> None:
        message = update.message
        if message is None:
            return
        event = await self._event_of(message)
        if not event.text or event.text.startswith("/") or event.media_urls:
            if event.text or event.media_urls:
                await self.handle_message(event)
            return
        key = f"{session_key(event.source)}:{event.source.user_id}"
        earlier = self._pending_texts.pop(key, None)
        if earlier is not None:
            earlier[1].cancel()
            event = replace(event, text=f"{earlier[0].text}\n{event.text}")
        timer = asyncio.get_running_loop().call_later(MERGE_SECONDS, self._flush, key)
        self._pending_texts[key] = (event, timer)

    def _flush(self, key: str) -> None:
        event, _ = self._pending_texts.pop(key)
        task = asyncio.get_running_loop().create_task(self.handle_message(event))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _event_of(self, message: Message) -> MessageEvent:
        chat, user = message.chat, message.from_user
        source = SessionSource(
            Platform.TELEGRAM,
            str(chat.id),
            "dm" if chat.type == ChatType.PRIVATE else "group",
            None if user is None else str(user.id),
            None if user is None else user.full_name,
            str(message.message_thread_id) if message.is_topic_message else None,
        )
        paths: list[str] = []
        if message.document is not None:
            path = get_document_cache_dir() / f"{message.message_id}_{message.document.file_name}"
            await (await message.document.get_file()).download_to_drive(path)
            paths.append(str(path))
        quoted = message.reply_to_message
        return MessageEvent(
            message.text or message.caption or "",
            source,
            str(message.message_id),
            message,
            None if quoted is None else str(quoted.message_id),
            None if quoted is None else quoted.text,
            paths,
            ["text/plain"] * len(paths),
        )

    async def send(
        self,
        chat_id: str,
        content: str,
        reply_to: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> SendResult:
        thread = int(metadata["thread_id"]) if metadata and metadata.get("thread_id") else None
        try:
            message = await self._app.bot.send_message(
                int(chat_id),
                content,
                message_thread_id=thread,
                reply_to_message_id=None if reply_to is None else int(reply_to),
                allow_sending_without_reply=True,
            )
        except TelegramError:
            return SendResult(success=False)
        return SendResult(success=True, message_id=str(message.message_id))

    async def edit_message(self, chat_id: str, message_id: str, content: str) -> SendResult:
        try:
            await self._app.bot.edit_message_text(content, int(chat_id), int(message_id))
        except TelegramError:
            return SendResult(success=False)
        return SendResult(success=True, message_id=message_id)

    async def delete_message(self, chat_id: str, message_id: str) -> bool:
        try:
            return bool(await self._app.bot.delete_message(int(chat_id), int(message_id)))
        except TelegramError:
            return False
