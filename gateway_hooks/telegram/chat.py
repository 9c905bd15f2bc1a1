"""Telegram chats, as implementations of the `Chat` protocol."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Awaitable, Callable
from dataclasses import replace

from telegram import Bot, CallbackQuery, InputFile, LinkPreviewOptions, Message
from telegram.constants import CallbackQueryLimit
from telegram.error import BadRequest

from gateway_hooks.dialog.cards import Card, Link, truncate
from gateway_hooks.dialog.platform import CannotWrite, ChatBase, ChatError, MessageGone
from gateway_hooks.telegram.api_calls import ApiCalls, refusal_reason
from gateway_hooks.telegram.render import (
    MAX_CAPTION_UNITS,
    MAX_TEXT_UNITS,
    RenderedMessage,
    count_utf16_units,
    render_card,
)
from hermes_mcp_auth_remote.values import Origin

# Telegram's servers fetch previews, which would open the link before the user does.
NO_PREVIEW = LinkPreviewOptions(is_disabled=True)
_NOT_MODIFIED = re.compile(r"(?i)message is not modified")
_MESSAGE_NOT_FOUND = re.compile(
    r"(?i)message to delete not found|message_id_invalid|message identifier is not"
)
# Telegram documents only in part which URLs a button accepts.
_INVALID_BUTTON_URL = re.compile(r"(?i)button_url_invalid|button url .* is invalid")
_THREAD_NOT_FOUND = re.compile(r"(?i)message thread not found|topic_(?:closed|deleted)|thread")


class _ButtonRefusedError(ChatError):
    """Telegram rejects the URL of a button."""


class TelegramChat(ChatBase):
    """A private chat, a group, or one topic of a group.

    A message id is Telegram's number, such as "12", or "12+13" if message 13 contains the URL for message 12.
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
        super().__init__(origin, is_private=is_private)
        self._bot = bot
        self._api_calls = api_calls
        self._query = query

    async def send(self, card: Card) -> str:
        """Send a message, and a second one for a URL that does not fit into it; raises ChatError."""
        try:
            return await self._send_rendered(render_card(card))
        except _ButtonRefusedError:
            return await self._send_rendered(render_card(card, with_button=False))

    async def send_picture(self, png: bytes, card: Card) -> str:
        """Send a message with a picture and return its id; raises CannotWrite, ChatError."""
        rendered = render_card(card, MAX_CAPTION_UNITS)

        async def call(thread_id: int | None) -> Message:
            return await self._bot.send_photo(
                self._chat_id(),
                png,
                caption=rendered.text,
                caption_entities=rendered.entities,
                parse_mode=None,
                reply_markup=rendered.keyboard,
                message_thread_id=thread_id,
                protect_content=self._is_private,
            )

        return await self._call_in_thread(call)

    async def edit(self, message_id: str, card: Card) -> None:
        """Edit a message of the bot; raises MessageGone, CannotWrite, ChatError."""
        try:
            await self._edit_rendered(message_id, render_card(card))
        except _ButtonRefusedError:
            await self._edit_rendered(message_id, render_card(card, with_button=False))

    async def delete(self, message_id: str) -> bool:
        """Delete a message; return False if Telegram does not allow it. Raises ChatError."""
        outcomes = [await self._delete_one(part) for part in message_id.split("+")]
        return all(outcomes)

    async def show_toast(self, text: str) -> None:
        """Answer the press of a button. Only the first call has an effect. Never raises ChatError."""
        query, self._query = self._query, None
        if query is None:
            return
        toast = truncate(text, int(CallbackQueryLimit.ANSWER_CALLBACK_QUERY_TEXT_LENGTH)) or None
        with contextlib.suppress(ChatError, BadRequest):
            await self._api_calls.call_now(lambda: self._bot.answer_callback_query(query.id, toast))

    async def _send_rendered(self, rendered: RenderedMessage) -> str:
        message_id = await self._send_text(rendered)
        if rendered.separate_link is None:
            return message_id
        try:
            return f"{message_id}+{await self._send_url(rendered.separate_link)}"
        except ChatError:
            with contextlib.suppress(ChatError):
                await self.delete(message_id)
            raise

    async def _edit_rendered(self, message_id: str, rendered: RenderedMessage) -> None:
        text_id, _, link_id = message_id.partition("+")
        if rendered.separate_link is not None and (
            not link_id or not _fits_in_message(rendered.separate_link)
        ):
            # The URL does not fit into this message, and no second message can take it. So the caller must
            # send a new message.
            with contextlib.suppress(ChatError):
                await self.delete(message_id)
            raise MessageGone("The message has no room for the address.")
        await self._edit_text(text_id, rendered)
        if link_id and rendered.separate_link is None:
            with contextlib.suppress(ChatError):
                await self.delete(link_id)
        elif rendered.separate_link is not None:
            try:
                await self._edit_text(link_id, _render_url(rendered.separate_link))
            except MessageGone:
                # An edit without a URL, or the user, has deleted the message of the URL. The caller sends
                # both messages again.
                with contextlib.suppress(ChatError):
                    await self.delete(text_id)
                raise

    async def _send_text(self, rendered: RenderedMessage) -> str:
        async def call(thread_id: int | None) -> Message:
            return await self._bot.send_message(
                self._chat_id(),
                rendered.text,
                entities=rendered.entities,
                # Override the application's default.
                parse_mode=None,
                link_preview_options=NO_PREVIEW,
                reply_markup=rendered.keyboard,
                message_thread_id=thread_id,
                # Forbid forwarding: a later edit may add the authorization URL, which is for this user only.
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
                caption=truncate(link.label, MAX_CAPTION_UNITS),
                parse_mode=None,
                message_thread_id=thread_id,
                protect_content=self._is_private,
            )

        return await self._call_in_thread(call)

    async def _call_in_thread(self, call: Callable[[int | None], Awaitable[Message]]) -> str:
        """Send a message in the topic, or outside of it if the topic is gone; return its id."""
        thread_id = int(self._origin.thread_id) if self._origin.thread_id else None
        try:
            try:
                sent = await self._api_calls.call_in_order(self._origin.chat_id, lambda: call(thread_id))
            except BadRequest as error:
                if thread_id is None or not _THREAD_NOT_FOUND.search(error.message):
                    raise
                sent = await self._api_calls.call_in_order(self._origin.chat_id, lambda: call(None))
        except BadRequest as error:
            if _INVALID_BUTTON_URL.search(error.message):
                raise _ButtonRefusedError("Telegram refused the address of a button.") from None
            raise ChatError(f"Telegram refused a message: {refusal_reason(error)}") from None
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
        except BadRequest as error:
            if _INVALID_BUTTON_URL.search(error.message):
                raise _ButtonRefusedError("Telegram refused the address of a button.") from None
            if not _NOT_MODIFIED.search(error.message):
                raise MessageGone(f"Telegram does not change the message: {refusal_reason(error)}") from None

    async def _delete_one(self, message_id: str) -> bool:
        # Use `call_now`: the deletion of a pasted code must not wait for the bot's rate-limited messages.
        try:
            return await self._api_calls.call_now(
                lambda: self._bot.delete_message(self._chat_id(), int(message_id))
            )
        except BadRequest as error:
            return bool(_MESSAGE_NOT_FOUND.search(error.message))

    def _chat_id(self) -> int:
        """Return the chat's number. Raises CannotWrite for a name: it would be a public channel."""
        chat_id = self._origin.chat_id
        if not chat_id.lstrip("-").isdecimal() or (self._is_private and chat_id.startswith("-")):
            raise CannotWrite("This is not the id of a Telegram user. A user id is a positive number.")
        return int(chat_id)


