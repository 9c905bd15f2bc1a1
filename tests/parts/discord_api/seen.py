"""What is to be seen: by a person, and of all that ever went over the wire."""

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
    """The reading half of a test's handle. Messages are copies, as they stood."""

    def copy(self, message: Message) -> Message:
        return self._state.copy(message)

    def messages(self, channel: Channel, *, seen_by: User | None = None) -> list[Message]:
        """Copies of what stands in a channel, oldest first; None sees everybody's ephemeral ones too."""
        who = seen_by.id if seen_by is not None else None
        return self._in_loop(lambda: [self.copy(one) for one in self._state.shown(channel.id, who)])

    def fresh(self, message: Message) -> Message:
        """A copy of a message as it stands now; `deleted` says whether it does."""
        return self._in_loop(lambda: self.copy(self._state.messages[message.id]))

    def file(self, message: Message, name: str | None = None) -> bytes:
        """What is in a message's attachment: the one of that name, or the first."""
        urls = [one["url"] for one in message.attachments if name in {None, one["filename"]}]
        if not urls:
            raise AssertionError(f"No such attachment: {name}")
        path = urls[0].removeprefix(self._state.base_url)
        return self._in_loop(lambda: self._state.files[path])

    def modals(self, user: User) -> list[Modal]:
        """The windows that a user has open, the newest last."""
        return self._in_loop(lambda: [m for m in self._state.modals if m.user == user and not m.submitted])

    def failed(self, interaction: Interaction) -> bool:
        """True where the person is told that the application did not respond."""
        return self._in_loop(lambda: self._state.failed(interaction))

    def answer(self, interaction: Interaction, *, seconds: float = 10) -> Message:
        """Wait until an interaction is answered by a message that is not "thinking"; a copy of it."""
        self.wait(lambda: interaction.original is not None and not interaction.original.loading, seconds)
        assert interaction.original is not None
        return self.fresh(interaction.original)

    def modal(self, interaction: Interaction, *, seconds: float = 10) -> Modal:
        """Wait until an interaction is answered by a window."""
        self.wait(lambda: interaction.modal is not None, seconds)
        assert interaction.modal is not None
        return interaction.modal

    def transcript(self, channel: Channel, *, seen_by: User) -> str:
        """A channel as that person sees it, as text."""
        return self._in_loop(lambda: transcript.channel_text(self._state, channel.id, seen_by.id))

    @property
    def commands(self) -> list[Json]:
        """The global application commands, as registered."""
        return self._in_loop(lambda: list(self._state.scope(None).listed))

    def guild_commands(self, guild: Guild) -> list[Json]:
        return self._in_loop(lambda: list(self._state.scope(guild.id).listed))

    @property
    def syncs(self) -> int:
        """How often commands were changed, globally and in guilds: overwritten, added, edited, deleted."""
        return self._in_loop(lambda: sum(scope.writes for scope in self._state.commands.values()))

    @property
    def interactions(self) -> list[Interaction]:
        """All that people did so far, oldest first: commands, presses, typing, windows sent off."""
        return self._in_loop(lambda: list(self._state.interactions.values()))

    @property
    def calls(self) -> list[Call]:
        """Every REST request so far, with its answer."""
        return self._in_loop(lambda: list(self._state.calls))

    def find(self, text: str) -> list[str]:
        """Where a text was ever sent or received, as "POST /path", "answer to ...", "gateway EVENT"."""

        def act() -> list[str]:
            found: list[str] = []
            for call in self._state.calls:
                asked = f"{call.path}\n{_plain(call.body)}"
                if text in asked or any(text.encode() in content for _, content in call.files):
                    found.append(f"{call.method} {call.path}")
                if text in _plain(call.answer):
                    found.append(f"answer to {call.method} {call.path}")
            found += [f"gateway {frame['t']}" for frame in self.gateway.told if text in _plain(frame["d"])]
            found += [
                f"gateway op {frame['op']}" for frame in self.gateway.heard if text in _plain(frame["d"])
            ]
            return found

        return self._in_loop(act)

    def standing(self, text: str) -> list[Message]:
        """Copies of all messages, anywhere, that stand and show a text."""

        def act() -> list[Message]:
            shown = [one for one in self._state.messages.values() if not (one.deleted or one.dismissed)]
            return [self.copy(one) for one in shown if text in one.text]

        return self._in_loop(act)


def _plain(value: Any) -> str:
    # Without escapes, so that a text is found as it was typed.
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
