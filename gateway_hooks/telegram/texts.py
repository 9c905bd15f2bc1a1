"""Collect every text of an update from the library's objects. Pure.

Names of users and chats are excluded: a name is not a message. Otherwise, if a third party's name looked like
a code, the bot would withhold each update with this name from the application.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from telegram import Bot, Chat, ChatFullInfo, Message, TelegramObject, Update, User

from gateway_hooks.dialog.code_detection import MAX_SEARCHED_CHARS, SEPARATOR, may_contain_code

# Values that the Bot API generates, and names of users: no parts of a message's text.
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
# Fields with other users' messages, which the update shows along with the sender's message.
_QUOTED_FIELDS = frozenset(
    {"reply_to_message", "external_reply", "quote", "pinned_message", "reply_to_story"}
)
_NAMED_TYPES = (User, Chat, ChatFullInfo, Bot)


@dataclass(frozen=True, slots=True)
class MessageTexts:
    """Texts that may contain a code: the sender's own texts, and the texts that the update quotes."""

    own_texts: tuple[str, ...] = field(default=(), repr=False)
    quoted_texts: tuple[str, ...] = field(default=(), repr=False)

    @property
    def quoted_text(self) -> str:
        """The quoted texts as one text, separated so that no URL continues from one to the next."""
        return SEPARATOR.join(self.quoted_texts)


def collect_texts(update: Update, bot_id: str, *excluded: str) -> MessageTexts:
    """Return the texts that may contain a code, each once, without the sender's texts in `excluded`.

    `bot_id` is this bot's id: the bot's own messages are not searched, because they may have a login's URL.
    """
    own_texts, quoted_texts, remaining_chars = dict[str, None](), dict[str, None](), MAX_SEARCHED_CHARS
    for text, is_quoted in _texts(update, bot_id):
        remaining_chars -= len(text)
        if remaining_chars < 0:
            break
        if text not in excluded or is_quoted:
            (quoted_texts if is_quoted else own_texts)[text] = None
    return MessageTexts(
        tuple(text for text in own_texts if may_contain_code(text)),
        tuple(text for text in quoted_texts if may_contain_code(text)),
    )


def _texts(update: Update, bot_id: str) -> Iterator[tuple[str, bool]]:
    """Yield each text of an update, and whether it is quoted from another user."""
    remaining: list[tuple[object, bool]] = [(update, False)]
    while remaining:
        value, is_quoted = remaining.pop()
        if isinstance(value, str):
            yield value, is_quoted
        elif isinstance(value, (list, tuple)):
            remaining += [(member, is_quoted) for member in reversed(cast("list[object]", value))]
        elif isinstance(value, (TelegramObject, Mapping)) and not isinstance(value, _NAMED_TYPES):
            if isinstance(value, Message) and _is_from_bot(value, bot_id):
                continue
            skipped = _MACHINE_FIELDS
            if (
                isinstance(value, Message)
                and value.reply_to_message
                and _is_from_bot(value.reply_to_message, bot_id)
            ):
                # The quote is a part of the bot's own message, perhaps a part of a login's URL.
                skipped = _MACHINE_FIELDS | {"quote"}
            remaining += [
                (member, is_quoted or name in _QUOTED_FIELDS)
                for name, member in reversed(
                    list(_members(cast("TelegramObject | Mapping[str, object]", value)))
                )
                if name not in skipped
            ]


def _members(value: TelegramObject | Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """Yield the non-empty members of an object, including those that the library does not know."""
    if isinstance(value, Mapping):
        yield from value.items()
        return
    for kind in type(value).__mro__:
        slots = cast("tuple[str, ...] | str", kind.__dict__.get("__slots__", ()))
        for name in (slots,) if isinstance(slots, str) else slots:
            # A leading underscore marks the library's internals and durations.
            if not name.startswith("_") and (member := getattr(value, name, None)):
                yield name, member


def _is_from_bot(message: Message, bot_id: str) -> bool:
    return message.from_user is not None and str(message.from_user.id) == bot_id
