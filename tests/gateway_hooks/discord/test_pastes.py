"""An answer as a message ends its login. The bot deletes the message if it may."""

from __future__ import annotations

import discord
import pytest
from discord.ext import commands

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.discord import Options
from tests.gateway_hooks.discord.given import Running, Scene
from tests.parts.discord_api import Channel, User
from tests.parts.discord_api.world import EVERYBODY, MANAGE_MESSAGES
from tests.requirements import covers
from tests.service.given import eventually

pytestmark = pytest.mark.slow


def mentioning(scene: Scene, text: str) -> str:
    return f"<@{scene.api.bot.id}> {text}"


def reading_bot() -> commands.Bot:
    """Return a bot with the message content intent."""
    intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=True)
    return commands.Bot(commands.when_mentioned, intents=intents, guild_ready_timeout=0.5)


@covers("discord-posted", "chat-exposed")
def test_in_a_direct_chat_it_ends_the_login_and_another_begins(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    home = api.dm(ada)
    with scene.bot():
        prompt = scene.connect(ada)
        first, answer = scene.login(), scene.approve()
        written = api.say(ada, home, answer)
        told = scene.until_seen(home, ENGLISH.answer_as_message_title, ada)
        assert ENGLISH.exposed_answer_delete_failed in told.text
        scene.until_shows(prompt, "Cancelled")
        again = scene.until_seen(home, "Connect notes", ada)
        assert scene.login().id != first.id
        assert not api.fresh(written).deleted, "a bot cannot delete it"
        scene.paste(ada, again, scene.approve())
        scene.until_shows(again, "notes: connected")


@pytest.mark.parametrize("may_delete", [True, False])
@covers("discord-posted", "chat-exposed", "chat-private")
def test_in_a_channel_it_goes_where_the_bot_may_delete(scene: Scene, *, may_delete: bool) -> None:
    api, ada = scene.api, scene.ada
    permissions = EVERYBODY | (MANAGE_MESSAGES if may_delete else 0)
    channel = api.guild("Elsewhere", [ada], bot_permissions=permissions).channel("general")
    with scene.bot():
        scene.connect(ada, channel)
        first = scene.login()
        written = api.say(ada, channel, mentioning(scene, scene.approve()))
        told = scene.until_seen(channel, ENGLISH.exposed_answer_title, ada)
        assert (ENGLISH.exposed_answer_delete_failed in told.text) is not may_delete
        assert api.fresh(written).deleted is may_delete
        eventually(lambda: scene.store.login(first.id).status == "cancelled")
        scene.until_seen(api.dm(ada), "Connect notes", ada)
    scene.check_private(scene.login())


@covers("discord-posted")
def test_where_nobody_can_be_written_to_no_other_login_begins(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    api.set_dms_open(ada, dms_open=False)
    with scene.bot():
        scene.connect(ada)
        api.say(ada, scene.channel, mentioning(scene, scene.approve()))
        told = scene.until_seen(scene.channel, ENGLISH.exposed_answer_title, ada)
        assert ENGLISH.exposed_answer_without_login in told.text
        eventually(lambda: scene.store.waiting_logins() == [])


def test_messages_that_do_not_mention_the_bot_are_not_seen_without_the_intent(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    with scene.bot():
        scene.connect(ada)
        api.say(ada, scene.channel, scene.approve())
        # This reply shows that the bot has handled the earlier message.
        api.answer(api.slash(ada, scene.channel, "connections"))
        assert len(scene.store.waiting_logins()) == 1


@covers("discord-posted")
def test_a_bot_that_reads_everything_sees_every_answer(scene: Scene) -> None:
    api, ada = scene.api, scene.ada
    with scene.bot(make=reading_bot):
        scene.connect(ada)
        api.say(ada, scene.channel, scene.approve())
        scene.until_seen(scene.channel, ENGLISH.exposed_answer_title, ada)


def hears(running: Running, scene: Scene, user: User, channel: Channel, text: str) -> bool:
    """Pass a user's message to the cog. Return whether the cog claims it."""
    written = scene.api.say(user, channel, text)

    async def pass_on() -> bool:
        place = await running.bot.fetch_channel(int(channel.id))
        assert isinstance(place, discord.abc.Messageable)
        return await running.cog.handle_message(await place.fetch_message(int(written.id)))

    return running.call(pass_on())


@covers("discord-posted", "chat-ours")
def test_a_bot_that_passes_messages_on_is_told_which_are_not_for_others(scene: Scene) -> None:
    ada, home = scene.ada, scene.api.dm(scene.ada)
    with scene.bot(make=reading_bot, options=Options(listens_to_messages=False)) as running:
        scene.connect(ada)
        answer = scene.approve()
        assert not hears(running, scene, ada, home, "hello there")
        assert not hears(running, scene, scene.bob, scene.channel, "hello there")
        assert len(scene.store.waiting_logins()) == 1
        assert hears(running, scene, ada, home, f"look: {answer}")
        scene.until_seen(home, ENGLISH.answer_as_message_title, ada)
        # The cog also claims a used answer.
        assert hears(running, scene, ada, home, answer)
        scene.until_seen(home, ENGLISH.answer_as_message_title, ada)


@covers("chat-listed")
def test_a_stranger_is_not_answered_for_what_they_write(scene: Scene) -> None:
    api, eve = scene.api, scene.eve
    with scene.bot():
        scene.connect(scene.ada)
        api.say(eve, api.dm(eve), scene.approve())
        api.answer(api.slash(scene.ada, scene.channel, "connections"))
        assert [one for one in api.messages(api.dm(eve), seen_by=eve) if one.author == api.bot] == []
    assert len(scene.store.waiting_logins()) == 1
