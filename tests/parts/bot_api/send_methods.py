"""Methods that send something to a chat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.parts.bot_api.formatting import read_caption, read_text
from tests.parts.bot_api.keyboards import read_keyboard
from tests.parts.bot_api.lookups import chat_of, file_of, message_of, reply_of, thread_of
from tests.parts.bot_api.parameters import Parameters
from tests.parts.bot_api.state import BotApiState
from tests.parts.bot_api.values import Chat, Message, bad_request, utf16_length

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


def are_previews_disabled(parameters: Parameters) -> bool:
    """Return True if the newer or the older parameter disables link previews."""
    options = parameters.json_object("link_preview_options")
    return options.get("is_disabled") is True or parameters.boolean("disable_web_page_preview")


def send_message(state: BotApiState, parameters: Parameters) -> object:
    formatted = read_text(parameters)
    keyboard = read_keyboard(parameters.text("reply_markup"))
    chat = chat_of(state, parameters, for_writing=True)
    text, entities = formatted.resolve()
    message = Message(
        chat.id,
        0,
        state.bot,
        state.clock(),
        text,
        entities,
        keyboard,
        thread=thread_of(chat, parameters),
        reply_to=reply_of(state, chat, parameters),
        previews_disabled=are_previews_disabled(parameters),
        protected=parameters.boolean("protect_content"),
        silent=parameters.boolean("disable_notification"),
    )
    return state.message_json(state.add_message(chat, message))


def send_photo(state: BotApiState, parameters: Parameters) -> object:
    return _send_file(state, parameters, "photo")


def send_document(state: BotApiState, parameters: Parameters) -> object:
    return _send_file(state, parameters, "document")


def _send_file(state: BotApiState, parameters: Parameters, kind: str) -> object:
    formatted = read_caption(parameters)
    keyboard = read_keyboard(parameters.text("reply_markup"))
    chat = chat_of(state, parameters, for_writing=True)
    text, entities = formatted.resolve()
    file = file_of(state, parameters, kind)
    message = Message(
        chat.id,
        0,
        state.bot,
        state.clock(),
        text,
        entities,
        keyboard,
        photo=file if kind == "photo" else None,
        document=file if kind == "document" else None,
        thread=thread_of(chat, parameters),
        reply_to=reply_of(state, chat, parameters),
        protected=parameters.boolean("protect_content"),
        silent=parameters.boolean("disable_notification"),
    )
    return state.message_json(state.add_message(chat, message))


def send_chat_action(state: BotApiState, parameters: Parameters) -> object:
    chat = chat_of(state, parameters, for_writing=True)
    action = parameters.text("action")
    if action not in CHAT_ACTIONS:
        raise bad_request("wrong parameter action in request")
    thread_of(chat, parameters)
    state.chat_actions.append((chat.id, action))
    return True


def set_message_reaction(state: BotApiState, parameters: Parameters) -> object:
    _, message = message_of(state, parameters, "react")
    reactions_json = parameters.json_array("reaction") or []
    emojis = []
    for reaction in reactions_json:
        if not isinstance(reaction, dict) or reaction.get("type") not in {"emoji", "custom_emoji", "paid"}:
            raise bad_request("can't parse ReactionType: unsupported type specified")
        emojis.append(str(reaction.get("emoji", "")))
    if len(emojis) > 1:
        raise bad_request("REACTIONS_TOO_MANY")
    state.replace_message(replace(message, reactions=tuple(emojis)))
    return True


def send_message_draft(state: BotApiState, parameters: Parameters) -> object:
    """Accept a draft of a message that is not stored. Private chats only."""
    formatted = read_text(parameters)
    chat = chat_of(state, parameters, for_writing=True)
    formatted.resolve()
    if chat.type != "private":
        raise bad_request("TEXTDRAFT_PEER_INVALID")
    if not parameters.integer("draft_id"):
        raise bad_request("draft identifier must be non-zero")
    thread_of(chat, parameters)
    return True


def create_forum_topic(state: BotApiState, parameters: Parameters) -> object:
    chat = _managed_forum(state, parameters)
    name = parameters.text("name")
    if not 1 <= utf16_length(name) <= 128:
        raise bad_request("TOPIC_TITLE_EMPTY")
    topic_message = state.add_message(chat, Message(chat.id, 0, state.bot, state.clock(), topic_created=name))
    chat.topics[topic_message.id] = name
    state.replace_message(replace(topic_message, thread=topic_message.id))
    return {"message_thread_id": topic_message.id, "name": name, "icon_color": 7322096}


def edit_forum_topic(state: BotApiState, parameters: Parameters) -> object:
    chat = _managed_forum(state, parameters)
    thread = thread_of(chat, parameters)
    if thread is None:
        raise bad_request("message thread not found")
    chat.topics[thread] = parameters.text("name") or chat.topics[thread]
    return True


def _managed_forum(state: BotApiState, parameters: Parameters) -> Chat:
    chat = chat_of(state, parameters, for_writing=True)
    if not chat.is_forum:
        raise bad_request("the chat is not a forum")
    if not chat.bot_can_delete:
        raise bad_request("not enough rights to create a topic")
    return chat


SEND_METHODS: dict[str, Callable[[BotApiState, Parameters], object]] = {
    "sendMessage": send_message,
    "sendPhoto": send_photo,
    "sendDocument": send_document,
    "sendChatAction": send_chat_action,
    "setMessageReaction": set_message_reaction,
    "sendMessageDraft": send_message_draft,
    "createForumTopic": create_forum_topic,
    "editForumTopic": edit_forum_topic,
}
