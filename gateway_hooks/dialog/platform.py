"""What we need of a platform: two small protocols that an adapter fills, and the two ways they fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from gateway_hooks.dialog.cards import Card
from hermes_mcp_auth_remote.values import Origin


class ChatError(Exception):
    """A platform did not do what was asked. The text names no address, code or token."""


class CannotWrite(ChatError):
    """The bot may not write to that person, or not there, until the person does something."""


class MessageGone(ChatError):
    """The message cannot be changed any more: deleted, too old, or out of reach since a restart."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a platform's people can be offered; a conversation speaks accordingly.

    `forms`: an answer can be typed where nobody else sees it, and stays in no history. `deletes`: the bot may
    delete what a person wrote to it. `copies`: a button puts a text on the person's clipboard. `commands` is
    what stands before a command's name, such as "/" or "/mcpauth ".
    """

    has_buttons: bool = True
    has_forms: bool = False
    can_delete: bool = True
    can_copy: bool = True
    command_prefix: str = "/"


@dataclass(frozen=True, slots=True)
class Sender:
    """Who is speaking, as the platform vouches for it: ids as text; `roles` and `guild` where it has such."""

    user_id: str
    roles: frozenset[str] = frozenset()
    guild_id: str = ""


@dataclass(frozen=True, slots=True)
class IncomingEvent:
    """One thing that a person did: a command, a plain message, or a button.

    `message` is the id of the message that they wrote, `on` of the one whose button they pressed; empty
    where there is none. `text` is the rest of a command, the plain message, or what came in a form: hostile,
    and perhaps a secret. So is `parts`: what else they sent in the same message, such as the address behind a
    link or a file's name. And so is `beside`: what others are shown along with it, the message that it
    replies to or a quote of one, where the bot itself has not written that. `beside_message` is the id of the
    message, in the same chat, that `beside` stands in.
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


class Chat(Protocol):
    """One place where a person and the bot talk. Message ids are the platform's, as text."""

    @property
    def origin(self) -> Origin:
        """Where this is, and whom the bot talks to."""
        ...

    @property
    def is_private(self) -> bool:
        """True where nobody but that person reads what the bot writes."""
        ...

    async def send(self, card: Card) -> str:
        """Write a message and return its id; raises CannotWrite, ChatError."""
        ...

    async def send_picture(self, png: bytes, card: Card) -> str:
        """Write a message with a picture and return its id; raises CannotWrite, ChatError."""
        ...

    async def edit(self, message_id: str, card: Card) -> None:
        """Change a message of ours; raises MessageGone, ChatError."""
        ...

    async def delete(self, message_id: str) -> bool:
        """Delete a message, ours or theirs; False where the platform does not let us."""
        ...

    async def show_toast(self, text: str) -> None:
        """Answer a press with a word that does not stay; does nothing where there was none."""
        ...


class Platform(Protocol):
    """A platform that we are connected to, by one bot."""

    @property
    def name(self) -> str:
        """The word in `Origin.platform`."""
        ...

    @property
    def bot_id(self) -> str:
        """The bot's own id, for `Origin.bot`."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What it offers."""
        ...

    def private_chat(self, user_id: str) -> Chat:
        """Return the chat in which the bot writes to a user without being spoken to; nobody else reads it.

        Its `origin` is that of a login which is asked for there.
        """
        ...

    async def fetch_sender(self, user_id: str) -> Sender:
        """Return a user as they would be heard, for asking the policy about them; raises ChatError."""
        ...

    def deep_link(self, payload: str) -> str | None:
        """Return an address that opens the private chat and brings `payload` back as a start command's text.

        None where the platform has none. The payload has at most 64 characters of A-Z, a-z, 0-9, _ and -.
        """
        ...
