"""Messages as the JSON objects that a bot gets."""

from __future__ import annotations

from tests.parts.bot_api.values import Chat, Json, Message


def message_json(chat: Chat, message: Message) -> Json:
    """Return a Message object without the message that it replies to."""
    document: Json = {
        "message_id": message.id,
        "from": message.sender.json(),
        "chat": chat.json(),
        "date": int(message.date),
        **_content_json(message),
    }
    if chat.type == "channel":
        # The sender of a post is the channel.
        del document["from"]
        document["sender_chat"] = chat.json()
    if message.edited_at is not None:
        document["edit_date"] = int(message.edited_at)
    if message.thread is not None:
        document |= {"message_thread_id": message.thread, "is_topic_message": True}
    if message.topic_created is not None:
        document["forum_topic_created"] = {"name": message.topic_created, "icon_color": 7322096}
    if message.previews_disabled:
        document["link_preview_options"] = {"is_disabled": True}
    if message.protected:
        document["has_protected_content"] = True
    return document


def _content_json(message: Message) -> Json:
    document: Json = {}
    if message.photo is not None:
        document["photo"] = [message.photo.json()]
    if message.document is not None:
        document["document"] = message.document.json() | {"file_name": message.document.name}
    text_field, entities_field = (
        ("caption", "caption_entities") if message.has_media else ("text", "entities")
    )
    if message.text:
        document[text_field] = message.text
    if message.entities:
        document[entities_field] = [entity.json() for entity in message.entities]
    if message.keyboard:
        rows = [[button.json() for button in row] for row in message.keyboard]
        document["reply_markup"] = {"inline_keyboard": rows}
    return document | dict(message.extra_members)
