"""Collect every text that an update carries, from the library's objects. Pure.

What people and chats are called is left out: a name is no message, and a third person's name would keep
messages of others from the application.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from telegram import Bot, Chat, ChatFullInfo, Message, TelegramObject, Update, User

from gateway_hooks.dialog.code_detection import MAX_SEARCHED_CHARS, SEPARATOR, may_contain_code

# The bot's API numbers and names these; no person writes them.
_MACHINE_FIELDS = frozenset(
    {
        "file_id",
        "file_unique_id",
        "custom_emoji_id",
        "media_group_id",
        "inline_message_id",
        "chat_instance",
        "business_connection_id",
        "mime_type",
        "language_code",
        "type",
        "id",
        "author_signature",
        "sender_tag",
        "sender_user_name",
    }
)
# What others wrote, and the update shows along with a message.
_QUOTED_FIELDS = frozenset(
    {"reply_to_message", "external_reply", "quote", "pinned_message", "reply_to_story"}
)
_NAMED_TYPES = (User, Chat, ChatFullInfo, Bot)


@dataclass(frozen=True, slots=True)
class MessageTexts:
    """Texts that may hold a code: those of whoever sent the update, and those that it shows of others."""

    own_texts: tuple[str, ...] = field(default=(), repr=False)
    quoted_texts: tuple[str, ...] = field(default=(), repr=False)

    @property
    def quoted_text(self) -> str:
        """Return the texts of others as one, which no address goes across."""
        return SEPARATOR.join(self.quoted_texts)


def collect_texts(update: Update, bot_id: str, *excluded: str) -> MessageTexts:
    """Return the texts that may hold a code, each once, without those that are `known`.

    `bot` is our bot's id: what it wrote itself, such as the address of a login, is not searched.
    """
    own, of_others, left = dict[str, None](), dict[str, None](), MAX_SEARCHED_CHARS
    for text, is_of_others in _texts(update, bot_id):
        left -= len(text)
        if left < 0:
            break
        if text not in excluded or is_of_others:
            (of_others if is_of_others else own)[text] = None
    return MessageTexts(
        tuple(text for text in own if may_contain_code(text)),
        tuple(text for text in of_others if may_contain_code(text)),
    )


def _texts(update: Update, bot_id: str) -> Iterator[tuple[str, bool]]:
    """Yield each text of an update, and whether it is of others than who sent the update."""
    waiting: list[tuple[object, bool]] = [(update, False)]
    while waiting:
        value, is_of_others = waiting.pop()
        if isinstance(value, str):
            yield value, is_of_others
        elif isinstance(value, (list, tuple)):
            waiting += [(each, is_of_others) for each in reversed(cast("list[object]", value))]
        elif isinstance(value, (TelegramObject, Mapping)) and not isinstance(value, _NAMED_TYPES):
            if isinstance(value, Message) and _is_from_bot(value, bot_id):
                continue
            skipped = _MACHINE_FIELDS
            if (
                isinstance(value, Message)
                and value.reply_to_message
                and _is_from_bot(value.reply_to_message, bot_id)
            ):
                # A part of our own message, perhaps of the link that opens a login.
                skipped = _MACHINE_FIELDS | {"quote"}
            waiting += [
                (each, is_of_others or name in _QUOTED_FIELDS)
                for name, each in reversed(
                    list(_members(cast("TelegramObject | Mapping[str, object]", value)))
                )
                if name not in skipped
            ]


def _members(value: TelegramObject | Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield what an object holds that is set, also members that the library does not know yet."""
    if isinstance(value, Mapping):
        yield from value.items()
        return
    for kind in type(value).__mro__:
        slots = cast("tuple[str, ...] | str", kind.__dict__.get("__slots__", ()))
        for name in (slots,) if isinstance(slots, str) else slots:
            # What begins so is the library's own, or a duration.
            if not name.startswith("_") and (member := getattr(value, name, None)):
                yield name, member


def _is_from_bot(message: Message, bot_id: str) -> bool:
    return message.from_user is not None and str(message.from_user.id) == bot_id
