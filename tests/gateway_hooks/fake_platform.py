"""A chat platform that stores its messages in memory and checks them as strictly as a real one.

`ChatBot` is one bot. `ChatUser` is a user of a bot: `ada.send_text("/connect notes")`, `ada.press("Cancel")`.
Each action returns after the bot has done all work that the action causes.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from gateway_hooks.dialog.cards import Button, Card, spans
from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.platform import (
    CannotWrite,
    Capabilities,
    ChatError,
    IncomingEvent,
    MessageGone,
    PlatformUnreachable,
    Sender,
)
from gateway_hooks.dialog.policy import AllowList, Policy
from gateway_hooks.dialog.servers import Servers, StaticServers
from gateway_hooks.runtime.dispatcher import Dispatcher
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Clock, Origin, Server
from tests.parts.authorization_server import Demo

T = TypeVar("T")

PLATFORM, BOT_ID = "parlour", "900"
MAX_ACTION_BYTES = 64


@dataclass
class Message:
    """One message of a room: the bot's card, with an optional picture, or the text of a user."""

    id: str
    author: str
    card: Card | None = None
    text: str = ""
    png: bytes = b""
    edits: int = 0

    def __str__(self) -> str:
        if self.card is None:
            return self.text
        lines = [*(["[a picture]"] if self.png else []), plain_text(self.card)]
        lines += ["  ".join(f"[{button.label}]" for button in row) for row in self.card.buttons]
        return "\n".join(lines)


@dataclass
class Room:
    """A chat with its messages. Message ids begin at 1, as in Telegram. Some fields inject failures."""

    name: str
    is_private: bool
    messages: dict[str, Message] = field(default_factory=dict)
    deleted: list[Message] = field(default_factory=list)
    toasts: list[str] = field(default_factory=list)
    # The names of the calls, in order.
    calls: list[str] = field(default_factory=list)
    cannot_write: bool = False
    cannot_delete: bool = False
    # This many of the next edits fail.
    failing_edits: int = 0
    # The platform is out of reach for this many of the next messages and deletions.
    failing_sends: int = 0
    asks_to_wait_seconds: float = 0.0
    failing_deletions: int = 0
    # Each send and each edit waits for this event.
    write_gate: asyncio.Event | None = None
    # Each deletion waits for this event.
    deletion_gate: asyncio.Event | None = None
    _ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def add_message(self, author: str, *, card: Card | None = None, text: str = "", png: bytes = b"") -> str:
        message = Message(str(next(self._ids)), author, card, text, png)
        self.messages[message.id] = message
        return message.id

    def cards(self) -> list[Card]:
        return [message.card for message in self.messages.values() if message.card is not None]

    def __str__(self) -> str:
        return "\n\n".join(f"{message.author}: {message}" for message in self.messages.values())


class RoomChat:
    """A room as the `Chat` of one user."""

    def __init__(self, platform: FakePlatform, room: Room, user_id: str, thread_id: str = "") -> None:
        self._platform, self.room = platform, room
        self._origin = Origin(
            PLATFORM, chat_id=room.name, thread_id=thread_id, user_id=user_id, bot_id=platform.bot_id
        )

    @property
    def origin(self) -> Origin:
        return self._origin

    @property
    def is_private(self) -> bool:
        return self.room.is_private

    async def send(self, card: Card) -> str:
        await self._check_write("send", card)
        if self.room.failing_sends:
            self.room.failing_sends -= 1
            raise PlatformUnreachable("The platform is out of reach.", self.room.asks_to_wait_seconds)
        return self.room.add_message("bot", card=card)

    async def send_picture(self, png: bytes, card: Card) -> str:
        await self._check_write("picture", card)
        assert png.startswith(b"\x89PNG")
        return self.room.add_message("bot", card=card, png=png)

    async def edit(self, message_id: str, card: Card) -> None:
        await self._check_write("edit", card)
        if self.room.failing_edits:
            self.room.failing_edits -= 1
            raise ChatError("The platform is out of reach.")
        message = self.room.messages.get(message_id)
        if message is None:
            raise MessageGone("That message is gone.")
        if message.author != "bot" or message.png:
            raise ChatError("That message cannot be edited to a text.")
        message.card, message.edits = card, message.edits + 1

    async def delete(self, message_id: str) -> bool:
        self.room.calls.append("delete")
        if self.room.deletion_gate is not None:
            await self.room.deletion_gate.wait()
        if self.room.failing_deletions:
            self.room.failing_deletions -= 1
            raise PlatformUnreachable("The platform is out of reach.", self.room.asks_to_wait_seconds)
        message = self.room.messages.get(message_id)
        if message is None or (message.author != "bot" and self.room.cannot_delete):
            return False
        self.room.deleted.append(self.room.messages.pop(message_id))
        return True

    async def show_toast(self, text: str) -> None:
        self.room.toasts.append(text)

    async def _check_write(self, call: str, card: Card) -> None:
        # Let other tasks run, as a real library does.
        await asyncio.sleep(0)
        if self.room.write_gate is not None:
            await self.room.write_gate.wait()
        self.room.calls.append(call)
        check_card(card, is_private=self.room.is_private)
        if self.room.cannot_write:
            raise CannotWrite("The bot may not write there.")


