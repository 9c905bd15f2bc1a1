"""Run `serve --telegram` in a process, against a local Bot API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cli.commands import Cli, RunningCommand
from tests.parts.bot_api import BotApi, Message, User

ANNA_ID = 7


@contextmanager
def run_bot_process(cli: Cli, api: BotApi, *arguments: str) -> Iterator[RunningCommand]:
    """Run the bot until the block ends. The block starts when the bot is ready."""
    env = {"TELEGRAM_BOT_TOKEN": api.token}
    command = ("serve", "--telegram", "--telegram-api", api.origin, "--json", *arguments)
    with cli.start(*command, env=env) as bot:
        assert bot.read_event() == {
            "version": 1,
            "event": "serving",
            "platform": "telegram",
            "bot": api.bot.username,
            "owners": "shared",
            "has_no_users": not arguments,
        }
        yield bot


def read_stderr_until(command: RunningCommand, until: str) -> str:
    """Read standard error up to the first line that contains `until`; return the text with single spaces."""
    assert command.process.stderr is not None
    lines: list[str] = []
    while not lines or until not in lines[-1]:
        line = command.process.stderr.readline().decode()
        assert line, lines
        lines.append(line)
    return " ".join("".join(lines).split())


def add_user(api: BotApi, user_id: int = ANNA_ID, name: str = "Anna") -> User:
    """Add a user who has opened the chat with the bot."""
    user = api.add_user(user_id, name)
    api.private_chat(user).is_started = True
    return user


def wait_for_message(api: BotApi, user: User, title: str) -> Message:
    """Wait until a message of the bot has a title that starts with `title`; return the newest one."""

    def find_message() -> Message | None:
        bot_messages = (message for message in reversed(api.messages(user)) if message.is_from_bot)
        return next(
            (message for message in bot_messages if without_mark(message.text).startswith(title)), None
        )

    message = api.wait(find_message)
    assert message is not None
    return message


def without_mark(text: str) -> str:
    """Return a message without the mark of its outcome."""
    return text.removeprefix("✓ ").removeprefix("✗ ")


def send_and_wait_for_reply(api: BotApi, user: User, text: str) -> Message:
    """Send a message to the bot, and return the bot's next message."""
    sent = api.say(user, text)

    def find_reply() -> Message | None:
        return next(
            (message for message in api.messages(user) if message.is_from_bot and message.id > sent.id), None
        )

    message = api.wait(find_reply)
    assert message is not None
    return message


def login_url(message: Message) -> str:
    """Return the URL of a prompt: from its button, or from its text if no button has a URL."""
    button_urls = [button.url for button in message.buttons if button.url]
    [url] = button_urls or re.findall(r"https?://\S+", message.text)
    return url
