"""The interface of a chat platform: two protocols for an adapter, their values and their errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from gateway_hooks.dialog.cards import Card
from hermes_mcp_auth_remote.values import Origin


class ChatError(Exception):
    """The platform failed or refused a call. The text contains no URL, code or token."""


class CannotWrite(ChatError):
    """The bot may not write to that user or chat until the user acts, for example opens the chat."""


class PlatformUnreachable(ChatError):
    """The platform cannot be reached or asks to wait: the same call may succeed later.

    `retry_seconds` is how long the platform asks to wait, 0 if it does not say.
    """

    def __init__(self, message: str, retry_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class MessageGone(ChatError):
    """The message can no longer be edited: it is deleted, too old, or unreachable since a restart."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The features of a platform, which decide what the bot says and offers.

    `has_forms`: a user can type an answer in a private form that leaves no message. `can_delete`: the bot may
    delete the messages that a user sends to the bot. `can_copy`: a button can copy a text to the clipboard.
    `has_time_tags`: the platform shows `cards.time_mark` in the user's own time zone.
    `command_prefix` precedes a command's name, such as "/" or "/mcpauth ". `word_prefix` precedes a word that
    is no command of the platform's menu: "approve" and "people".
    """

    has_buttons: bool = True
    has_forms: bool = False
    can_delete: bool = True
    can_copy: bool = True
    has_time_tags: bool = False
    command_prefix: str = "/"
    word_prefix: str = "/"


@dataclass(frozen=True, slots=True)
class Sender:
    """A user that the platform has authenticated.

    `roles` and `guild_id` are empty if the platform has none.
    """

    user_id: str
    roles: frozenset[str] = frozenset()
    guild_id: str = ""


@dataclass(frozen=True, slots=True)
class IncomingEvent:
    """One action of a user: a command, a plain message, or the press of a button.

    The id of a message that does not exist is empty. All texts are untrusted and may contain secrets.

    `text`: the text after a command's name, the plain message, or the text typed into a form.
    `message_id`: the message that the user wrote.
    `callback_data`, `pressed_message_id`: the pressed button's action, and the message with the button.
    `extra_texts`: other texts in the same message, such as the URL behind a link or a file name.
    `quoted_text`: text that the chat shows along with the message, such as a message that the user replies
    to; empty if the bot wrote it. `quoted_message_id`: the message in the same chat with `quoted_text`.
    `earlier_message_ids`: earlier messages with the first parts of `text`, if it came in several messages.
    """

    sender: Sender
    command: str = ""
    text: str = field(default="", repr=False)
    callback_data: str = ""
    message_id: str = ""
    pressed_message_id: str = ""
    quoted_text: str = field(default="", repr=False)
    extra_texts: tuple[str, ...] = field(default=(), repr=False)
    quoted_message_id: str = ""
    earlier_message_ids: tuple[str, ...] = ()

    @property
    def message_ids(self) -> tuple[str, ...]:
        """The ids of the messages with a code that the bot must delete."""
        ids = (*self.earlier_message_ids, self.message_id, self.quoted_message_id)
        return tuple(message_id for message_id in ids if message_id)


class Chat(Protocol):
    """A chat between the bot and a user. Message ids are the platform's, as text."""

    @property
    def origin(self) -> Origin:
        """The chat and the user that the bot talks to."""
        ...

    @property
    def is_private(self) -> bool:
        """True if only that user can read the bot's messages."""
        ...

    async def send(self, card: Card) -> str:
        """Send a message and return its id; raises CannotWrite, ChatError."""
        ...

    async def send_picture(self, png: bytes, card: Card) -> str:
        """Send a message with a picture and return its id; raises CannotWrite, ChatError."""
        ...

    async def edit(self, message_id: str, card: Card) -> None:
        """Edit a message of the bot; raises MessageGone, ChatError."""
        ...

    async def delete(self, message_id: str) -> bool:
        """Delete a message of the bot or the user; return False if the platform does not allow it.

        Raises PlatformUnreachable if a later try may succeed, ChatError.
        """
        ...

    async def show_toast(self, text: str) -> None:
        """Answer the press of a button with a short-lived text; do nothing if no button was pressed."""
        ...


class ChatBase:
    """The origin and the privacy of a chat. The chats of the adapters inherit from this class."""

    def __init__(self, origin: Origin, *, is_private: bool) -> None:
        self._origin = origin
        self._is_private = is_private

    @property
    def origin(self) -> Origin:
        """The chat and the user that the bot talks to."""
        return self._origin

    @property
    def is_private(self) -> bool:
        """True if only that user can read the bot's messages."""
        return self._is_private


class Platform(Protocol):
    """A chat platform, connected through one bot."""

    @property
    def name(self) -> str:
        """The value of `Origin.platform`."""
        ...

    @property
    def bot_id(self) -> str:
        """The bot's own id, the value of `Origin.bot_id`."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """The features of the platform."""
        ...

    def private_chat(self, user_id: str) -> Chat:
        """Return the private chat with a user; the bot may send the first message there.

        The chat's `origin` is also the origin of each login that the user starts there.
        """
        ...

    async def fetch_sender(self, user_id: str) -> Sender:
        """Return the Sender that an event from this user would contain; raises ChatError."""
        ...

    def deep_link(self, payload: str) -> str | None:
        """Return a URL that opens the private chat and sends `payload` as the start command's text.

        Return None if the platform has no such URL. The payload has at most 64 characters of A-Z, a-z, 0-9, _
        and -.
        """
        ...
