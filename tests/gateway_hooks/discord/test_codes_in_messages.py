"""No handler gets a new or edited message with a code in any part. The bot deletes the message if it may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import discord
import pytest
from discord.ext import commands

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.discord import Options
from tests.gateway_hooks.discord.environment import DiscordEnvironment
from tests.parts.discord_api import Channel, Message, User
from tests.parts.discord_api.entities import DEFAULT_PERMISSIONS, MANAGE_MESSAGES
from tests.requirements import covers
from tests.service.helpers import wait_until

pytestmark = pytest.mark.slow

UNMATCHED_ANSWER_URL = "http://localhost:3000/callback?code=a-loose-code&state=of-no-login"
OTHER_SITE_URL = "https://site.example/done?code=a-code-of-theirs&state=of-theirs"


class RecordingBot(commands.Bot):
    """A bot with the cog that records the messages and edits that the cog does not claim."""

    def __init__(self) -> None:
        intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=True)
        super().__init__(commands.when_mentioned, intents=intents, guild_ready_timeout=0.5, max_messages=None)
        self.unclaimed_texts: list[str] = []

    async def on_message(self, message: discord.Message, /) -> None:
        await self._record_unless_claimed(message)

    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        await self._record_unless_claimed(payload.message)

    async def _record_unless_claimed(self, message: discord.Message) -> None:
        cog = self.get_cog("McpLogins")
        assert cog is not None
        if message.author != self.user and not await cog.handle_message(message):  # type: ignore[attr-defined]
            self.unclaimed_texts.append(message.content or "(something)")


@contextmanager
def running_host(env: DiscordEnvironment) -> Iterator[RecordingBot]:
    hosts: list[RecordingBot] = []

    def make_host() -> RecordingBot:
        hosts.append(RecordingBot())
        return hosts[0]

    with env.running_bot(make_bot=make_host, options=Options(listens_to_messages=False)):
        yield hosts[0]


@pytest.fixture
def channel(env: DiscordEnvironment) -> Channel:
    """Return a channel in which the bot may delete messages."""
    guild = env.api.add_guild(
        "Elsewhere", [env.ada, env.bob], bot_permissions=DEFAULT_PERMISSIONS | MANAGE_MESSAGES
    )
    return guild.channel("general")


def edit_to_url(env: DiscordEnvironment, channel: Channel, url: str) -> Message:
    return env.api.edit(env.ada, env.api.say(env.ada, channel, "wait"), url)


def other_bot(env: DiscordEnvironment) -> User:
    return replace(env.api.add_user("bridge"), bot=True)


SendMessage = Callable[[DiscordEnvironment, Channel, str], Message]
SENDERS: dict[str, SendMessage] = {
    "edited": edit_to_url,
    "a file's name": lambda scene, channel, url: scene.api.say(
        scene.ada, channel, "", files=[(f"{url.partition('state=')[2].partition('&')[0]}.txt", b"nothing")]
    ),
    "a poll": lambda scene, channel, url: scene.api.send_poll(scene.ada, channel, url, ["yes", "no"]),
    "another bot's embed": lambda scene, channel, url: scene.api.send_as(
        other_bot(scene),
        channel,
        {"embeds": [{"title": "From Ada", "fields": [{"name": "x", "value": url}]}]},
    ),
    "another bot's button": lambda scene, channel, url: scene.api.send_as(
        other_bot(scene),
        channel,
        {
            "content": "press",
            "components": [{"type": 1, "components": [{"type": 2, "style": 5, "label": "Open", "url": url}]}],
        },
    ),
}


@covers("discord-posted", "chat-exposed")
@pytest.mark.parametrize("sender_name", SENDERS)
def test_code_in_any_part_of_message_is_claimed(
    env: DiscordEnvironment, channel: Channel, sender_name: str
) -> None:
    api, ada = env.api, env.ada
    with running_host(env) as host:
        env.request_prompt(ada, channel)
        first, answer = env.waiting_login(), env.approve_login()
        message = SENDERS[sender_name](env, channel, answer)
        api.say(ada, channel, "hello")
        wait_until(lambda: "hello" in host.unclaimed_texts)
        wait_until(lambda: api.current(message).deleted)
        assert [text for text in host.unclaimed_texts if text != "wait"] == ["hello"]
        if "bot" not in sender_name:
            env.wait_for_message(channel, ENGLISH.exposed_answer_title, ada)
            wait_until(lambda: env.service.blocking.login(first.id).status == "cancelled")
        else:
            assert env.waiting_login().id == first.id


@covers("discord-posted", "chat-ours")
def test_redirect_is_claimed_without_waiting_login(env: DiscordEnvironment, channel: Channel) -> None:
    api, ada = env.api, env.ada
    with running_host(env) as host:
        original = api.say(ada, api.dm(ada), UNMATCHED_ANSWER_URL)
        env.wait_for_message(api.dm(ada), ENGLISH.unmatched_answer_title, ada)
        posted = api.say(env.bob, channel, UNMATCHED_ANSWER_URL)
        wait_until(lambda: api.current(posted).deleted)
        forward = api.forward(ada, channel, original)
        wait_until(lambda: api.current(forward).deleted)
        reply = api.say(ada, api.dm(ada), "right?", reply_to=original)
        for text in (OTHER_SITE_URL, "hello"):
            api.say(ada, channel, text)
        wait_until(lambda: len(host.unclaimed_texts) >= 2)
        # The library handles each message in its own task.
        assert sorted(host.unclaimed_texts) == ["hello", OTHER_SITE_URL]
        assert not api.current(reply).deleted, "a bot cannot delete it"


@covers("discord-posted")
def test_login_bot_handles_edited_messages(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    home = api.dm(ada)
    with env.running_bot():
        env.request_prompt(ada)
        first, answer = env.waiting_login(), env.approve_login()
        api.edit(ada, api.say(ada, home, "wait"), answer)
        warning = env.wait_for_message(home, ENGLISH.answer_as_message_title, ada)
        assert ENGLISH.exposed_answer_delete_failed in warning.text
        assert env.waiting_login().id != first.id


def test_bot_messages_are_not_searched(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    home = api.dm(ada)
    with running_host(env) as host:
        env.request_prompt(ada, home)
        prompt = env.wait_for_message(home, "Connect notes", ada)
        api.say(ada, home, "what is that?", reply_to=prompt)
        wait_until(lambda: host.unclaimed_texts == ["what is that?"])
        assert env.waiting_login().status == "waiting"
