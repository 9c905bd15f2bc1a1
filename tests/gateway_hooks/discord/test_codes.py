"""No handler gets a code in any part of a new or edited message. The bot deletes it if it may."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import discord
import pytest
from discord.ext import commands

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.discord import Options
from tests.gateway_hooks.discord.given import Scene
from tests.parts.discord_api import Channel, Message, User
from tests.parts.discord_api.world import EVERYBODY, MANAGE_MESSAGES
from tests.requirements import covers
from tests.service.given import eventually

pytestmark = pytest.mark.slow

LOOSE = "http://localhost:3000/callback?code=a-loose-code&state=of-no-login"
ELSEWHERE = "https://site.example/done?code=a-code-of-theirs&state=of-theirs"


class Host(commands.Bot):
    """A bot with the cog that records the messages and edits that the cog does not claim."""

    def __init__(self) -> None:
        intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=True)
        super().__init__(commands.when_mentioned, intents=intents, guild_ready_timeout=0.5, max_messages=None)
        self.heard: list[str] = []

    async def on_message(self, message: discord.Message, /) -> None:
        await self._hear(message)

    async def on_raw_message_edit(self, payload: discord.RawMessageUpdateEvent) -> None:
        await self._hear(payload.message)

    async def _hear(self, message: discord.Message) -> None:
        cog = self.get_cog("McpLogins")
        assert cog is not None
        if message.author != self.user and not await cog.handle_message(message):  # type: ignore[attr-defined]
            self.heard.append(message.content or "(something)")


@contextmanager
def hosted(scene: Scene) -> Iterator[Host]:
    made: list[Host] = []

    def make() -> Host:
        made.append(Host())
        return made[0]

    with scene.bot(make=make, options=Options(listens_to_messages=False)):
        yield made[0]


@pytest.fixture
def channel(scene: Scene) -> Channel:
    """Return a channel in which the bot may delete messages."""
    guild = scene.api.guild("Elsewhere", [scene.ada, scene.bob], bot_permissions=EVERYBODY | MANAGE_MESSAGES)
    return guild.channel("general")


def edited(scene: Scene, channel: Channel, url: str) -> Message:
    return scene.api.edit(scene.ada, scene.api.say(scene.ada, channel, "wait"), url)


def other_bot(scene: Scene) -> User:
    return replace(scene.api.user("bridge"), bot=True)


Write = Callable[[Scene, Channel, str], Message]
WAYS: dict[str, Write] = {
    "edited": edited,
    "a file's name": lambda scene, channel, url: scene.api.say(
        scene.ada, channel, "", files=[(f"{url.partition('state=')[2].partition('&')[0]}.txt", b"nothing")]
    ),
    "a poll": lambda scene, channel, url: scene.api.ask_poll(scene.ada, channel, url, ["yes", "no"]),
    "another bot's embed": lambda scene, channel, url: scene.api.write(
        other_bot(scene),
        channel,
        {"embeds": [{"title": "From Ada", "fields": [{"name": "x", "value": url}]}]},
    ),
    "another bot's button": lambda scene, channel, url: scene.api.write(
        other_bot(scene),
        channel,
        {
            "content": "press",
            "components": [{"type": 1, "components": [{"type": 2, "style": 5, "label": "Open", "url": url}]}],
        },
    ),
}


@covers("discord-posted", "chat-exposed")
@pytest.mark.parametrize("way", WAYS)
def test_a_code_in_any_part_of_a_message_goes_on_to_nobody(scene: Scene, channel: Channel, way: str) -> None:
    api, ada = scene.api, scene.ada
    with hosted(scene) as host:
        scene.connect(ada, channel)
        first, answer = scene.login(), scene.approve()
        written = WAYS[way](scene, channel, answer)
        api.say(ada, channel, "hello")
        eventually(lambda: "hello" in host.heard)
        eventually(lambda: api.fresh(written).deleted)
        assert [each for each in host.heard if each != "wait"] == ["hello"]
        if "bot" not in way:
            scene.until_seen(channel, ENGLISH.exposed_answer_title, ada)
            eventually(lambda: scene.store.login(first.id).status == "cancelled")
        else:
            assert scene.login().id == first.id


@covers("discord-posted", "chat-ours")
def test_an_address_of_a_redirect_goes_on_to_nobody_though_no_login_waits(
    scene: Scene, channel: Channel
) -> None:
    api, ada = scene.api, scene.ada
    with hosted(scene) as host:
        forwarded = api.say(ada, api.dm(ada), LOOSE)
        scene.until_seen(api.dm(ada), ENGLISH.unmatched_answer_title, ada)
        answered = api.say(scene.bob, channel, LOOSE)
        eventually(lambda: api.fresh(answered).deleted)
        forward = api.forward(ada, channel, forwarded)
        eventually(lambda: api.fresh(forward).deleted)
        reply = api.say(ada, api.dm(ada), "right?", reply_to=forwarded)
        for text in (ELSEWHERE, "hello"):
            api.say(ada, channel, text)
        eventually(lambda: len(host.heard) >= 2)
        # The library handles each message in its own task.
        assert sorted(host.heard) == ["hello", ELSEWHERE]
        assert not api.fresh(reply).deleted, "a bot cannot delete it"


@covers("discord-posted")
def test_the_bot_for_logins_alone_hears_of_edited_messages(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    home = api.dm(ada)
    with scene.bot():
        scene.connect(ada)
        first, answer = scene.login(), scene.approve()
        api.edit(ada, api.say(ada, home, "wait"), answer)
        told = scene.until_seen(home, ENGLISH.answer_as_message_title, ada)
        assert ENGLISH.exposed_answer_delete_failed in told.text
        assert scene.login().id != first.id


def test_what_the_bot_itself_shows_is_not_searched(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    home = api.dm(ada)
    with hosted(scene) as host:
        scene.connect(ada, home)
        prompt = scene.until_seen(home, "Connect notes", ada)
        api.say(ada, home, "what is that?", reply_to=prompt)
        eventually(lambda: host.heard == ["what is that?"])
        assert scene.login().status == "waiting"
