"""The state of the server: chats, messages, files and pending updates, under one lock."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace

from tests.parts.bot_api.message_objects import message_json
from tests.parts.bot_api.update_queue import UpdateQueue
from tests.parts.bot_api.values import ApiError, Call, Chat, File, Json, Message, User, bad_request

RECHECK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class CallbackAnswer:
    """The bot's answer to a callback query: a toast, an alert or a URL to open."""

    text: str
    show_alert: bool
    url: str


@dataclass(slots=True)
class ButtonPress:
    """A press of a button. `answer` is None until the bot answers the callback query."""

    id: str
    user: User
    message: Message
    data: str
    pressed_at: float
    changed: threading.Condition = field(repr=False)
    answer: CallbackAnswer | None = None

    def wait_for_answer(self, seconds: float = 10.0) -> CallbackAnswer:
        """Wait for the answer; raise AssertionError if none comes."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.answer is not None, seconds) or self.answer is None:
                raise AssertionError(f"The bot did not answer the callback query within {seconds} s.")
            return self.answer

    def __await__(self) -> Generator[object, None, CallbackAnswer]:
        return asyncio.to_thread(self.wait_for_answer).__await__()


@dataclass(slots=True)
class BusinessConnection:
    """The bot's connection to a business account, with the messages of the owner's chats.

    `messages` are the Message objects that the bot got; their ids are unique in the owner's account.
    """

    id: str
    owner: User
    can_delete: bool
    messages: dict[int, Json] = field(default_factory=dict[int, Json])
    deleted: dict[int, Json] = field(default_factory=dict[int, Json])


class BotApiState:
    """The state of the endpoint. Methods take the lock; `changed` notifies waiting threads."""

    def __init__(
        self, bot: User, clock: Callable[[], float] = time.time, *, privacy_mode: bool = True
    ) -> None:
        self.bot = bot
        self.clock = clock
        self.privacy_mode = privacy_mode
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.updates = UpdateQueue(self.lock)
        self.chats: dict[int, Chat] = {}
        self.versions: dict[tuple[int, int], list[Message]] = {}
        self.message_order: dict[int, list[int]] = {}
        self.deleted_at: dict[tuple[int, int], float] = {}
        self.files: dict[str, File] = {}
        self.button_presses: dict[str, ButtonPress] = {}
        self.business_connections: dict[str, BusinessConnection] = {}
        self.calls: list[Call] = []
        self.chat_actions: list[tuple[int, str]] = []
        self.commands: dict[str, list[object]] = {}
        self.is_logged_out = False
        self.started_at = clock()
        # All private chats and small groups share one sequence of message ids; each supergroup has its own.
        self._private_ids = itertools.count(101)
        self._group_ids: dict[int, itertools.count[int]] = {}
        self._serials = itertools.count(1)

    def next_serial(self) -> int:
        """Return the next number for a file, a query or a topic."""
        return next(self._serials)

    def notify(self) -> None:
        with self.lock:
            self.changed.notify_all()

    def chat(self, chat_id: int) -> Chat:
        """Return a chat; raise ApiError if it does not exist."""
        chat = self.chats.get(chat_id)
        if chat is None:
            raise bad_request("chat not found")
        return chat

    def writable_chat(self, chat_id: int) -> Chat:
        """Return a chat that the bot may write to; raise ApiError."""
        chat = self.chat(chat_id)
        if chat.type == "private" and chat.has_blocked_bot:
            raise ApiError(403, "Forbidden: bot was blocked by the user")
        if chat.type == "private" and not chat.is_started:
            raise ApiError(403, "Forbidden: bot can't initiate conversation with a user")
        if not chat.bot_is_member:
            raise ApiError(403, "Forbidden: bot was kicked from the supergroup chat")
        return chat

    def message(self, chat_id: int, message_id: int) -> Message | None:
        """Return the current version of a message; None if it is deleted or does not exist."""
        if (chat_id, message_id) in self.deleted_at:
            return None
        versions = self.versions.get((chat_id, message_id))
        return versions[-1] if versions else None

    def next_id(self, chat: Chat) -> int:
        if chat.type == "private":
            return next(self._private_ids)
        return next(self._group_ids.setdefault(chat.id, itertools.count(1)))

    def add_message(self, chat: Chat, message: Message) -> Message:
        """Add a message to a chat with the chat's next id."""
        with self.lock:
            added = replace(message, chat_id=chat.id, id=self.next_id(chat))
            self.versions[chat.id, added.id] = [added]
            self.message_order.setdefault(chat.id, []).append(added.id)
            self.changed.notify_all()
        return added

    def replace_message(self, message: Message) -> Message:
        """Add a new version of a message."""
        with self.lock:
            self.versions[message.chat_id, message.id].append(message)
            self.changed.notify_all()
        return message

    def delete_message(self, message: Message) -> None:
        with self.lock:
            self.deleted_at[message.chat_id, message.id] = self.clock()
            self.changed.notify_all()

    def visible_messages(self, chat_id: int) -> list[Message]:
        """Return the visible messages of a chat, in order."""
        with self.lock:
            messages = (
                self.message(chat_id, message_id) for message_id in self.message_order.get(chat_id, [])
            )
            return [message for message in messages if message is not None]

    def push(self, kind: str, content: Json) -> None:
        """Queue an update for the bot."""
        with self.lock:
            self.updates.push(kind, content)
            self.changed.notify_all()

    def message_json(self, message: Message) -> Json:
        """Return the Message object that the bot gets."""
        chat = self.chats[message.chat_id]
        # In a topic, a message that is not a reply refers to the topic's first message.
        reply_to_id = message.reply_to if message.reply_to is not None else message.thread
        original = (
            self.message(chat.id, reply_to_id)
            if reply_to_id is not None and reply_to_id != message.id
            else None
        )
        return message_json(chat, message) | (
            {"reply_to_message": message_json(chat, original)} if original is not None else {}
        )

    def wait_until(self, predicate: Callable[[], object], seconds: float) -> bool:
        """Wait at most `seconds` until a predicate is true; return whether it is. Check at every change.

        A predicate may also depend on things that do not notify `changed`, such as a log. So this method also
        checks every RECHECK_SECONDS. Without these checks, it would notice such a change only when the bot's
        long poll ends, up to 10 s later.
        """
        deadline = time.monotonic() + seconds
        with self.changed:
            while not predicate():
                seconds_left = deadline - time.monotonic()
                if seconds_left <= 0:
                    return False
                self.changed.wait(min(seconds_left, RECHECK_SECONDS))
            return True
