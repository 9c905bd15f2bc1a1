"""Methods that edit and delete messages and answer callback queries."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

from tests.parts.bot_api.formatting import read_caption, read_text
from tests.parts.bot_api.keyboards import read_keyboard
from tests.parts.bot_api.limits import (
    CALLBACK_ANSWER_CHARACTERS,
    CALLBACK_QUERY_SECONDS,
    DELETABLE_SECONDS,
    MESSAGES_PER_DELETE,
)
from tests.parts.bot_api.lookups import chat_of, file_of, message_of
from tests.parts.bot_api.parameters import Parameters
from tests.parts.bot_api.send_methods import are_previews_disabled
from tests.parts.bot_api.state import BotApiState, CallbackAnswer
from tests.parts.bot_api.values import Chat, Message, bad_request, utf16_length

NOT_MODIFIED = (
    "message is not modified: specified new message content and reply markup are exactly the same as "
    "a current content and reply markup of the message"
)
QUERY_TOO_OLD = "query is too old and response timeout expired or query ID is invalid"


def _message_to_edit(state: BotApiState, parameters: Parameters) -> Message:
    chat, message = message_of(state, parameters, "edit")
    state.writable_chat(chat.id)
    if not message.is_from_bot:
        raise bad_request("message can't be edited")
    return message


def _apply_edit(state: BotApiState, old: Message, new: Message) -> object:
    if new.editable_content() == old.editable_content():
        raise bad_request(NOT_MODIFIED)
    return state.message_json(state.replace_message(replace(new, edited_at=state.clock())))


def edit_message_text(state: BotApiState, parameters: Parameters) -> object:
    formatted = read_text(parameters)
    keyboard = read_keyboard(parameters.text("reply_markup"))
    message = _message_to_edit(state, parameters)
    text, entities = formatted.resolve()
    if message.has_media:
        raise bad_request("there is no text in the message to edit")
    disabled = are_previews_disabled(parameters)
    changed = replace(message, text=text, entities=entities, keyboard=keyboard, previews_disabled=disabled)
    return _apply_edit(state, message, changed)


def edit_message_caption(state: BotApiState, parameters: Parameters) -> object:
    formatted = read_caption(parameters)
    keyboard = read_keyboard(parameters.text("reply_markup"))
    message = _message_to_edit(state, parameters)
    text, entities = formatted.resolve()
    if not message.has_media:
        raise bad_request("there is no caption in the message to edit")
    return _apply_edit(state, message, replace(message, text=text, entities=entities, keyboard=keyboard))


def edit_message_media(state: BotApiState, parameters: Parameters) -> object:
    media = parameters.json_object("media")
    keyboard = read_keyboard(parameters.text("reply_markup"))
    kind = media.get("type")
    if kind not in {"photo", "document"}:
        raise bad_request("can't parse InputMedia: media type is invalid")
    media_parameters = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in media.items()
    }
    caption_parameters = Parameters(media_parameters, parameters.uploads)
    formatted = read_caption(caption_parameters)
    message = _message_to_edit(state, parameters)
    text, entities = formatted.resolve()
    file = file_of(state, parameters, str(kind), media_parameters.get("media", ""))
    changed = replace(
        message,
        text=text,
        entities=entities,
        keyboard=keyboard,
        photo=file if kind == "photo" else None,
        document=file if kind == "document" else None,
    )
    return _apply_edit(state, message, changed)


def edit_message_reply_markup(state: BotApiState, parameters: Parameters) -> object:
    keyboard = read_keyboard(parameters.text("reply_markup"))
    message = _message_to_edit(state, parameters)
    return _apply_edit(state, message, replace(message, keyboard=keyboard))


def _check_deletable(state: BotApiState, chat: Chat, message: Message) -> None:
    """Raise ApiError if the bot may not delete a message.

    Within 48 hours, a bot may delete any message in a private chat and its own messages in a group. If it
    is an administrator of the group, it may delete any message there. By the documentation, administrators
    may do this later too; but the server's source refuses every bot after 48 hours.
    """
    is_too_old = state.clock() - message.date >= DELETABLE_SECONDS
    if chat.type != "private" and (is_too_old or not (message.is_from_bot or chat.bot_can_delete)):
        raise bad_request("message can't be deleted")
    if is_too_old:
        raise bad_request("message can't be deleted for everyone")


def delete_message(state: BotApiState, parameters: Parameters) -> object:
    chat, message = message_of(state, parameters, "delete")
    _check_deletable(state, chat, message)
    state.delete_message(message)
    return True


def delete_business_messages(state: BotApiState, parameters: Parameters) -> object:
    connection = state.business_connections.get(parameters.text("business_connection_id"))
    if connection is None:
        raise bad_request("business connection not found")
    message_ids = [
        message_id for message_id in parameters.json_array("message_ids") or [] if isinstance(message_id, int)
    ]
    if not message_ids:
        raise bad_request("message identifiers are not specified")
    if len(message_ids) > MESSAGES_PER_DELETE:
        raise bad_request("too many message identifiers specified")
    if not connection.can_delete:
        raise bad_request("not enough rights")
    if any(one not in connection.messages for one in message_ids):
        raise bad_request("message to delete not found")
    connection.deleted |= {one: connection.messages.pop(one) for one in message_ids}
    state.notify()
    return True


def delete_messages(state: BotApiState, parameters: Parameters) -> object:
    chat = chat_of(state, parameters)
    given_ids = parameters.json_array("message_ids")
    if not given_ids:
        raise bad_request("message identifiers are not specified")
    if len(given_ids) > MESSAGES_PER_DELETE:
        raise bad_request("too many message identifiers specified")
    message_ids = [message_id for message_id in given_ids if isinstance(message_id, int)]
    if len(message_ids) < len(given_ids):
        raise bad_request("message identifier is not specified")
    existing = [message for one in message_ids if (message := state.message(chat.id, one)) is not None]
    for message in existing:
        _check_deletable(state, chat, message)
    for message in existing:
        state.delete_message(message)
    return True


def answer_callback_query(state: BotApiState, parameters: Parameters) -> object:
    button_press = state.button_presses.get(parameters.text("callback_query_id"))
    if button_press is None or button_press.answer is not None:
        raise bad_request(QUERY_TOO_OLD)
    if state.clock() - button_press.pressed_at > CALLBACK_QUERY_SECONDS:
        raise bad_request(QUERY_TOO_OLD)
    text, url = parameters.text("text"), parameters.text("url")
    if utf16_length(text) > CALLBACK_ANSWER_CHARACTERS:
        raise bad_request("MESSAGE_TOO_LONG")
    if url and not re.match(rf"(?:https://)?t\.me/{state.bot.username}\?start=", url):
        raise bad_request("URL_INVALID")
    button_press.answer = CallbackAnswer(text, parameters.boolean("show_alert"), url)
    state.notify()
    return True


EDIT_METHODS: dict[str, Callable[[BotApiState, Parameters], object]] = {
    "editMessageText": edit_message_text,
    "editMessageCaption": edit_message_caption,
    "editMessageMedia": edit_message_media,
    "editMessageReplyMarkup": edit_message_reply_markup,
    "deleteMessage": delete_message,
    "deleteMessages": delete_messages,
    "deleteBusinessMessages": delete_business_messages,
    "answerCallbackQuery": answer_callback_query,
}
