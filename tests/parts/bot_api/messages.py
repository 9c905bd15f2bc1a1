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
from tests.parts.bot_api.parameters import Parameters
from tests.parts.bot_api.reading import chat_of, file_of, message_of
from tests.parts.bot_api.sending import previews_disabled
from tests.parts.bot_api.values import Chat, Message, bad_request, utf16
from tests.parts.bot_api.world import Answer, World

NOT_MODIFIED = (
    "message is not modified: specified new message content and reply markup are exactly the same as "
    "a current content and reply markup of the message"
)
QUERY_TOO_OLD = "query is too old and response timeout expired or query ID is invalid"


def _editable(world: World, parameters: Parameters) -> Message:
    chat, message = message_of(world, parameters, "edit")
    world.writable(chat.id)
    if not message.from_bot:
        raise bad_request("message can't be edited")
    return message


def _edited(world: World, old: Message, new: Message) -> object:
    if new.content() == old.content():
        raise bad_request(NOT_MODIFIED)
    return world.message_json(world.edit(replace(new, edited_at=world.clock())))


def edit_message_text(world: World, parameters: Parameters) -> object:
    marked = read_text(parameters)
    keyboard = read_keyboard(parameters.text("reply_markup"))
    message = _editable(world, parameters)
    text, entities = marked.settled()
    if message.has_media:
        raise bad_request("there is no text in the message to edit")
    disabled = previews_disabled(parameters)
    changed = replace(message, text=text, entities=entities, keyboard=keyboard, previews_disabled=disabled)
    return _edited(world, message, changed)


def edit_message_caption(world: World, parameters: Parameters) -> object:
    marked = read_caption(parameters)
    keyboard = read_keyboard(parameters.text("reply_markup"))
    message = _editable(world, parameters)
    text, entities = marked.settled()
    if not message.has_media:
        raise bad_request("there is no caption in the message to edit")
    return _edited(world, message, replace(message, text=text, entities=entities, keyboard=keyboard))


def edit_message_media(world: World, parameters: Parameters) -> object:
    media = parameters.json_object("media")
    keyboard = read_keyboard(parameters.text("reply_markup"))
    kind = media.get("type")
    if kind not in {"photo", "document"}:
        raise bad_request("can't parse InputMedia: media type is invalid")
    members = {name: value if isinstance(value, str) else json.dumps(value) for name, value in media.items()}
    inner = Parameters(members, parameters.uploads)
    marked = read_caption(inner)
    message = _editable(world, parameters)
    text, entities = marked.settled()
    file = file_of(world, parameters, str(kind), members.get("media", ""))
    changed = replace(
        message,
        text=text,
        entities=entities,
        keyboard=keyboard,
        photo=file if kind == "photo" else None,
        document=file if kind == "document" else None,
    )
    return _edited(world, message, changed)


def edit_message_reply_markup(world: World, parameters: Parameters) -> object:
    keyboard = read_keyboard(parameters.text("reply_markup"))
    message = _editable(world, parameters)
    return _edited(world, message, replace(message, keyboard=keyboard))


def _check_deletable(world: World, chat: Chat, message: Message) -> None:
    """Raise ApiError if the bot may not delete a message.

    Within 48 hours, a bot deletes any message in a private chat, its own in a group, and any in a group in
    which it is an administrator. The documentation allows administrators more; the server's source refuses
    every bot after 48 hours.
    """
    old = world.clock() - message.date >= DELETABLE_SECONDS
    if chat.type != "private" and (old or not (message.from_bot or chat.bot_can_delete)):
        raise bad_request("message can't be deleted")
    if old:
        raise bad_request("message can't be deleted for everyone")


def delete_message(world: World, parameters: Parameters) -> object:
    chat, message = message_of(world, parameters, "delete")
    _check_deletable(world, chat, message)
    world.delete(message)
    return True


def delete_business_messages(world: World, parameters: Parameters) -> object:
    connection = world.business.get(parameters.text("business_connection_id"))
    if connection is None:
        raise bad_request("business connection not found")
    numbers = [one for one in parameters.json_array("message_ids") or [] if isinstance(one, int)]
    if not numbers:
        raise bad_request("message identifiers are not specified")
    if len(numbers) > MESSAGES_PER_DELETE:
        raise bad_request("too many message identifiers specified")
    if not connection.can_delete:
        raise bad_request("not enough rights")
    if any(one not in connection.messages for one in numbers):
        raise bad_request("message to delete not found")
    connection.deleted |= {one: connection.messages.pop(one) for one in numbers}
    world.notify()
    return True


def delete_messages(world: World, parameters: Parameters) -> object:
    chat = chat_of(world, parameters)
    ids = parameters.json_array("message_ids")
    if not ids:
        raise bad_request("message identifiers are not specified")
    if len(ids) > MESSAGES_PER_DELETE:
        raise bad_request("too many message identifiers specified")
    numbers = [one for one in ids if isinstance(one, int)]
    if len(numbers) < len(ids):
        raise bad_request("message identifier is not specified")
    present = [message for one in numbers if (message := world.message(chat.id, one)) is not None]
    for message in present:
        _check_deletable(world, chat, message)
    for message in present:
        world.delete(message)
    return True


def answer_callback_query(world: World, parameters: Parameters) -> object:
    pressed = world.pressed.get(parameters.text("callback_query_id"))
    if pressed is None or pressed.answer is not None:
        raise bad_request(QUERY_TOO_OLD)
    if world.clock() - pressed.at > CALLBACK_QUERY_SECONDS:
        raise bad_request(QUERY_TOO_OLD)
    text, url = parameters.text("text"), parameters.text("url")
    if utf16(text) > CALLBACK_ANSWER_CHARACTERS:
        raise bad_request("MESSAGE_TOO_LONG")
    if url and not re.match(rf"(?:https://)?t\.me/{world.bot.username}\?start=", url):
        raise bad_request("URL_INVALID")
    pressed.answer = Answer(text, parameters.switch("show_alert"), url)
    world.notify()
    return True


EDITING: dict[str, Callable[[World, Parameters], object]] = {
    "editMessageText": edit_message_text,
    "editMessageCaption": edit_message_caption,
    "editMessageMedia": edit_message_media,
    "editMessageReplyMarkup": edit_message_reply_markup,
    "deleteMessage": delete_message,
    "deleteMessages": delete_messages,
    "deleteBusinessMessages": delete_business_messages,
    "answerCallbackQuery": answer_callback_query,
}
