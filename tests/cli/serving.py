"""Run `serve --telegram` in a process, against a local Bot API."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cli.commands import Cli, Started
from tests.parts.bot_api import BotApi, Message, User

ANNA = 7


@contextmanager
def serving(cli: Cli, api: BotApi, *arguments: str) -> Iterator[Started]:
    """Run the bot until the block ends. The block starts when the bot is ready."""
    env = {"TELEGRAM_BOT_TOKEN": api.token}
    words = ("serve", "--telegram", "--telegram-api", api.origin, "--json", *arguments)
    with cli.started(*words, env=env) as bot:
        assert bot.event() == {
            "event": "serving",
            "platform": "telegram",
            "bot": api.bot.username,
            "owners": "shared",
            "nobody": not arguments,
        }
        yield bot


def said(started: Started, until: str) -> str:
    """Read standard error up to the first line that contains `until`; return the text with single spaces."""
    assert started.process.stderr is not None
    lines: list[str] = []
    while not lines or until not in lines[-1]:
        line = started.process.stderr.readline().decode()
        assert line, lines
        lines.append(line)
    return " ".join("".join(lines).split())


def known(api: BotApi, user_id: int = ANNA, name: str = "Anna") -> User:
    """Add a user who has opened the chat with the bot."""
    user = api.user(user_id, name)
    api.private(user).started = True
    return user


def shown(api: BotApi, user: User, title: str) -> Message:
    """Wait until a message of the bot starts with `title`; return the newest one."""

    def found() -> Message | None:
        ours = (each for each in reversed(api.messages(user)) if each.from_bot)
        return next((each for each in ours if each.text.startswith(title)), None)

    message = api.wait(found)
    assert message is not None
    return message


def answered(api: BotApi, user: User, text: str) -> Message:
    """Send a message to the bot, and return the bot's next message."""
    said = api.say(user, text)

    def found() -> Message | None:
        return next((each for each in api.messages(user) if each.from_bot and each.id > said.id), None)

    message = api.wait(found)
    assert message is not None
    return message


def url_of(message: Message) -> str:
    """Return the URL of a prompt: from its button, or from its text if no button has a URL."""
    behind = [each.url for each in message.buttons if each.url]
    [url] = behind or re.findall(r"https?://\S+", message.text)
    return url
