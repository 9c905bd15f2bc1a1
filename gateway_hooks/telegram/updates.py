"""What an update says, and who says it where: from the library's values to ours. Pure.

Only people are heard, and only where Telegram vouches for who they are: not channels, not bots, not whoever
writes in a group in the name of the group. All else is searched for codes, and for nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from telegram import CallbackQuery, Message, MessageEntity, Update
from telegram.constants import ChatType

from gateway_hooks.dialog.intents import COMMANDS
from gateway_hooks.dialog.platform import IncomingEvent, Sender
from gateway_hooks.telegram.texts import MessageTexts, collect_texts
from hermes_mcp_auth_remote.values import Origin

PLATFORM = "telegram"


@dataclass(frozen=True, slots=True)
class ParsedUpdate:
    """One thing heard, where, and the press to answer if it was one.

    `business` is the id of the connection by which the bot sees the chat of a business account.
    """

    event: IncomingEvent
    origin: Origin
    is_private: bool
    query: CallbackQuery | None = None
    business_connection_id: str = ""


def parse_update(update: Update, bot_id: str, bot_username: str) -> ParsedUpdate | None:
    """Read an update; None where no person says anything. `bot` is our bot's id, `username` its name."""
    found = parse_user_update(update, bot_id, bot_username)
    if found is None:
        return None
    heard = found.event
    return (
        found
        if heard.command or heard.text or heard.callback_data or heard.quoted_text or heard.extra_texts
        else None
    )


def parse_user_update(update: Update, bot_id: str, bot_username: str) -> ParsedUpdate | None:
    """Read an update that may also be a picture, or a voice; None where no person sent it."""
    query, message = update.callback_query, update.message or update.edited_message
    if query is not None:
        return _parse_press(query, bot_id)
    if message is None or message.from_user is None or message.from_user.is_bot or message.sender_chat:
        return None
    text = message.text or message.caption or ""
    # An edited command was carried out when it was written; an edited paste may be the whole of it at last.
    command, length = ("", 0) if update.edited_message else _parse_command(message, bot_username)
    if command:
        # The entity alone says where the command ends: a tab, a comma or anything else may follow it.
        rest = text[length:]
        text = rest[1:] if rest[:1].isspace() else rest
    sender = Sender(str(message.from_user.id))
    heard = _with_texts(
        collect_texts(update, bot_id, message.text or "", message.caption or ""),
        IncomingEvent(sender, command, text, message_id=str(message.message_id)),
        message,
        bot_id,
    )
    return ParsedUpdate(heard, _origin_of(message, sender, bot_id), message.chat.type == ChatType.PRIVATE)


def parse_other_update(update: Update, bot_id: str) -> ParsedUpdate | None:
    """Read what no person sends to the bot itself, but may hold a code; None if it cannot.

    That is what is written in the name of a group or a channel, by another bot or in a business chat, and all
    that is no message: a query, a poll. Of these only people of a business chat are known by their id.
    """
    pieces = collect_texts(update, bot_id)
    if not (pieces.own_texts or pieces.quoted_texts):
        return None
    in_business = update.business_message or update.edited_business_message
    message = (
        in_business
        or update.message
        or update.edited_message
        or update.channel_post
        or update.edited_channel_post
    )
    if message is None:
        return ParsedUpdate(
            _with_texts(pieces, IncomingEvent(Sender(""))), Origin(PLATFORM, bot_id=bot_id), is_private=False
        )
    user = message.from_user
    is_known = in_business is not None and user is not None and not user.is_bot
    sender = Sender(str(user.id) if user is not None and is_known else "")
    heard = _with_texts(pieces, IncomingEvent(sender, message_id=str(message.message_id)), message, bot_id)
    connection = (in_business and in_business.business_connection_id) or ""
    return ParsedUpdate(
        heard, _origin_of(message, sender, bot_id), is_private=False, business_connection_id=connection
    )


def _with_texts(
    texts: MessageTexts, event: IncomingEvent, message: Message | None = None, bot_id: str = ""
) -> IncomingEvent:
    """Return what is heard with all texts of its update."""
    beside = None if message is None else message.reply_to_message or message.pinned_message
    # A message that is out of reach has no sender.
    sender = getattr(beside, "from_user", None)
    is_ours = sender is not None and str(sender.id) == bot_id
    return replace(
        event,
        extra_texts=texts.own_texts,
        quoted_text=texts.quoted_text,
        quoted_message_id="" if beside is None or is_ours else str(beside.message_id),
    )


def _parse_press(query: CallbackQuery, bot_id: str) -> ParsedUpdate | None:
    message = query.message
    # Where an application lets the library keep the data, it may be no text.
    if message is None or not isinstance(query.data, str) or query.from_user.is_bot:
        return None
    sender = Sender(str(query.from_user.id))
    heard = IncomingEvent(sender, callback_data=query.data, pressed_message_id=str(message.message_id))
    if isinstance(message, Message):
        origin = _origin_of(message, sender, bot_id)
    else:
        origin = Origin(PLATFORM, str(message.chat.id), "", sender.user_id, bot_id)
    return ParsedUpdate(heard, origin, message.chat.type == ChatType.PRIVATE, query)


def _origin_of(message: Message, sender: Sender, bot_id: str) -> Origin:
    # Replies in a group have a thread as well; only a topic is a place of its own.
    thread = str(message.message_thread_id) if message.is_topic_message else ""
    return Origin(PLATFORM, str(message.chat.id), thread, sender.user_id, bot_id)


def _parse_command(message: Message, bot_username: str) -> tuple[str, int]:
    """Return the command that a message begins with, and its length with "/" and the bot's name.

    ("", 0) if it is none of ours, or for another bot.
    """
    first = message.entities[0] if message.entities else None
    if not message.text or first is None or first.type != MessageEntity.BOT_COMMAND or first.offset:
        return "", 0
    # Commands and names of bots are ASCII: there the length, which is in UTF-16, is one in characters.
    name, _, addressed = message.text[1 : first.length].lower().partition("@")
    is_ours = name in COMMANDS and addressed in {"", bot_username.lower()}
    return (name, first.length) if is_ours else ("", 0)
