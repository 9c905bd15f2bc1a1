"""Any platform of Hermes's in plain text: messages through Hermes's own adapter, without buttons."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway_hooks.dialog.cards import Card, spans
from gateway_hooks.dialog.platform import CannotWrite, Capabilities, Chat, ChatError, MessageGone, Sender
from gateway_hooks.hermes.internals import AdapterRef
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Origin

COMMAND_PREFIX = "/mcpauth "
# Marks of Markdown, and of Slack's mentions, as letters that look like them.
_MARKUP_LOOKALIKES = str.maketrans("*_~[]<>|", "∗ˍ∼［］‹›ǀ")
_BRACKET_LOOKALIKES = str.maketrans("[]<>", "［］‹›")
# What a platform would take for an address or a mention.
_AUTOLINKED_TEXT = re.compile(r"\w\.\w|\w://|(?<!\w)[@#]\w")
# What stands for a message whose id the platform does not tell.
UNKNOWN_MESSAGE_ID = "?"


class PlainTextPlatform:
    """A platform of which we know no more than Hermes does. `last_chat` finds a person's private chat."""

    def __init__(self, adapter_ref: AdapterRef, find_private_chat_id: Callable[[str], str | None]) -> None:
        self._adapter_ref = adapter_ref
        self._find_private_chat_id = find_private_chat_id

    @property
    def name(self) -> str:
        """The word in `Origin.platform`."""
        return self._adapter_ref.platform_name

    @property
    def bot_id(self) -> str:
        """Whose bot this is: a profile's, as far as Hermes tells."""
        return self._adapter_ref.profile or "main"

    @property
    def capabilities(self) -> Capabilities:
        """What can be offered: words."""
        return Capabilities(has_buttons=False, can_copy=False, command_prefix=COMMAND_PREFIX)

    def private_chat(self, user_id: str) -> Chat:
        """Return the private chat that the person has last written in; none can be opened."""
        return self.chat_for(self._find_private_chat_id(user_id) or "", user_id, is_private=True)

    def chat_for(self, chat_id: str, user_id: str, thread_id: str = "", *, is_private: bool) -> PlainTextChat:
        """Return a place where a person speaks."""
        origin = Origin(self.name, chat_id, thread_id, user_id, self.bot_id)
        return PlainTextChat(self._adapter_ref.platform_adapter, origin, is_private=is_private)

    async def fetch_sender(self, user_id: str) -> Sender:
        """Return a user as they would be heard in private."""
        return Sender(user_id)

    def deep_link(self, payload: str) -> str | None:  # noqa: ARG002  the protocol's
        """Return None: there is no such address."""
        return None


class PlainTextChat:
    """A chat by Hermes's adapter."""

    def __init__(self, platform_adapter: Any, origin: Origin, *, is_private: bool) -> None:  # noqa: ANN401  Hermes's own
        self._platform_adapter = platform_adapter
        self._origin = origin
        self._is_private = is_private

    @property
    def origin(self) -> Origin:
        """Where this is, and whom the bot talks to."""
        return self._origin

    @property
    def is_private(self) -> bool:
        """True where nobody but that person reads what the bot writes."""
        return self._is_private

    async def send(self, card: Card) -> str:
        """Write a message; raises CannotWrite, ChatError."""
        sent = await self._call_adapter(
            "send", self._require_chat_id(), render_markdown(card), metadata=self._metadata()
        )
        return _message_id_of(sent)

    async def send_picture(self, png: bytes, card: Card) -> str:
        """Write a message with a picture, which lies in a private file for that moment; raises ChatError."""
        with tempfile.TemporaryDirectory(prefix="mcp-auth-") as folder:
            path = Path(folder) / "code.png"
            await run_file_work(path.write_bytes, png)
            caption, metadata = render_markdown(card), self._metadata()
            sent = await self._call_adapter(
                "send_image_file", self._require_chat_id(), str(path), caption=caption, metadata=metadata
            )
        return _message_id_of(sent)

    async def edit(self, message_id: str, card: Card) -> None:
        """Change a message; raises MessageGone where the platform does not let us."""
        if message_id == UNKNOWN_MESSAGE_ID:
            raise MessageGone("The message has no id.")
        try:
            await self._call_adapter(
                "edit_message", self._require_chat_id(), message_id, render_markdown(card)
            )
        except ChatError:
            raise MessageGone("The message cannot be changed.") from None

    async def delete(self, message_id: str) -> bool:
        """Delete a message; False where the platform does not let us."""
        if message_id == UNKNOWN_MESSAGE_ID:
            return False
        try:
            return bool(await self._platform_adapter.delete_message(self._require_chat_id(), message_id))
        except Exception:  # noqa: BLE001  its text may name anything
            return False

    async def show_toast(self, text: str) -> None:
        """Do nothing: there is nothing to press."""

    def _require_chat_id(self) -> str:
        if not self._origin.chat_id:
            raise CannotWrite("The person has not written to the bot in private yet.")
        return self._origin.chat_id

    def _metadata(self) -> dict[str, str] | None:
        return {"thread_id": self._origin.thread_id} if self._origin.thread_id else None

    async def _call_adapter(self, method_name: str, *arguments: object, **options: object) -> Any:  # noqa: ANN401
        """Have the adapter do something; raises ChatError without the adapter's own words."""
        try:
            outcome = await getattr(self._platform_adapter, method_name)(*arguments, **options)
        except Exception as trouble:  # noqa: BLE001  its text may name anything
            raise ChatError(f"The platform refused: {type(trouble).__name__}.") from None
        if not getattr(outcome, "success", False):
            raise ChatError("The platform did not take a message.")
        return outcome


def render_markdown(card: Card) -> str:
    """Write a card for adapters that read Markdown: what others wrote stays between backticks.

    A server's words stand in sentences as well, where they are no link, mention or markup.
    """
    url = None if card.link is None else card.link.url
    runs = spans(card, with_link=True)
    return "".join(run if run == url else _format_span(run, style) for run, style in runs)


def _format_span(text: str, style: str) -> str:
    if style == "code":
        return f"`{text.replace('`', 'ˋ')}`"
    words = (
        f"`{word.translate(_BRACKET_LOOKALIKES)}`"
        if _AUTOLINKED_TEXT.search(word)
        else word.translate(_MARKUP_LOOKALIKES)
        for word in re.split(r"(\s+)", text.replace("`", ""))
    )
    harmless = "".join(words)
    return f"**{harmless}**" if style == "bold" else harmless


def _message_id_of(send_result: Any) -> str:  # noqa: ANN401
    return str(getattr(send_result, "message_id", None) or UNKNOWN_MESSAGE_ID)
