"""What users see, and what the server recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeVar

from tests.parts.bot_api.transcript import transcript
from tests.parts.bot_api.values import Call, Chat, Message, User
from tests.parts.bot_api.world import World

WAIT_SECONDS = 30.0
Found = TypeVar("Found")
Where = Chat | User | int


class Seen:
    """Reads the state of the server. Methods may be called from any thread."""

    def __init__(self, world: World) -> None:
        self.world = world

    def messages(self, where: Where) -> list[Message]:
        """Return the visible messages of a chat, in order."""
        return self.world.standing(_id(where))

    def deleted(self, where: Where) -> list[Message]:
        """Return the last versions of the deleted messages of a chat, in order of deletion."""
        with self.world.lock:
            keys = [key for key in self.world.gone if key[0] == _id(where)]
            return [self.world.versions[key][-1] for key in keys]

    def versions(self, message: Message) -> list[Message]:
        """Return the versions of a message: the original and one for each edit."""
        with self.world.lock:
            return list(self.world.versions[message.chat_id, message.id])

    @property
    def calls(self) -> list[Call]:
        """Return all calls of the bot in the order of their responses."""
        with self.world.lock:
            return list(self.world.calls)

    def calls_of(self, method: str) -> list[Call]:
        return [call for call in self.calls if call.method == method]

    @property
    def unknown_parameters(self) -> list[str]:
        """Return "method.parameter" for each unknown parameter; the real server ignores them."""
        return [f"{call.method}.{name}" for call in self.calls for name in call.unknown]

    def anywhere(self, text: str) -> list[str]:
        """Return the calls, updates and messages that contain a text, including deleted ones."""
        with self.world.lock:
            places = [f"call {n} {c.method}" for n, c in enumerate(self.world.calls) if _in_call(c, text)]
            places += [
                f"update {update['update_id']}" for update in self.world.updates.sent if text in _flat(update)
            ]
            places += [
                f"message {message.id} in {message.chat_id}, version {number}"
                for versions in self.world.versions.values()
                for number, message in enumerate(versions)
                if text in message.text or text in _flat([button.json() for button in message.buttons])
            ]
        return places

    def sent(self, text: str) -> list[Call]:
        """Return the bot's calls that contain a text in a parameter or a file."""
        return [call for call in self.calls if _carried(call, text)]

    def visible(self, text: str) -> list[Message]:
        """Return the visible messages of all chats that contain a text, also in links and buttons."""
        with self.world.lock:
            return [
                message
                for chat in self.world.chats
                for message in self.world.standing(chat)
                if text in _flat([message.text, *(e.json() for e in message.entities)])
                or text in _flat([button.json() for button in message.buttons])
                or text in _flat([message.more, message.document and message.document.name])
            ]

    def transcript(self, where: Where) -> str:
        """Return a chat as text, as a user sees it."""
        with self.world.lock:
            chat = self.world.chats[_id(where)]
            return transcript(chat, self.world.standing(chat.id), self.world.message)

    def wait(self, predicate: Callable[[], Found], seconds: float = WAIT_SECONDS) -> Found:
        """Wait until a predicate is true and return its value; raise AssertionError with all transcripts."""
        if not self.world.wait(predicate, seconds):
            raise AssertionError(f"The condition was not true within {seconds} s.\n{self._all_chats()}")
        return predicate()

    async def until(self, predicate: Callable[[], Found], seconds: float = WAIT_SECONDS) -> Found:
        """Call `wait` in a thread: for coroutines."""
        return await asyncio.to_thread(self.wait, predicate, seconds)

    def _all_chats(self) -> str:
        with self.world.lock:
            return "\n".join(self.transcript(chat) for chat in self.world.chats.values())


def _id(where: Where) -> int:
    return where if isinstance(where, int) else where.id


def _flat(value: object) -> str:
    if isinstance(value, Mapping):
        return "\n".join(map(_flat, value.values()))
    return "\n".join(map(_flat, value)) if isinstance(value, list) else str(value)


def _carried(call: Call, text: str) -> bool:
    files = any(text.encode() in file.data for file in call.files.values())
    return files or text in _flat(dict(call.parameters))


def _in_call(call: Call, text: str) -> bool:
    return _carried(call, text) or text in _flat(call.answer)
