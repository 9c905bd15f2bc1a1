"""Inspection of the local Discord: what a user sees, and all recorded traffic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from . import transcript
from .api_handle import ApiHandle
from .entities import Channel, Guild, Json, User
from .messages import Interaction, Message, Modal
from .state import Call


class Observer(ApiHandle):
    """The read-only methods of DiscordApi. Returned messages are copies."""

    def copy_message(self, message: Message) -> Message:
        return self._state.copy_message(message)

    def messages(self, channel: Channel, *, seen_by: User | None = None) -> list[Message]:
        """Return a channel's messages, oldest first. Without `seen_by`, include all ephemeral messages."""
        user_id = seen_by.id if seen_by is not None else None
        return self._run_in_loop(
            lambda: [
                self.copy_message(message) for message in self._state.visible_messages(channel.id, user_id)
            ]
        )

    def current(self, message: Message) -> Message:
        """Return a current copy of a message, which may be `deleted`."""
        return self._run_in_loop(lambda: self.copy_message(self._state.messages[message.id]))

    def attachment_content(self, message: Message, name: str | None = None) -> bytes:
        """Return the content of a message's attachment with this name; without a name, of the first one."""
        urls = [
            attachment["url"] for attachment in message.attachments if name in {None, attachment["filename"]}
        ]
        if not urls:
            raise AssertionError(f"No such attachment: {name}")
        path = urls[0].removeprefix(self._state.base_url)
        return self._run_in_loop(lambda: self._state.files[path])

    def open_modals(self, user: User) -> list[Modal]:
        """Return the modals that a user has open, the newest last."""
        return self._run_in_loop(
            lambda: [m for m in self._state.modals if m.user == user and not m.submitted]
        )

    def has_failed(self, interaction: Interaction) -> bool:
        """Return whether the user sees that the application did not respond."""
        return self._run_in_loop(lambda: self._state.has_failed(interaction))

    def wait_for_response(self, interaction: Interaction, *, seconds: float = 10) -> Message:
        """Wait until the response message of an interaction has replaced "is thinking"; return a copy."""
        self.wait(lambda: interaction.original is not None and not interaction.original.loading, seconds)
        assert interaction.original is not None
        return self.current(interaction.original)

    def wait_for_modal(self, interaction: Interaction, *, seconds: float = 10) -> Modal:
        """Wait for the modal that an interaction opens."""
        self.wait(lambda: interaction.modal is not None, seconds)
        assert interaction.modal is not None
        return interaction.modal

    def transcript(self, channel: Channel, *, seen_by: User) -> str:
        """Return a channel as text, as that user sees it."""
        return self._run_in_loop(lambda: transcript.channel_text(self._state, channel.id, seen_by.id))

    @property
    def commands(self) -> list[Json]:
        """The global application commands, as registered."""
        return self._run_in_loop(lambda: list(self._state.command_scope(None).commands))

    def guild_commands(self, guild: Guild) -> list[Json]:
        return self._run_in_loop(lambda: list(self._state.command_scope(guild.id).commands))

    @property
    def command_changes(self) -> int:
        """The number of commands that were overwritten, added, edited or deleted, in all scopes."""
        return self._run_in_loop(lambda: sum(scope.change_count for scope in self._state.commands.values()))

    @property
    def interactions(self) -> list[Interaction]:
        """All interactions, oldest first: commands, presses, autocomplete, submitted modals."""
        return self._run_in_loop(lambda: list(self._state.interactions.values()))

    @property
    def calls(self) -> list[Call]:
        """Every REST request with its response."""
        return self._run_in_loop(lambda: list(self._state.calls))

    def find(self, text: str) -> list[str]:
        """List the traffic that contains a text: "POST /path", "response to ...", "gateway EVENT"."""

        def act() -> list[str]:
            matches: list[str] = []
            for call in self._state.calls:
                request_text = f"{call.path}\n{_searchable_text(call.body)}"
                if text in request_text or any(text.encode() in content for _, content in call.files):
                    matches.append(f"{call.method} {call.path}")
                if text in _searchable_text(call.response):
                    matches.append(f"response to {call.method} {call.path}")
            matches += [
                f"gateway {frame['t']}"
                for frame in self.gateway.sent_frames
                if text in _searchable_text(frame["d"])
            ]
            matches += [
                f"gateway op {frame['op']}"
                for frame in self.gateway.received_frames
                if text in _searchable_text(frame["d"])
            ]
            return matches

        return self._run_in_loop(act)

    def messages_containing(self, text: str) -> list[Message]:
        """Return copies of all current messages, in any channel, that show a text."""

        def act() -> list[Message]:
            current_messages = [
                one for one in self._state.messages.values() if not (one.deleted or one.dismissed)
            ]
            return [self.copy_message(one) for one in current_messages if text in one.text]

        return self._run_in_loop(act)


def _searchable_text(value: Any) -> str:
    # Do not search the JSON text, because JSON's escapes would hide a text from the search.
    return "\n".join(_all_texts(value))


def _all_texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _all_texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _all_texts(inner)
    else:
        yield value if isinstance(value, str) else json.dumps(value)
