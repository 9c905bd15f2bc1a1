"""Collect every text that a message of Discord's carries. Pure.

What people are called is left out: a name is no message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import discord

from gateway_hooks.dialog.code_detection import MAX_SEARCHED_CHARS, SEPARATOR, may_contain_code


@dataclass(frozen=True, slots=True)
class MessageTexts:
    """Texts of a message: what it says, what else it holds, and what it shows of a message of others.

    `beside_message` is the id of that message; empty if it is our own, or in another channel.
    """

    text: str = field(default="", repr=False)
    extra_texts: tuple[str, ...] = field(default=(), repr=False)
    quoted_text: str = field(default="", repr=False)
    quoted_message_id: str = ""


def collect_texts(message: discord.Message, bot_id: str) -> MessageTexts:
    """Return the texts of a message; `bot` is our bot's id, whose messages hold addresses of logins."""
    snapshots = message.message_snapshots
    text = message.content or "\n".join(each.content for each in snapshots)
    own = [*_texts(message), *(part for each in snapshots for part in (each.content, *_texts(each)))]
    replied = None if message.reference is None else message.reference.resolved
    beside, beside_message = list[str](), ""
    if isinstance(replied, discord.Message) and str(replied.author.id) != bot_id:
        beside = _limit_texts([replied.content, *_texts(replied)])
        for each in replied.message_snapshots:
            beside += _limit_texts([each.content, *_texts(each)])
        if replied.channel == message.channel:
            beside_message = str(replied.id)
    parts = tuple(each for each in _limit_texts(own) if each != text)
    return MessageTexts(text, parts, SEPARATOR.join(beside), beside_message if beside else "")


def _texts(message: discord.Message | discord.MessageSnapshot) -> Iterator[str]:
    for embed in message.embeds:
        yield from _json_strings(embed.to_dict())
    for component in message.components:
        yield from _json_strings(component.to_dict())
    for file in message.attachments:
        yield from (each for each in (file.filename, file.title, file.description) if each)
    poll = getattr(message, "poll", None)
    if isinstance(poll, discord.Poll):
        yield poll.question
        yield from (answer.text for answer in poll.answers)


def _json_strings(value: object) -> Iterator[str]:
    """Yield the texts of a value of JSON."""
    left: list[Any] = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            left += cast("Mapping[str, object]", one).values()
        elif isinstance(one, (list, tuple)):
            left += cast("Iterable[object]", one)


def _limit_texts(texts: Iterable[str]) -> list[str]:
    """Return those that may hold a code, each once, up to what is searched of one message."""
    found, left = dict[str, None](), MAX_SEARCHED_CHARS
    for text in texts:
        left -= len(text)
        if left < 0:
            break
        found[text] = None
    return [text for text in found if may_contain_code(text)]
