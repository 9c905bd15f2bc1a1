"""Methods that send something to a chat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.parts.bot_api.formatting import read_caption, read_text
from tests.parts.bot_api.keyboards import read_keyboard
from tests.parts.bot_api.parameters import Parameters
from tests.parts.bot_api.reading import chat_of, file_of, message_of, reply_of, thread_of
from tests.parts.bot_api.values import Chat, Message, bad_request, utf16
from tests.parts.bot_api.world import World

CHAT_ACTIONS = frozenset(
    {
        "typing",
        "upload_photo",
        "record_video",
        "upload_video",
        "record_voice",
        "upload_voice",
        "upload_document",
        "choose_sticker",
        "find_location",
        "record_video_note",
        "upload_video_note",
    }
)


def previews_disabled(parameters: Parameters) -> bool:
    """Return True if the newer or the older parameter disables link previews."""
    options = parameters.json_object("link_preview_options")
    return options.get("is_disabled") is True or parameters.switch("disable_web_page_preview")


def send_message(world: World, parameters: Parameters) -> object:
    marked = read_text(parameters)
    keyboard = read_keyboard(parameters.text("reply_markup"))
    chat = chat_of(world, parameters, writing=True)
    text, entities = marked.settled()
    message = Message(
        chat.id,
        0,
        world.bot,
        world.clock(),
        text,
        entities,
        keyboard,
        thread=thread_of(chat, parameters),
        reply_to=reply_of(world, chat, parameters),
        previews_disabled=previews_disabled(parameters),
        protected=parameters.switch("protect_content"),
        silent=parameters.switch("disable_notification"),
    )
    return world.message_json(world.add(chat, message))


def send_photo(world: World, parameters: Parameters) -> object:
    return _send_file(world, parameters, "photo")


def send_document(world: World, parameters: Parameters) -> object:
    return _send_file(world, parameters, "document")


def _send_file(world: World, parameters: Parameters, kind: str) -> object:
    marked = read_caption(parameters)
    keyboard = read_keyboard(parameters.text("reply_markup"))
    chat = chat_of(world, parameters, writing=True)
    text, entities = marked.settled()
    file = file_of(world, parameters, kind)
    message = Message(
        chat.id,
        0,
        world.bot,
        world.clock(),
        text,
        entities,
        keyboard,
        photo=file if kind == "photo" else None,
        document=file if kind == "document" else None,
        thread=thread_of(chat, parameters),
        reply_to=reply_of(world, chat, parameters),
        protected=parameters.switch("protect_content"),
        silent=parameters.switch("disable_notification"),
    )
    return world.message_json(world.add(chat, message))


def send_chat_action(world: World, parameters: Parameters) -> object:
    chat = chat_of(world, parameters, writing=True)
    action = parameters.text("action")
    if action not in CHAT_ACTIONS:
        raise bad_request("wrong parameter action in request")
    thread_of(chat, parameters)
    world.actions.append((chat.id, action))
    return True


def set_message_reaction(world: World, parameters: Parameters) -> object:
    _, message = message_of(world, parameters, "react")
    given = parameters.json_array("reaction") or []
    emojis = []
    for reaction in given:
        if not isinstance(reaction, dict) or reaction.get("type") not in {"emoji", "custom_emoji", "paid"}:
            raise bad_request("can't parse ReactionType: unsupported type specified")
        emojis.append(str(reaction.get("emoji", "")))
    if len(emojis) > 1:
        raise bad_request("REACTIONS_TOO_MANY")
    world.edit(replace(message, reactions=tuple(emojis)))
    return True


def send_message_draft(world: World, parameters: Parameters) -> object:
    """Accept a draft of a message that is not stored. Private chats only."""
    marked = read_text(parameters)
    chat = chat_of(world, parameters, writing=True)
    marked.settled()
    if chat.type != "private":
        raise bad_request("TEXTDRAFT_PEER_INVALID")
    if not parameters.integer("draft_id"):
        raise bad_request("draft identifier must be non-zero")
    thread_of(chat, parameters)
    return True


def create_forum_topic(world: World, parameters: Parameters) -> object:
    chat = _managed_forum(world, parameters)
    name = parameters.text("name")
    if not 1 <= utf16(name) <= 128:
        raise bad_request("TOPIC_TITLE_EMPTY")
    made = world.add(chat, Message(chat.id, 0, world.bot, world.clock(), topic_created=name))
    chat.topics[made.id] = name
    world.edit(replace(made, thread=made.id))
    return {"message_thread_id": made.id, "name": name, "icon_color": 7322096}


def edit_forum_topic(world: World, parameters: Parameters) -> object:
    chat = _managed_forum(world, parameters)
    thread = thread_of(chat, parameters)
    if thread is None:
        raise bad_request("message thread not found")
    chat.topics[thread] = parameters.text("name") or chat.topics[thread]
    return True


def _managed_forum(world: World, parameters: Parameters) -> Chat:
    chat = chat_of(world, parameters, writing=True)
    if not chat.forum:
        raise bad_request("the chat is not a forum")
    if not chat.bot_can_delete:
        raise bad_request("not enough rights to create a topic")
    return chat


SENDING: dict[str, Callable[[World, Parameters], object]] = {
    "sendMessage": send_message,
    "sendPhoto": send_photo,
    "sendDocument": send_document,
    "sendChatAction": send_chat_action,
    "setMessageReaction": set_message_reaction,
    "sendMessageDraft": send_message_draft,
    "createForumTopic": create_forum_topic,
    "editForumTopic": edit_forum_topic,
}
