"""Messages as the JSON objects that a bot gets."""

from __future__ import annotations

from tests.parts.bot_api.values import Chat, Json, Message


def message_json(chat: Chat, message: Message) -> Json:
    """Return a Message object without the message that it replies to."""
    shown: Json = {
        "message_id": message.id,
        "from": message.sender.json(),
        "chat": chat.json(),
        "date": int(message.date),
        **_content(message),
    }
    if chat.type == "channel":
        # The sender of a post is the channel.
        del shown["from"]
        shown["sender_chat"] = chat.json()
    if message.edited_at is not None:
        shown["edit_date"] = int(message.edited_at)
    if message.thread is not None:
        shown |= {"message_thread_id": message.thread, "is_topic_message": True}
    if message.topic_created is not None:
        shown["forum_topic_created"] = {"name": message.topic_created, "icon_color": 7322096}
    if message.previews_disabled:
        shown["link_preview_options"] = {"is_disabled": True}
    if message.protected:
        shown["has_protected_content"] = True
    return shown


def _content(message: Message) -> Json:
    shown: Json = {}
    if message.photo is not None:
        shown["photo"] = [message.photo.json()]
    if message.document is not None:
        shown["document"] = message.document.json() | {"file_name": message.document.name}
    text, entities = ("caption", "caption_entities") if message.has_media else ("text", "entities")
    if message.text:
        shown[text] = message.text
    if message.entities:
        shown[entities] = [entity.json() for entity in message.entities]
    if message.keyboard:
        rows = [[button.json() for button in row] for row in message.keyboard]
        shown["reply_markup"] = {"inline_keyboard": rows}
    return shown | dict(message.more)
