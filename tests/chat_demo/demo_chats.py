"""The two chats of the demo: a bot on a local platform API, and the actions of Ada."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager

from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.dialog.servers import StaticServers
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Secret, Server
from tests.parts import bot_api, discord_api

ADA = 7
NO_BUTTON = "there is no button with that number"
PASTE_LABEL = "Paste the address"
WAIT_SECONDS = 20.0
CHANGE_SECONDS = 5.0


class DemoChat(ABC):
    """A chat between Ada and the bot."""

    connect_command = "/connect demo"

    def __init__(self, service: AuthService, servers: list[Server]) -> None:
        self.service = service
        self.servers = StaticServers(servers)

    @abstractmethod
    @contextmanager
    def running(self) -> Iterator[None]:
        """Run the platform API and the bot during the block."""

    @abstractmethod
    def send_text(self, text: str) -> None:
        """Send a message or a command."""

    @abstractmethod
    def button_labels(self) -> list[str]:
        """Return the labels of the last message with buttons."""

    @abstractmethod
    def press_button(self, number: int) -> tuple[str, bool]:
        """Press a button of `button_labels`, counted from 1.

        Return its label, and True if it is a link, which the demo does not open. Raise LookupError if there
        is no such button.
        """

    @abstractmethod
    def send_answer(self, address: str) -> None:
        """Answer with an address in the way of this platform."""

    @abstractmethod
    def transcript(self) -> str:
        """Return the chat as Ada sees it."""

    @abstractmethod
    def linked_texts(self) -> str:
        """Return the texts that contain URLs, the newest last."""

    def login_url(self) -> str:
        """Return the newest login URL. Raise LookupError if there is none."""
        urls = re.findall(r"https?://[^\s\"'`<>]+/(?:authorize|device)[^\s\"'`<>]*", self.linked_texts())
        if not urls:
            raise LookupError("there is no page to open")
        return str(urls[-1])

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition is true. Raise AssertionError after WAIT_SECONDS."""
        for _ in range(int(WAIT_SECONDS / 0.05)):
            if condition():
                return
            time.sleep(0.05)
        raise AssertionError(f"The condition did not become true:\n{self.transcript()}")

    def wait_for_change(self, shown_lines: list[str]) -> None:
        """Wait until the transcript differs from these lines, at most CHANGE_SECONDS."""
        deadline = time.monotonic() + CHANGE_SECONDS
        while self.transcript().splitlines() == shown_lines and time.monotonic() < deadline:
            time.sleep(0.05)

    def wait_until_stable(self) -> None:
        """Wait until the transcript stays the same for 0.4 s."""
        transcript = ""
        while transcript != (transcript := self.transcript()):
            time.sleep(0.4)


class TelegramDemoChat(DemoChat):
    """The local Bot API and a private chat."""

    @contextmanager
    def running(self) -> Iterator[None]:
        from gateway_hooks.telegram.bot import run_bot

        with bot_api.serve_bot_api() as self.api:
            self.ada = self.api.add_user(ADA, "Ada")
            policy = AllowList(frozenset({str(ADA)}))
            token = Secret(self.api.token)
            with run_in_thread(run_bot(token, self.service, self.servers, policy, api_url=self.api.origin)):
                self.wait_until(lambda: self.api.is_polling)
                self.api.start(self.ada)
                self.wait_until(lambda: len(self.api.messages(self.ada)) > 1)
                yield

    def send_text(self, text: str) -> None:
        self.api.say(self.ada, text)

    def button_labels(self) -> list[str]:
        message = self._last_message_with_buttons()
        return [] if message is None else [button.text for button in message.buttons]

    def press_button(self, number: int) -> tuple[str, bool]:
        message = self._last_message_with_buttons()
        if message is None or not 1 <= number <= len(message.buttons):
            raise LookupError(NO_BUTTON)
        button = message.buttons[number - 1]
        if button.url is None:
            self.api.press(self.ada, message, button.text)
        return button.text, button.url is not None

    def _last_message_with_buttons(self) -> bot_api.Message | None:
        messages = reversed(self.api.messages(self.ada))
        return next((message for message in messages if message.buttons), None)

    def send_answer(self, address: str) -> None:
        self.api.say(self.ada, address)

    def transcript(self) -> str:
        return self.api.transcript(self.ada)

    def linked_texts(self) -> str:
        parts: list[str] = []
        for message in self.api.messages(self.ada):
            if message.is_from_bot:
                parts += [message.text, *(button.url or "" for button in message.buttons)]
        return "\n".join(parts)


class DiscordDemoChat(DemoChat):
    """The local Discord API and a channel in which only Ada sees the bot's messages."""

    connect_command = "/connect server:demo"

    @contextmanager
    def running(self) -> Iterator[None]:
        from gateway_hooks.discord.bot import run_bot

        with ExitStack() as stack:
            self.api = stack.enter_context(discord_api.serve_discord_api())
            self.ada = self.api.add_user("ada")
            self.guild = self.api.add_guild("Home", [self.ada], channels=["general"])
            self.channel = self.guild.channel("general")
            policy = AllowList(frozenset({self.ada.id}))
            bot = run_bot(Secret(self.api.token), self.service, self.servers, policy, api_url=self.api.url)
            stack.enter_context(run_in_thread(bot))
            self.wait_until(lambda: any(command["name"] == "connect" for command in self.api.commands))
            yield

    def send_text(self, text: str) -> None:
        command = re.fullmatch(r"/(\w+)(?:\s+(?:server:\s*)?(\S+))?", text)
        if command is None:
            self.api.say(self.ada, self.channel, text)
        elif command[2]:
            self.api.slash(self.ada, self.channel, command[1], server=command[2])
        else:
            self.api.slash(self.ada, self.channel, command[1])

    def button_labels(self) -> list[str]:
        message = self._last_message_with_buttons()
        return [] if message is None else message.labels

    def press_button(self, number: int) -> tuple[str, bool]:
        message = self._last_message_with_buttons()
        if message is None or not 1 <= number <= len(message.labels):
            raise LookupError(NO_BUTTON)
        button = message.buttons[number - 1]
        label = message.labels[number - 1]
        if "url" not in button:
            self.api.press(self.ada, message, label)
        return label, "url" in button

    def _last_message_with_buttons(self) -> discord_api.Message | None:
        messages = reversed(self._visible_messages())
        return next((message for message in messages if message.labels), None)

    def send_answer(self, address: str) -> None:
        message = next(
            (
                candidate
                for candidate in reversed(self._visible_messages())
                if PASTE_LABEL in candidate.labels
            ),
            None,
        )
        if message is None:
            raise LookupError("no message asks for an address")
        modal = self.api.wait_for_modal(self.api.press(self.ada, message, PASTE_LABEL))
        self.api.submit(self.ada, modal, {"The address your browser ended on": address})

    def transcript(self) -> str:
        return self.api.transcript(self.channel, seen_by=self.ada)

    def linked_texts(self) -> str:
        return "\n".join(
            f"{message.content} {message.embeds} {message.components}" for message in self._visible_messages()
        )

    def _visible_messages(self) -> list[discord_api.Message]:
        return list(self.api.messages(self.channel, seen_by=self.ada))


@contextmanager
def run_in_thread(work: Coroutine[object, object, None]) -> Iterator[None]:
    """Run a bot in its own event loop and thread during the block."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(work)

    def run_loop() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.close()

    thread = threading.Thread(target=run_loop, name="bot", daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(WAIT_SECONDS)