def check_card(card: Card, *, is_private: bool) -> None:
    """Check the rules that hold for each card in each chat."""
    text = plain_text(card, with_link=False)
    assert count_utf16_units(text) <= 4096, text
    assert not re.search(r"\{\w*\}", text), text
    for button in (candidate for row in card.buttons for candidate in row):
        assert len(button.action.encode()) <= MAX_ACTION_BYTES
        assert bool(button.action) != bool(button.copy)
    if not is_private:
        assert "code=" not in text
        assert "state=" not in text
        assert not card.code
        assert card.link is None or card.link.url.startswith("https://parlour.example/")


async def wait_until(condition: Callable[[], bool]) -> None:
    """Let other tasks run until the condition is true."""
    for _ in range(1500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("The condition did not become true.")


def plain_text(card: Card, *, with_link: bool = True) -> str:
    """Return a card's text."""
    return "".join(text for text, _ in spans(card, with_link=with_link))


def count_utf16_units(text: str) -> int:
    """Count UTF-16 units, as Telegram does."""
    return len(text.encode("utf-16-le")) // 2


class FakePlatform:
    """A `Platform` with one private room per user, and groups."""

    def __init__(self, capabilities: Capabilities | None = None, bot_id: str = BOT_ID) -> None:
        self.capabilities, self.bot_id, self.name = capabilities or Capabilities(), bot_id, PLATFORM
        self.private_rooms: dict[str, Room] = {}
        self.group_rooms: dict[str, Room] = {}
        self.senders: dict[str, Sender] = {}
        self.has_deep_links = True

    def private_room(self, user_id: str) -> Room:
        return self.private_rooms.setdefault(user_id, Room(f"private-{user_id}", is_private=True))

    def group_room(self, name: str) -> Room:
        return self.group_rooms.setdefault(name, Room(name, is_private=False))

    def private_chat(self, user_id: str) -> RoomChat:
        return RoomChat(self, self.private_room(user_id), user_id)

    async def fetch_sender(self, user_id: str) -> Sender:
        return self.senders.get(user_id, Sender(user_id))

    def deep_link(self, payload: str) -> str | None:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", payload)
        return f"https://parlour.example/bot?start={payload}" if self.has_deep_links else None


class ChatBot:
    """One bot, with a clock that only the test moves. A second bot with the same home acts as a restart."""

    def __init__(
        self,
        runner: asyncio.Runner,
        service: AuthService,
        servers: Servers,
        clock: Clock,
        *,
        policy: Policy | None = None,
        platform: FakePlatform | None = None,
        messages: Messages = ENGLISH,
    ) -> None:
        self._runner = runner
        self.service, self.platform = service, platform or FakePlatform()
        self.policy = policy or AllowList(users=frozenset({"ada", "bob"}))
        self.completed_logins: list[tuple[Login, Connection]] = []
        self.dispatcher = Dispatcher(
            service,
            self.platform,
            servers,
            self.policy,
            messages,
            clock=clock,
            on_connected=self._record_completed_login,
        )

    async def _record_completed_login(self, login: Login, connection: Connection) -> None:
        self.completed_logins.append((login, connection))

    def user(self, user_id: str, group: str = "", thread_id: str = "") -> ChatUser:
        """Return a user in their private room, or in a group."""
        room = self.platform.group_room(group) if group else self.platform.private_room(user_id)
        return ChatUser(self, user_id, room, thread_id)

    def run(self, work: Awaitable[T]) -> T:
        async def main() -> T:
            async with asyncio.timeout(30):
                return await work

        return self._runner.run(main())

    def settle(self) -> None:
        """Sync the prompt messages until no update is left."""
        self.run(self.settle_in_loop())

    async def settle_in_loop(self) -> None:
        prompt_messages = self.dispatcher.prompt_messages
        for _ in range(20):
            prompt_messages.wake()
            await prompt_messages.sync()
            if not prompt_messages._update_tasks:
                return
            await asyncio.gather(*prompt_messages._update_tasks.values())
        raise AssertionError("The prompt messages still have updates after 20 syncs.")

    def run_until(self, condition: Callable[[], bool]) -> None:
        """Run the bot until the condition is true."""

        async def main() -> None:
            sync_task = asyncio.create_task(self.dispatcher.prompt_messages.run())
            try:
                await wait_until(condition)
                # Finish the updates that are in progress.
                await asyncio.gather(*self.dispatcher.prompt_messages._update_tasks.values())
            finally:
                sync_task.cancel()
                await asyncio.gather(sync_task, return_exceptions=True)

        self.run(main())

    def waiting_logins(self) -> list[Login]:
        return self.service.blocking.waiting_logins()

    @property
    def login(self) -> Login:
        (login,) = self.waiting_logins()
        return login


class ChatUser:
    """A user in a room. Each action returns whether the bot claimed the event."""

    def __init__(self, bot: ChatBot, user_id: str, room: Room, thread_id: str = "") -> None:
        self._bot, self.user_id, self.room, self._thread_id = bot, user_id, room, thread_id

    @property
    def chat(self) -> RoomChat:
        return RoomChat(self._bot.platform, self.room, self.user_id, self._thread_id)

    @property
    def sender(self) -> Sender:
        return self._bot.platform.senders.get(self.user_id, Sender(self.user_id))

    def send_text(self, text: str) -> bool:
        """Send a message. A text that begins with "/" is a command."""
        return self._handle_event(self.message_event(text))

    paste = send_text

    def message_event(self, text: str) -> IncomingEvent:
        message_id = self.room.add_message(self.user_id, text=text)
        if not text.startswith("/"):
            return IncomingEvent(self.sender, text=text, message_id=message_id)
        command, _, rest = text[1:].partition(" ")
        return IncomingEvent(self.sender, command=command, text=rest, message_id=message_id)

    def press(self, label: str, text: str = "") -> bool:
        """Press the newest button with that label. `text` is the answer in a form."""
        message, button = self.find_button(label)
        return self._handle_event(
            IncomingEvent(self.sender, callback_data=button.action, text=text, pressed_message_id=message.id)
        )

    def press_action(self, action: str, message_id: str) -> bool:
        """Press the button with this action, even if no message shows the button any more."""
        return self._handle_event(
            IncomingEvent(self.sender, callback_data=action, pressed_message_id=message_id)
        )

    def find_button(self, label: str) -> tuple[Message, Button]:
        for message in reversed(self.room.messages.values()):
            for row in message.card.buttons if message.card else ():
                for button in row:
                    if button.label == label and button.action:
                        return message, button
        raise AssertionError(f"There is no button {label!r} in:\n{self.room}")

    def visible_titles(self) -> list[str]:
        """Return the titles of the bot's messages in the room."""
        return [card.title for card in self.room.cards()]

    @property
    def last_card(self) -> Card:
        return self.room.cards()[-1]

    def visible_text(self) -> str:
        """Return the text of all messages in the room."""
        return str(self.room)

    def _handle_event(self, event: IncomingEvent) -> bool:
        is_claimed = self._bot.run(self._bot.dispatcher.handle(event, self.chat))
        self._bot.settle()
        return is_claimed


def demo_servers(demo: Demo, *names: str) -> StaticServers:
    return StaticServers(Server(name, demo.ping_url) for name in names or ("notes",))


def without_secrets(text: str, *logins: Login) -> str:
    """Replace URLs, codes and values that differ from run to run with placeholders."""
    for login in logins:
        device_authorization = login.device_authorization
        if device_authorization is None:
            text = text.replace(login.authorization_url, "<authorization URL>")
        else:
            text = text.replace(
                device_authorization.verification_uri_complete or device_authorization.verification_uri,
                "<verification URL>",
            )
            text = text.replace(device_authorization.user_code, "<user code>")
    text = re.sub(r"http://127\.0\.0\.1:\d+/callback\?\S+", "<the address where the browser ended>", text)
    return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>", text)
