"""What users see, and what the server recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

from tests.parts.bot_api.state import BotApiState
from tests.parts.bot_api.transcript import render_transcript
from tests.parts.bot_api.values import Call, Chat, Message, User

WAIT_SECONDS = 30.0
Result = TypeVar("Result")
ChatReference = Chat | User | int


class Observer:
    """Reads the state of the server. Methods may be called from any thread."""

    def __init__(self, state: BotApiState) -> None:
        self.state = state

    def messages(self, chat: ChatReference) -> list[Message]:
        """Return the visible messages of a chat, in order."""
        return self.state.visible_messages(_chat_id(chat))

    def deleted_messages(self, chat: ChatReference) -> list[Message]:
        """Return the last versions of the deleted messages of a chat, in order of deletion."""
        with self.state.lock:
            keys = [key for key in self.state.deleted_at if key[0] == _chat_id(chat)]
            return [self.state.versions[key][-1] for key in keys]

    def versions(self, message: Message) -> list[Message]:
        """Return the versions of a message: the original and one for each edit."""
        with self.state.lock:
            return list(self.state.versions[message.chat_id, message.id])

    @property
    def calls(self) -> list[Call]:
        """Return all calls of the bot in the order of their responses."""
        with self.state.lock:
            return list(self.state.calls)

    def calls_of(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    @property
    def unknown_parameters(self) -> list[str]:
        """Return "method.parameter" for each unknown parameter; the real server ignores them."""
        return [f"{call.method}.{name}" for call in self.calls for name in call.unknown_parameters]

    def find_everywhere(self, text: str) -> list[str]:
        """Return the calls, updates and messages that contain a text, including deleted ones."""
        with self.state.lock:
            matches = [
                f"call {n} {c.method}" for n, c in enumerate(self.state.calls) if _exchange_contains(c, text)
            ]
            matches += [
                f"update {update['update_id']}"
                for update in self.state.updates.all_updates
                if text in _flatten(update)
            ]
            matches += [
                f"message {message.id} in {message.chat_id}, version {number}"
                for versions in self.state.versions.values()
                for number, message in enumerate(versions)
                if text in message.text or text in _flatten([button.json() for button in message.buttons])
            ]
        return matches

    def calls_containing(self, text: str) -> list[Call]:
        """Return the bot's calls that contain a text in a parameter or a file."""
        return [call for call in self.calls if _call_contains(call, text)]

    def messages_containing(self, text: str) -> list[Message]:
        """Return the visible messages of all chats that contain a text, also in links and buttons."""
        with self.state.lock:
            return [
                message
                for chat in self.state.chats
                for message in self.state.visible_messages(chat)
                if text in _flatten([message.text, *(e.json() for e in message.entities)])
                or text in _flatten([button.json() for button in message.buttons])
                or text in _flatten([message.extra_members, message.document and message.document.name])
            ]

    def transcript(self, chat_reference: ChatReference) -> str:
        """Return a chat as text, as a user sees it."""
        with self.state.lock:
            chat = self.state.chats[_chat_id(chat_reference)]
            return render_transcript(chat, self.state.visible_messages(chat.id), self.state.message)

    def wait(self, predicate: Callable[[], Result], seconds: float = WAIT_SECONDS) -> Result:
        """Wait until a predicate is true and return its value; raise AssertionError with all transcripts."""
        if not self.state.wait_until(predicate, seconds):
            raise AssertionError(f"The condition was not true within {seconds} s.\n{self._all_chats()}")
        return predicate()

    async def until(self, predicate: Callable[[], Result], seconds: float = WAIT_SECONDS) -> Result:
        """Call `wait` in a thread: for coroutines."""
        return await asyncio.to_thread(self.wait, predicate, seconds)

    def _all_chats(self) -> str:
        with self.state.lock:
            return "\n".join(self.transcript(chat) for chat in self.state.chats.values())


def _chat_id(chat: ChatReference) -> int:
    return chat if isinstance(chat, int) else chat.id


def _flatten(value: object) -> str:
    if isinstance(value, Mapping):
        return "\n".join(map(_flatten, value.values()))
    return "\n".join(map(_flatten, value)) if isinstance(value, list) else str(value)


def _call_contains(call: Call, text: str) -> bool:
    files = any(text.encode() in file.data for file in call.files.values())
    return files or text in _flatten(dict(call.parameters))


def _exchange_contains(call: Call, text: str) -> bool:
    return _call_contains(call, text) or text in _flatten(call.response)
