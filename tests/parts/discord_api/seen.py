"""Inspection of the local Discord: what a user sees, and all recorded traffic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from . import transcript
from .handle import Handle
from .messages import Interaction, Message, Modal
from .state import Call
from .world import Channel, Guild, Json, User


class Seen(Handle):
    """The read-only methods of DiscordApi. Returned messages are copies."""

    def copy(self, message: Message) -> Message:
        return self._state.copy(message)

    def messages(self, channel: Channel, *, seen_by: User | None = None) -> list[Message]:
        """Return a channel's messages, oldest first; without `seen_by` all ephemeral ones too."""
        who = seen_by.id if seen_by is not None else None
        return self._in_loop(lambda: [self.copy(one) for one in self._state.shown(channel.id, who)])

    def fresh(self, message: Message) -> Message:
        """Return a current copy of a message, which may be `deleted`."""
        return self._in_loop(lambda: self.copy(self._state.messages[message.id]))

    def file(self, message: Message, name: str | None = None) -> bytes:
        """Return the content of a message's attachment: of that name, or the first."""
        urls = [one["url"] for one in message.attachments if name in {None, one["filename"]}]
        if not urls:
            raise AssertionError(f"No such attachment: {name}")
        path = urls[0].removeprefix(self._state.base_url)
        return self._in_loop(lambda: self._state.files[path])

    def modals(self, user: User) -> list[Modal]:
        """Return the modals that a user has open, the newest last."""
        return self._in_loop(lambda: [m for m in self._state.modals if m.user == user and not m.submitted])

    def failed(self, interaction: Interaction) -> bool:
        """Return whether the user sees that the application did not respond."""
        return self._in_loop(lambda: self._state.failed(interaction))

    def answer(self, interaction: Interaction, *, seconds: float = 10) -> Message:
        """Wait for the response message of an interaction, past "is thinking"; return a copy."""
        self.wait(lambda: interaction.original is not None and not interaction.original.loading, seconds)
        assert interaction.original is not None
        return self.fresh(interaction.original)

    def modal(self, interaction: Interaction, *, seconds: float = 10) -> Modal:
        """Wait for the modal that an interaction opens."""
        self.wait(lambda: interaction.modal is not None, seconds)
        assert interaction.modal is not None
        return interaction.modal

    def transcript(self, channel: Channel, *, seen_by: User) -> str:
        """Return a channel as text, as that user sees it."""
        return self._in_loop(lambda: transcript.channel_text(self._state, channel.id, seen_by.id))

    @property
    def commands(self) -> list[Json]:
        """The global application commands, as registered."""
        return self._in_loop(lambda: list(self._state.scope(None).listed))

    def guild_commands(self, guild: Guild) -> list[Json]:
        return self._in_loop(lambda: list(self._state.scope(guild.id).listed))

    @property
    def syncs(self) -> int:
        """The number of command changes: overwritten, added, edited or deleted, in all scopes."""
        return self._in_loop(lambda: sum(scope.writes for scope in self._state.commands.values()))

    @property
    def interactions(self) -> list[Interaction]:
        """All interactions, oldest first: commands, presses, autocomplete, submitted modals."""
        return self._in_loop(lambda: list(self._state.interactions.values()))

    @property
    def calls(self) -> list[Call]:
        """Every REST request with its response."""
        return self._in_loop(lambda: list(self._state.calls))

    def find(self, text: str) -> list[str]:
        """List the traffic that contains a text: "POST /path", "response to ...", "gateway EVENT"."""

        def act() -> list[str]:
            found: list[str] = []
            for call in self._state.calls:
                asked = f"{call.path}\n{_plain(call.body)}"
                if text in asked or any(text.encode() in content for _, content in call.files):
                    found.append(f"{call.method} {call.path}")
                if text in _plain(call.answer):
                    found.append(f"response to {call.method} {call.path}")
            found += [f"gateway {frame['t']}" for frame in self.gateway.told if text in _plain(frame["d"])]
            found += [
                f"gateway op {frame['op']}" for frame in self.gateway.heard if text in _plain(frame["d"])
            ]
            return found

        return self._in_loop(act)

    def standing(self, text: str) -> list[Message]:
        """Return copies of all current messages, in any channel, that show a text."""

        def act() -> list[Message]:
            shown = [one for one in self._state.messages.values() if not (one.deleted or one.dismissed)]
            return [self.copy(one) for one in shown if text in one.text]

        return self._in_loop(act)


def _plain(value: Any) -> str:
    # Not JSON: its escapes would hide the text from the search.
    return "\n".join(_texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, held in value.items():
            yield str(key)
            yield from _texts(held)
    elif isinstance(value, list):
        for held in value:
            yield from _texts(held)
    else:
        yield value if isinstance(value, str) else json.dumps(value)
