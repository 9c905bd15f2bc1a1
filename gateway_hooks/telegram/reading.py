"""What an update says, and who says it where: from the library's values to ours. Pure.

Only people are heard, and only where Telegram vouches for who they are: not channels, not bots, not whoever
writes in a group in the name of the group.
"""

from __future__ import annotations

from dataclasses import dataclass

from telegram import CallbackQuery, Message, MessageEntity, Update
from telegram.constants import ChatType

from gateway_hooks.chat import Heard, Sender
from gateway_hooks.meaning import COMMANDS
from hermes_mcp_auth_remote.values import Origin

PLATFORM = "telegram"


@dataclass(frozen=True, slots=True)
class Read:
    """One thing heard, where, and the press to answer if it was one."""

    heard: Heard
    origin: Origin
    is_private: bool
    query: CallbackQuery | None = None


def read(update: Update, bot: str, username: str) -> Read | None:
    """Read an update; None where no person says anything. `bot` is our bot's id, `username` its name."""
    found = whose(update, bot, username)
    if found is None:
        return None
    heard = found.heard
    return found if heard.command or heard.text or heard.pressed or heard.beside else None


def whose(update: Update, bot: str, username: str) -> Read | None:
    """Read an update that may also be a picture, or a voice; None where no person sent it."""
    query, message = update.callback_query, update.message or update.edited_message
    if query is not None:
        return _pressed(query, bot)
    if message is None or message.from_user is None or message.from_user.is_bot or message.sender_chat:
        return None
    text = message.text or message.caption or ""
    # An edited command was carried out when it was written; an edited paste may be the whole of it at last.
    command = "" if update.edited_message else _command(message, username)
    if command:
        text = text.partition(" ")[2] if " " in text.split("\n")[0] else text.partition("\n")[2]
    sender = Sender(str(message.from_user.id))
    heard = Heard(sender, command, text, message=str(message.message_id), beside=_beside(message, bot))
    return Read(heard, _origin(message, sender, bot), message.chat.type == ChatType.PRIVATE)


def overheard(update: Update, bot: str) -> Read | None:
    """Read what is written in the name of a group or a channel: by nobody, but perhaps with a code in it."""
    message = update.message or update.edited_message or update.channel_post or update.edited_channel_post
    if message is None or message.sender_chat is None:
        return None
    nobody, text = Sender(""), message.text or message.caption or ""
    heard = Heard(nobody, text=text, message=str(message.message_id), beside=_beside(message, bot))
    return Read(heard, _origin(message, nobody, bot), is_private=False)


def _beside(message: Message, bot: str) -> str:
    """Return what an application may read along with a message: a quote, or what it replies to."""
    replied = message.reply_to_message
    said = [] if message.quote is None else [message.quote.text]
    if replied is not None and (replied.from_user is None or str(replied.from_user.id) != bot):
        said.append(replied.text or replied.caption or "")
    return "\n".join(said)


def _pressed(query: CallbackQuery, bot: str) -> Read | None:
    message = query.message
    # Where an application lets the library keep the data, it may be no text.
    if message is None or not isinstance(query.data, str) or query.from_user.is_bot:
        return None
    sender = Sender(str(query.from_user.id))
    heard = Heard(sender, pressed=query.data, on=str(message.message_id))
    if isinstance(message, Message):
        origin = _origin(message, sender, bot)
    else:
        origin = Origin(PLATFORM, str(message.chat.id), "", sender.user, bot)
    return Read(heard, origin, message.chat.type == ChatType.PRIVATE, query)


def _origin(message: Message, sender: Sender, bot: str) -> Origin:
    # Replies in a group have a thread as well; only a topic is a place of its own.
    thread = str(message.message_thread_id) if message.is_topic_message else ""
    return Origin(PLATFORM, str(message.chat.id), thread, sender.user, bot)


def _command(message: Message, username: str) -> str:
    """Return the command that a message begins with, if it is one of ours and for this bot; else ""."""
    first = message.entities[0] if message.entities else None
    if not message.text or first is None or first.type != MessageEntity.BOT_COMMAND or first.offset:
        return ""
    name, _, addressed = message.text[1 : first.length].lower().partition("@")
    return name if name in COMMANDS and addressed in {"", username.lower()} else ""
