"""Parse Telegram updates into events, with their sender and chat. Pure.

Only a user that Telegram identifies can use the bot. Channels, bots, and anonymous administrators who write
in the name of a group cannot use the bot. The package only searches all other updates for codes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from telegram import CallbackQuery, Message, MessageEntity, Update
from telegram.constants import ChatType

from gateway_hooks.dialog.intents import COMMANDS
from gateway_hooks.dialog.platform import IncomingEvent, Sender
from gateway_hooks.telegram.texts import MessageTexts, collect_texts
from hermes_mcp_auth_remote.platforms import TELEGRAM
from hermes_mcp_auth_remote.values import Origin

PLATFORM = TELEGRAM.name


@dataclass(frozen=True, slots=True)
class ParsedUpdate:
    """An event, its chat, and the callback query to answer if a button was pressed.

    `business_connection_id` is set if the bot reads the chat through a business account.
    """

    event: IncomingEvent
    origin: Origin
    is_private: bool
    query: CallbackQuery | None = None
    business_connection_id: str = ""


def parse_update(
    update: Update, bot_id: str, bot_username: str, command_prefix: str = "/"
) -> ParsedUpdate | None:
    """Parse an update; return None if no user sent it, or if it contains nothing to handle.

    `command_prefix` precedes the names of this package's commands, such as "/" or "/mcp_".
    """
    parsed = parse_user_update(update, bot_id, bot_username, command_prefix)
    if parsed is None:
        return None
    event = parsed.event
    return (
        parsed
        if event.command or event.text or event.callback_data or event.quoted_text or event.extra_texts
        else None
    )


def parse_user_update(
    update: Update, bot_id: str, bot_username: str, command_prefix: str = "/"
) -> ParsedUpdate | None:
    """Parse an update of a user, even without text (a picture); return None if no user sent it."""
    query, message = update.callback_query, update.message or update.edited_message
    if query is not None:
        return _parse_press(query, bot_id)
    if message is None or message.from_user is None or message.from_user.is_bot or message.sender_chat:
        return None
    text = message.text or message.caption or ""
    # An edited command ran before the edit: do not run it again. An edited answer may be complete only now.
    # A command that was forwarded, or that another bot composed, is not the sender's own: it could name any
    # address.
    command, length = "", 0
    if not (update.edited_message or message.forward_origin or message.via_bot):
        command, length = _parse_command(message, bot_username, command_prefix)
    if command:
        # Only the entity tells where the command ends: any character may follow it.
        rest = text[length:]
        text = rest[1:] if rest[:1].isspace() else rest
    sender = Sender(str(message.from_user.id))
    event = _with_texts(
        collect_texts(update, bot_id, message.text or "", message.caption or ""),
        IncomingEvent(sender, command, text, message_id=str(message.message_id)),
        message,
        bot_id,
    )
    return ParsedUpdate(event, _origin_of(message, sender, bot_id), message.chat.type == ChatType.PRIVATE)


def parse_other_update(update: Update, bot_id: str) -> ParsedUpdate | None:
    """Parse an update that no user sent to the bot; None if it cannot contain a code.

    Such an update is a message in the name of a group or channel, a message by another bot, a message in a
    business chat, or an update without a message, such as a poll. The sender has an id only if a user wrote
    the message in a business chat.
    """
    texts = collect_texts(update, bot_id)
    if not (texts.own_texts or texts.quoted_texts):
        return None
    business_message = update.business_message or update.edited_business_message
    message = (
        business_message
        or update.message
        or update.edited_message
        or update.channel_post
        or update.edited_channel_post
    )
    if message is None:
        return ParsedUpdate(
            _with_texts(texts, IncomingEvent(Sender(""))), Origin(PLATFORM, bot_id=bot_id), is_private=False
        )
    user = message.from_user
    is_business_person = business_message is not None and user is not None and not user.is_bot
    sender = Sender(str(user.id) if user is not None and is_business_person else "")
    event = _with_texts(texts, IncomingEvent(sender, message_id=str(message.message_id)), message, bot_id)
    connection_id = (business_message and business_message.business_connection_id) or ""
    return ParsedUpdate(
        event, _origin_of(message, sender, bot_id), is_private=False, business_connection_id=connection_id
    )


def _with_texts(
    texts: MessageTexts, event: IncomingEvent, message: Message | None = None, bot_id: str = ""
) -> IncomingEvent:
    """Return the event with all texts of its update."""
    quoted_message = None if message is None else message.reply_to_message or message.pinned_message
    # An inaccessible message has no sender.
    sender = getattr(quoted_message, "from_user", None)
    is_from_bot = sender is not None and str(sender.id) == bot_id
    return replace(
        event,
        extra_texts=texts.own_texts,
        quoted_text=texts.quoted_text,
        quoted_message_id="" if quoted_message is None or is_from_bot else str(quoted_message.message_id),
    )


def _parse_press(query: CallbackQuery, bot_id: str) -> ParsedUpdate | None:
    message = query.message
    # The data is not a string if the application uses arbitrary callback data.
    if message is None or not isinstance(query.data, str) or query.from_user.is_bot:
        return None
    sender = Sender(str(query.from_user.id))
    event = IncomingEvent(sender, callback_data=query.data, pressed_message_id=str(message.message_id))
    if isinstance(message, Message):
        origin = _origin_of(message, sender, bot_id)
    else:
        origin = Origin(PLATFORM, str(message.chat.id), "", sender.user_id, bot_id)
    return ParsedUpdate(event, origin, message.chat.type == ChatType.PRIVATE, query)


def _origin_of(message: Message, sender: Sender, bot_id: str) -> Origin:
    # Replies in a group also have a thread id. Only a topic is a separate conversation.
    thread_id = str(message.message_thread_id) if message.is_topic_message else ""
    return Origin(PLATFORM, str(message.chat.id), thread_id, sender.user_id, bot_id)


def _parse_command(message: Message, bot_username: str, command_prefix: str) -> tuple[str, int]:
    """Return the command at the start of a message, and its length with "/" and the bot's name.

    Return ("", 0) if it is not a command of this package, or is addressed to another bot.
    """
    entity = message.entities[0] if message.entities else None
    if not message.text or entity is None or entity.type != MessageEntity.BOT_COMMAND or entity.offset:
        return "", 0
    # Commands and bot names are ASCII, so the length in UTF-16 units is the length in characters.
    name, _, addressee = message.text[1 : entity.length].lower().partition("@")
    # Telegram itself sends /start, so it has no prefix.
    prefix = "" if name == "start" else command_prefix.removeprefix("/")
    if not name.startswith(prefix):
        return "", 0
    name = name.removeprefix(prefix)
    is_ours = name in COMMANDS and addressee in {"", bot_username.lower()}
    return (name, entity.length) if is_ours else ("", 0)
