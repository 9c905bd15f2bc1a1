"""Chats on any platform of Hermes: plain text through Hermes's own adapter, without buttons."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway_hooks.dialog.cards import Card, spans
from gateway_hooks.dialog.platform import (
    CannotWrite,
    Capabilities,
    Chat,
    ChatBase,
    ChatError,
    MessageGone,
    Sender,
)
from gateway_hooks.hermes.internals import UNKNOWN_MESSAGE_ID, AdapterRef, call_adapter, delete_message
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Origin

COMMAND_PREFIX = "/mcpauth "
# Replace marks of Markdown and of Slack's mentions by characters that look alike.
_MARKUP_LOOKALIKES = str.maketrans("*_~[]<>|", "∗ˍ∼［］‹›ǀ")
_BRACKET_LOOKALIKES = str.maketrans("[]<>", "［］‹›")
# Text that a platform may turn into a link or a mention.
_AUTOLINKED_TEXT = re.compile(r"\w\.\w|\w://|(?<!\w)[@#]\w")


class PlainTextPlatform:
    """A platform that is reached only through Hermes. `find_private_chat_id` maps a user id to a chat id."""

    def __init__(self, adapter_ref: AdapterRef, find_private_chat_id: Callable[[str], str | None]) -> None:
        self._adapter_ref = adapter_ref
        self._find_private_chat_id = find_private_chat_id

    @property
    def name(self) -> str:
        """The value of `Origin.platform`."""
        return self._adapter_ref.platform_name

    @property
    def bot_id(self) -> str:
        """The name of the Hermes profile that the bot belongs to."""
        return self._adapter_ref.profile or "main"

    @property
    def capabilities(self) -> Capabilities:
        """What the platform offers: text only."""
        return Capabilities(has_buttons=False, can_copy=False, command_prefix=COMMAND_PREFIX)

    def private_chat(self, user_id: str) -> Chat:
        """Return the private chat that the user last wrote in. The bot cannot open a private chat itself."""
        return self.chat_for(self._find_private_chat_id(user_id) or "", user_id, is_private=True)

    def chat_for(self, chat_id: str, user_id: str, thread_id: str = "", *, is_private: bool) -> PlainTextChat:
        """Return a chat with a user."""
        origin = Origin(self.name, chat_id, thread_id, user_id, self.bot_id)
        return PlainTextChat(self._adapter_ref.platform_adapter, origin, is_private=is_private)

    async def fetch_sender(self, user_id: str) -> Sender:
        """Return the user as the sender of a private message."""
        return Sender(user_id)

    def deep_link(self, payload: str) -> str | None:  # noqa: ARG002  the protocol's
        """Return None: no link to the bot is known."""
        return None


class PlainTextChat(ChatBase):
    """A chat through Hermes's adapter."""

    def __init__(self, platform_adapter: Any, origin: Origin, *, is_private: bool) -> None:  # noqa: ANN401  Hermes's own
        super().__init__(origin, is_private=is_private)
        self._platform_adapter = platform_adapter

    async def send(self, card: Card) -> str:
        """Send a message and return its id; raises CannotWrite, ChatError."""
        return await call_adapter(
            self._platform_adapter,
            "send",
            self._require_chat_id(),
            render_markdown(card),
            metadata=self._metadata(),
        )

    async def send_picture(self, png: bytes, card: Card) -> str:
        """Send a message with a picture from a temporary private file; raises CannotWrite, ChatError."""
        with tempfile.TemporaryDirectory(prefix="mcp-auth-") as folder:
            path = Path(folder) / "code.png"
            await run_file_work(path.write_bytes, png)
            caption, metadata = render_markdown(card), self._metadata()
            return await call_adapter(
                self._platform_adapter,
                "send_image_file",
                self._require_chat_id(),
                str(path),
                caption=caption,
                metadata=metadata,
            )

    async def edit(self, message_id: str, card: Card) -> None:
        """Edit a message; raises MessageGone if the platform cannot."""
        if message_id == UNKNOWN_MESSAGE_ID:
            raise MessageGone("The message has no id.")
        try:
            await call_adapter(
                self._platform_adapter,
                "edit_message",
                self._require_chat_id(),
                message_id,
                render_markdown(card),
            )
        except ChatError:
            raise MessageGone("The message cannot be changed.") from None

    async def delete(self, message_id: str) -> bool:
        """Delete a message; return False if the platform cannot."""
        if message_id == UNKNOWN_MESSAGE_ID:
            return False
        try:
            return await delete_message(self._platform_adapter, self._require_chat_id(), message_id)
        except CannotWrite:
            return False

    async def show_toast(self, text: str) -> None:
        """Do nothing: there are no buttons."""

    def _require_chat_id(self) -> str:
        if not self._origin.chat_id:
            raise CannotWrite("The user has not written to the bot in private yet.")
        return self._origin.chat_id

    def _metadata(self) -> dict[str, str] | None:
        return {"thread_id": self._origin.thread_id} if self._origin.thread_id else None


def render_markdown(card: Card) -> str:
    """Render a card as Markdown for Hermes's adapters.

    Text from servers cannot become a link, a mention or markup: its marks are replaced or quoted.
    """
    url = None if card.link is None else card.link.url
    return "".join(
        text if text == url else _format_span(text, style) for text, style in spans(card, with_link=True)
    )


def _format_span(text: str, style: str) -> str:
    if style == "code":
        return f"`{text.replace('`', 'ˋ')}`"
    words = (
        f"`{word.translate(_BRACKET_LOOKALIKES)}`"
        if _AUTOLINKED_TEXT.search(word)
        else word.translate(_MARKUP_LOOKALIKES)
        for word in re.split(r"(\s+)", text.replace("`", ""))
    )
    escaped = "".join(words)
    return f"**{escaped}**" if style == "bold" else escaped
