"""Collect every text of a Discord message. Pure.

Names of users are excluded: a name is not a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import discord

from gateway_hooks.dialog.code_detection import MAX_SEARCHED_CHARS, SEPARATOR, may_contain_code


@dataclass(frozen=True, slots=True)
class MessageTexts:
    """The texts of a message: its content, its other parts, and the message that it replies to.

    `quoted_message_id` is the id of the message that it replies to; empty if that is in another channel.
    """

    text: str = field(default="", repr=False)
    extra_texts: tuple[str, ...] = field(default=(), repr=False)
    quoted_text: str = field(default="", repr=False)
    quoted_message_id: str = ""


def collect_texts(message: discord.Message, bot_id: str) -> MessageTexts:
    """Return the texts of a message. Skip a quoted message of the bot (`bot_id`): it may have a login URL."""
    snapshots = message.message_snapshots
    text = message.content or "\n".join(snapshot.content for snapshot in snapshots)
    own_texts = [
        *_texts(message),
        *(part for snapshot in snapshots for part in (snapshot.content, *_texts(snapshot))),
    ]
    replied = None if message.reference is None else message.reference.resolved
    quoted_texts, quoted_message_id = list[str](), ""
    if isinstance(replied, discord.Message) and str(replied.author.id) != bot_id:
        quoted_texts = _limit_texts([replied.content, *_texts(replied)])
        for snapshot in replied.message_snapshots:
            quoted_texts += _limit_texts([snapshot.content, *_texts(snapshot)])
        if replied.channel == message.channel:
            quoted_message_id = str(replied.id)
    extra_texts = tuple(own_text for own_text in _limit_texts(own_texts) if own_text != text)
    return MessageTexts(
        text, extra_texts, SEPARATOR.join(quoted_texts), quoted_message_id if quoted_texts else ""
    )


def _texts(message: discord.Message | discord.MessageSnapshot) -> Iterator[str]:
    for embed in message.embeds:
        yield from _json_strings(embed.to_dict())
    for component in message.components:
        yield from _json_strings(component.to_dict())
    for file in message.attachments:
        yield from (text for text in (file.filename, file.title, file.description) if text)
    poll = getattr(message, "poll", None)
    if isinstance(poll, discord.Poll):
        yield poll.question
        yield from (answer.text for answer in poll.answers)


def _json_strings(value: object) -> Iterator[str]:
    """Yield the strings of a JSON value."""
    remaining: list[Any] = [value]
    while remaining:
        item = remaining.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, Mapping):
            remaining += cast("Mapping[str, object]", item).values()
        elif isinstance(item, (list, tuple)):
            remaining += cast("Iterable[object]", item)


def _limit_texts(texts: Iterable[str]) -> list[str]:
    """Return the texts that may contain a code, each once, up to MAX_SEARCHED_CHARS in total."""
    unique_texts, remaining_chars = dict[str, None](), MAX_SEARCHED_CHARS
    for text in texts:
        remaining_chars -= len(text)
        if remaining_chars < 0:
            break
        unique_texts[text] = None
    return [text for text in unique_texts if may_contain_code(text)]
