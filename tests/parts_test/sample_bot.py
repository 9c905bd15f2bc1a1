"""A small bot with the real python-telegram-bot, for the tests of the Bot API endpoint."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import qrcode
from telegram import (
    Bot,
    CopyTextButton,
    InlineKeyboardButton,
    InlineKeyboardMarkup,
    LinkPreviewOptions,
    Update,
)
from telegram.ext import (
    Application,
    ApplicationBuilder,
    CallbackQueryHandler,
    CommandHandler,
    ContextTypes,
    MessageHandler,
    filters,
)

from tests.parts.bot_api import BotApi

BotContext = ContextTypes.DEFAULT_TYPE
Error = TypeVar("Error", bound=Exception)


def qr_png(text: str) -> bytes:
    picture = io.BytesIO()
    qrcode.make(text).save(picture)
    return picture.getvalue()


async def on_start(update: Update, context: BotContext) -> None:
    assert update.effective_message
    buttons = [
        [InlineKeyboardButton("Open the page", url="https://as.example/authorize")],
        [
            InlineKeyboardButton("Cancel", callback_data="cancel"),
            InlineKeyboardButton("Copy", copy_text=CopyTextButton("WDJB-MJHT")),
        ],
    ]
    await update.effective_message.reply_text(
        "<b>Connect</b> linear",
        parse_mode="HTML",
        reply_markup=InlineKeyboardMarkup(buttons),
        link_preview_options=LinkPreviewOptions(is_disabled=True),
    )


async def on_press(update: Update, context: BotContext) -> None:
    assert update.callback_query
    await update.callback_query.answer("Cancelled")
    await update.callback_query.edit_message_text("Cancelled.")


async def on_text(update: Update, context: BotContext) -> None:
    assert update.effective_message
    await update.effective_message.delete()
    await update.effective_chat.send_photo(qr_png("https://as.example"), caption="Scan this")  # type: ignore[union-attr]


@asynccontextmanager
async def run_polling_bot(
    api: BotApi, seconds: int = 10
) -> AsyncGenerator[Application[Any, Any, Any, Any, Any, Any]]:
    builder = ApplicationBuilder().token(api.token).base_url(api.base_url).base_file_url(api.base_file_url)
    application = builder.build()
    application.add_handler(CommandHandler("start", on_start))
    application.add_handler(CommandHandler("connect", on_start))
    application.add_handler(CallbackQueryHandler(on_press))
    application.add_handler(MessageHandler(filters.TEXT, on_text))
    async with application:
        await application.start()
        assert application.updater
        await application.updater.start_polling(timeout=seconds, poll_interval=0)
        try:
            yield application
        finally:
            await application.updater.stop()
            await application.stop()


def make_bot(api: BotApi) -> Bot:
    return Bot(api.token, base_url=api.base_url, base_file_url=api.base_file_url)


def run_with_bot(api: BotApi, action: Callable[[Bot], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with make_bot(api) as bot:
            await action(bot)

    asyncio.run(run())


async def catch_error(kind: type[Error], call: Awaitable[object]) -> Error:
    with pytest.raises(kind) as raised:
        await call
    return raised.value