class BusinessChat(TelegramChat):
    """A chat between a business account and a third party. The bot reads this chat for the account.

    The bot sends its messages to the sender's private chat: in this chat, they would appear to come from the
    account's owner.
    """

    def __init__(self, bot: Bot, api_calls: ApiCalls, origin: Origin, connection_id: str) -> None:
        # The chat's number alone would equal the number of a private chat with the bot.
        business_origin = replace(origin, chat_id=f"business:{connection_id}:{origin.chat_id}")
        super().__init__(bot, api_calls, business_origin, is_private=False)
        self._connection_id = connection_id
        self._private_chat = TelegramChat(
            bot, api_calls, replace(origin, chat_id=origin.user_id, thread_id=""), is_private=True
        )

    async def send(self, card: Card) -> str:
        """Send a message to the sender in private; raises CannotWrite, ChatError."""
        return await self._private_chat.send(card)

    async def send_picture(self, png: bytes, card: Card) -> str:
        """Send a picture to the sender in private; raises CannotWrite, ChatError."""
        return await self._private_chat.send_picture(png, card)

    async def edit(self, message_id: str, card: Card) -> None:  # noqa: ARG002  Chat protocol
        """Raise MessageGone: the bot's messages are in another chat."""
        raise MessageGone("The bot changes no message of a business chat.")

    async def _delete_one(self, message_id: str) -> bool:
        # The account's owner must grant the bot the right to delete messages (Bot API, BusinessBotRights).
        try:
            return await self._api_calls.call_now(
                lambda: self._bot.delete_business_messages(self._connection_id, [int(message_id)])
            )
        except BadRequest as error:
            return bool(_MESSAGE_NOT_FOUND.search(error.message))


def _render_url(link: Link) -> RenderedMessage:
    return RenderedMessage(f"{link.label}:\n{link.url}", ())


def _fits_in_message(link: Link) -> bool:
    return count_utf16_units(_render_url(link).text) <= MAX_TEXT_UNITS
