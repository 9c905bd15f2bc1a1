"""Any platform of Hermes's in plain text: messages through Hermes's own adapter, without buttons."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway_hooks.dialog.cards import Card, spans
from gateway_hooks.dialog.platform import Abilities, CannotWrite, Chat, ChatError, MessageGone, Sender
from gateway_hooks.hermes.internals import Attached
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Origin

PREFIX = "/mcpauth "
# Marks of Markdown, and of Slack's mentions, as letters that look like them.
_MARKS = str.maketrans("*_~[]<>|", "∗ˍ∼［］‹›ǀ")
_BRACKETS = str.maketrans("[]<>", "［］‹›")
# What a platform would take for an address or a mention.
_FINDABLE = re.compile(r"\w\.\w|\w://|(?<!\w)[@#]\w")
# What stands for a message whose id the platform does not tell.
NO_ID = "?"


class PlainPlatform:
    """A platform of which we know no more than Hermes does. `last_chat` finds a person's private chat."""

    def __init__(self, attached: Attached, last_chat: Callable[[str], str | None]) -> None:
        self._attached = attached
        self._last_chat = last_chat

    @property
    def name(self) -> str:
        """The word in `Origin.platform`."""
        return self._attached.name

    @property
    def bot(self) -> str:
        """Whose bot this is: a profile's, as far as Hermes tells."""
        return self._attached.profile or "main"

    @property
    def can(self) -> Abilities:
        """What can be offered: words."""
        return Abilities(buttons=False, copies=False, commands=PREFIX)

    def private_chat(self, user: str) -> Chat:
        """Return the private chat that the person has last written in; none can be opened."""
        return self.chat(self._last_chat(user) or "", user, is_private=True)

    def chat(self, chat: str, user: str, thread: str = "", *, is_private: bool) -> PlainChat:
        """Return a place where a person speaks."""
        origin = Origin(self.name, chat, thread, user, self.bot)
        return PlainChat(self._attached.adapter, origin, is_private=is_private)

    async def sender(self, user: str) -> Sender:
        """Return a user as they would be heard in private."""
        return Sender(user)

    def invitation(self, payload: str) -> str | None:  # noqa: ARG002  the protocol's
        """Return None: there is no such address."""
        return None


class PlainChat:
    """A chat by Hermes's adapter."""

    def __init__(self, adapter: Any, origin: Origin, *, is_private: bool) -> None:  # noqa: ANN401  Hermes's own
        self._adapter = adapter
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
        sent = await self._asked("send", self._chat(), text(card), metadata=self._metadata())
        return _id(sent)

    async def send_picture(self, png: bytes, card: Card) -> str:
        """Write a message with a picture, which lies in a private file for that moment; raises ChatError."""
        with tempfile.TemporaryDirectory(prefix="mcp-auth-") as folder:
            path = Path(folder) / "code.png"
            await run_file_work(path.write_bytes, png)
            caption, metadata = text(card), self._metadata()
            sent = await self._asked(
                "send_image_file", self._chat(), str(path), caption=caption, metadata=metadata
            )
        return _id(sent)

    async def edit(self, message: str, card: Card) -> None:
        """Change a message; raises MessageGone where the platform does not let us."""
        if message == NO_ID:
            raise MessageGone("The message has no id.")
        try:
            await self._asked("edit_message", self._chat(), message, text(card))
        except ChatError:
            raise MessageGone("The message cannot be changed.") from None

    async def delete(self, message: str) -> bool:
        """Delete a message; False where the platform does not let us."""
        if message == NO_ID:
            return False
        try:
            return bool(await self._adapter.delete_message(self._chat(), message))
        except Exception:  # noqa: BLE001  its text may name anything
            return False

    async def note(self, text: str) -> None:
        """Do nothing: there is nothing to press."""

    def _chat(self) -> str:
        if not self._origin.chat:
            raise CannotWrite("The person has not written to the bot in private yet.")
        return self._origin.chat

    def _metadata(self) -> dict[str, str] | None:
        return {"thread_id": self._origin.thread} if self._origin.thread else None

    async def _asked(self, what: str, *arguments: object, **options: object) -> Any:  # noqa: ANN401
        """Have the adapter do something; raises ChatError without the adapter's own words."""
        try:
            outcome = await getattr(self._adapter, what)(*arguments, **options)
        except Exception as trouble:  # noqa: BLE001  its text may name anything
            raise ChatError(f"The platform refused: {type(trouble).__name__}.") from None
        if not getattr(outcome, "success", False):
            raise ChatError("The platform did not take a message.")
        return outcome


def text(card: Card) -> str:
    """Write a card for adapters that read Markdown: what others wrote stays between backticks.

    A server's words stand in sentences as well, where they are no link, mention or markup.
    """
    url = None if card.link is None else card.link.url
    runs = spans(card, with_link=True)
    return "".join(run if run == url else _set(run, style) for run, style in runs)


def _set(run: str, style: str) -> str:
    if style == "code":
        return f"`{run.replace('`', 'ˋ')}`"
    words = (
        f"`{word.translate(_BRACKETS)}`" if _FINDABLE.search(word) else word.translate(_MARKS)
        for word in re.split(r"(\s+)", run.replace("`", ""))
    )
    harmless = "".join(words)
    return f"**{harmless}**" if style == "bold" else harmless


def _id(sent: Any) -> str:  # noqa: ANN401
    return str(getattr(sent, "message_id", None) or NO_ID)
