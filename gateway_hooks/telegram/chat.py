"""One chat of Telegram's with the bot in it, as the conversation sees it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

from telegram import Bot, CallbackQuery, InputFile, LinkPreviewOptions, Message
from telegram.constants import CallbackQueryLimit
from telegram.error import BadRequest

from gateway_hooks.dialog.cards import Card, Link
from gateway_hooks.dialog.platform import CannotWrite, ChatError, MessageGone
from gateway_hooks.telegram.api_calls import ApiCalls, refusal_reason
from gateway_hooks.telegram.render import (
    MAX_CAPTION_UNITS,
    MAX_TEXT_UNITS,
    RenderedMessage,
    count_utf16_units,
    render_card,
    truncate_units,
)
from hermes_mcp_auth_remote.values import Origin

# Previews are fetched by Telegram's servers, and would open the link before the person does.
NO_PREVIEW = LinkPreviewOptions(is_disabled=True)
_NOT_MODIFIED = re.compile(r"(?i)message is not modified")
_MESSAGE_NOT_FOUND = re.compile(
    r"(?i)message to delete not found|message_id_invalid|message identifier is not"
)
# Which addresses it takes is documented only in part.
_INVALID_BUTTON_URL = re.compile(r"(?i)button_url_invalid|button url .* is invalid")
_THREAD_NOT_FOUND = re.compile(r"(?i)message thread not found|topic_(?:closed|deleted)|thread")


class _ButtonRefusedError(ChatError):
    """Telegram does not take an address for a button."""


class TelegramChat:
    """A private chat, or a group, perhaps one topic of it.

    The id of a message is its number; "12+13" is one whose address stands in a second message.
    """

    def __init__(
        self,
        bot: Bot,
        api_calls: ApiCalls,
        origin: Origin,
        *,
        is_private: bool,
        query: CallbackQuery | None = None,
    ) -> None:
        self._bot = bot
        self._api_calls = api_calls
        self._origin = origin
        self._is_private = is_private
        self._query = query

    @property
    def origin(self) -> Origin:
        """Where this is, and whom the bot talks to."""
        return self._origin

    @property
    def is_private(self) -> bool:
        """True where nobody but that person reads what the bot writes."""
        return self._is_private

    async def send(self, card: Card) -> str:
        """Write a message, and a second one for an address that has no room in it; raises ChatError."""
        try:
            return await self._send_rendered(render_card(card))
        except _ButtonRefusedError:
            return await self._send_rendered(render_card(card, with_button=False))

    async def send_picture(self, png: bytes, card: Card) -> str:
        """Write a message with a picture; raises CannotWrite, ChatError."""
        drawn = render_card(card, MAX_CAPTION_UNITS)

        async def call(thread_id: int | None) -> Message:
            return await self._bot.send_photo(
                self._chat_id(),
                png,
                caption=drawn.text,
                caption_entities=drawn.entities,
                parse_mode=None,
                reply_markup=drawn.keyboard,
                message_thread_id=thread_id,
                protect_content=self._is_private,
            )

        return await self._call_in_thread(call)

    async def edit(self, message_id: str, card: Card) -> None:
        """Change a message of ours; raises MessageGone, CannotWrite, ChatError."""
        try:
            await self._edit_rendered(message_id, render_card(card))
        except _ButtonRefusedError:
            await self._edit_rendered(message_id, render_card(card, with_button=False))

    async def delete(self, message_id: str) -> bool:
        """Delete a message, ours or theirs; False where Telegram does not let the bot. Raises ChatError."""
        outcomes = [await self._delete_one(part) for part in message_id.split("+")]
        return all(outcomes)

    async def show_toast(self, text: str) -> None:
        """Answer a press; the first answer counts. Nothing depends on it, so nothing is raised."""
        query, self._query = self._query, None
        if query is None:
            return
        said = truncate_units(text, int(CallbackQueryLimit.ANSWER_CALLBACK_QUERY_TEXT_LENGTH)) or None
        with contextlib.suppress(ChatError, BadRequest):
            await self._api_calls.call_now(lambda: self._bot.answer_callback_query(query.id, said))

    async def _send_rendered(self, rendered: RenderedMessage) -> str:
        message = await self._send_text(rendered)
        if rendered.separate_link is None:
            return message
        try:
            return f"{message}+{await self._send_url(rendered.separate_link)}"
        except ChatError:
            with contextlib.suppress(ChatError):
                await self.delete(message)
            raise

    async def _edit_rendered(self, message_id: str, rendered: RenderedMessage) -> None:
        first, _, second = message_id.partition("+")
        if rendered.separate_link is not None and (
            not second or not _fits_in_message(rendered.separate_link)
        ):
            # It has no room for what it should say, or a file has; it goes, and a new one says it.
            with contextlib.suppress(ChatError):
                await self.delete(message_id)
            raise MessageGone("The message has no room for the address.")
        await self._edit_text(first, rendered)
        if second and rendered.separate_link is None:
            with contextlib.suppress(ChatError):
                await self.delete(second)
        elif rendered.separate_link is not None:
            await self._edit_text(second, _render_url(rendered.separate_link))

    async def _send_text(self, rendered: RenderedMessage) -> str:
        async def call(thread_id: int | None) -> Message:
            return await self._bot.send_message(
                self._chat_id(),
                rendered.text,
                entities=rendered.entities,
                # What the application sets by default is for its own texts.
                parse_mode=None,
                link_preview_options=NO_PREVIEW,
                reply_markup=rendered.keyboard,
                message_thread_id=thread_id,
                # Any of them may be edited into one with a link, which nobody is to be sent on to.
                protect_content=self._is_private,
            )

        return await self._call_in_thread(call)

    async def _send_url(self, link: Link) -> str:
        if _fits_in_message(link):
            return await self._send_text(_render_url(link))

        async def call(thread_id: int | None) -> Message:
            return await self._bot.send_document(
                self._chat_id(),
                InputFile(link.url.encode(), "address.txt"),
                caption=truncate_units(link.label, MAX_CAPTION_UNITS),
                parse_mode=None,
                message_thread_id=thread_id,
                protect_content=self._is_private,
            )

        return await self._call_in_thread(call)

    async def _call_in_thread(self, call: Callable[[int | None], Awaitable[Message]]) -> str:
        """Write in the topic, outside of it where that is gone."""
        thread = int(self._origin.thread_id) if self._origin.thread_id else None
        try:
            try:
                sent = await self._api_calls.call_in_order(self._origin.chat_id, lambda: call(thread))
            except BadRequest as refused:
                if thread is None or not _THREAD_NOT_FOUND.search(refused.message):
                    raise
                sent = await self._api_calls.call_in_order(self._origin.chat_id, lambda: call(None))
        except BadRequest as refused:
            if _INVALID_BUTTON_URL.search(refused.message):
                raise _ButtonRefusedError("Telegram refused the address of a button.") from None
            raise ChatError(f"Telegram refused a message: {refusal_reason(refused)}") from None
        return str(sent.message_id)

    async def _edit_text(self, message_id: str, rendered: RenderedMessage) -> None:
        async def call() -> object:
            return await self._bot.edit_message_text(
                rendered.text,
                self._chat_id(),
                int(message_id),
                entities=rendered.entities,
                parse_mode=None,
                link_preview_options=NO_PREVIEW,
                reply_markup=rendered.keyboard,
            )

        try:
            await self._api_calls.call_in_order(self._origin.chat_id, call)
        except BadRequest as refused:
            if _INVALID_BUTTON_URL.search(refused.message):
                raise _ButtonRefusedError("Telegram refused the address of a button.") from None
            if not _NOT_MODIFIED.search(refused.message):
                raise MessageGone(
                    f"Telegram does not change the message: {refusal_reason(refused)}"
                ) from None

    async def _delete_one(self, message_id: str) -> bool:
        # Not in turn: what a person pasted is not to wait for what the bot may not say yet.
        try:
            return await self._api_calls.call_now(
                lambda: self._bot.delete_message(self._chat_id(), int(message_id))
            )
        except BadRequest as refused:
            return bool(_MESSAGE_NOT_FOUND.search(refused.message))

    def _chat_id(self) -> int:
        """Return the chat's number: a name would be a public channel's; raises CannotWrite."""
        chat = self._origin.chat_id
        if not chat.lstrip("-").isdecimal() or (self._is_private and chat.startswith("-")):
            raise CannotWrite("A user of Telegram is named by a number.")
        return int(chat)


class BusinessChat(TelegramChat):
    """A chat of a business account with somebody else, which the bot reads by a connection.

    What the bot has to say goes to the sender's private chat with it: here it would speak for the account.
    """

    def __init__(self, bot: Bot, api_calls: ApiCalls, origin: Origin, connection_id: str) -> None:
        # Its number is a person's, as that of a private chat with the bot.
        here = replace(origin, chat_id=f"business:{connection_id}:{origin.chat_id}")
        super().__init__(bot, api_calls, here, is_private=False)
        self._connection_id = connection_id
        self._private_chat = TelegramChat(
            bot, api_calls, replace(origin, chat_id=origin.user_id, thread_id=""), is_private=True
        )

    async def send(self, card: Card) -> str:
        """Write to the sender in private; raises CannotWrite, ChatError."""
        return await self._private_chat.send(card)

    async def send_picture(self, png: bytes, card: Card) -> str:
        """Write to the sender in private; raises CannotWrite, ChatError."""
        return await self._private_chat.send_picture(png, card)

    async def edit(self, message_id: str, card: Card) -> None:  # noqa: ARG002  the protocol's
        """Raise MessageGone: what was sent stands in another chat."""
        raise MessageGone("The bot changes no message of a business chat.")

    async def _delete_one(self, message_id: str) -> bool:
        # It takes a right that the account gives the bot (Bot API, BusinessBotRights).
        try:
            return await self._api_calls.call_now(
                lambda: self._bot.delete_business_messages(self._connection_id, [int(message_id)])
            )
        except BadRequest as refused:
            return bool(_MESSAGE_NOT_FOUND.search(refused.message))


def _render_url(link: Link) -> RenderedMessage:
    return RenderedMessage(f"{link.label}:\n{link.url}", ())


def _fits_in_message(link: Link) -> bool:
    return count_utf16_units(_render_url(link).text) <= MAX_TEXT_UNITS
