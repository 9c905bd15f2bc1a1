"""A chat as text: senders and texts, buttons as [Label], pictures as (picture)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.parts.bot_api.values import Button, Chat, Message


def render_transcript(
    chat: Chat, messages: Iterable[Message], find: Callable[[int, int], Message | None]
) -> str:
    """Return messages as text; `find` returns the message that a reply refers to."""
    lines = [f"── {chat.title} ──"]
    for message in messages:
        if message.topic_created is None:
            lines += ["", *_render_message(chat, message, find)]
    return "\n".join(lines) + "\n"


def _render_message(
    chat: Chat, message: Message, find: Callable[[int, int], Message | None]
) -> Iterable[str]:
    topic = chat.topics.get(message.thread or 0)
    edited = " (edited)" if message.edited_at is not None and message.text and not message.is_from_bot else ""
    yield f"{message.sender.first_name}{f' in #{topic}' if topic else ''}:{edited}"
    if message.reply_to is not None:
        replied = find(message.chat_id, message.reply_to)
        yield f"  > {replied.text.splitlines()[0] if replied and replied.text else '(deleted)'}"
    if message.photo is not None:
        yield "  (picture)"
    if message.document is not None:
        yield f"  (file {message.document.name})"
    for line in _marked_text(message).splitlines():
        yield f"  {line}".rstrip()
    for row in message.keyboard:
        yield "  " + " ".join(_render_button(button) for button in row)
    if message.reactions:
        yield "  " + " ".join(message.reactions)


def _marked_text(message: Message) -> str:
    """Return the text of a bot's message with Markdown for its bold text and its code."""
    if not message.is_from_bot:
        return message.text
    units, parts, position = message.text.encode("utf-16-le"), list[str](), 0
    for entity in message.entities:
        mark = {"bold": "**", "code": "`"}.get(entity.type, "")
        start, end = 2 * entity.offset, 2 * (entity.offset + entity.length)
        if mark and start >= position:
            parts += [units[position:start].decode("utf-16-le"), mark]
            parts += [units[start:end].decode("utf-16-le"), mark]
            position = end
    return "".join([*parts, units[position:].decode("utf-16-le")])


def _render_button(button: Button) -> str:
    mark = " ↗" if button.url is not None else " ⧉" if button.copy_text is not None else ""
    return f"[{button.text}{mark}]"
