"""If a user sends an answer as a message, its login ends. The bot deletes the message if it may."""

from __future__ import annotations

import discord
import pytest
from discord.ext import commands

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.discord import Options
from tests.gateway_hooks.discord.environment import DiscordEnvironment, RunningBot
from tests.parts.discord_api import Channel, User
from tests.parts.discord_api.entities import DEFAULT_PERMISSIONS, MANAGE_MESSAGES
from tests.requirements import covers
from tests.service.helpers import wait_until

pytestmark = pytest.mark.slow


def with_mention(env: DiscordEnvironment, text: str) -> str:
    return f"<@{env.api.bot.id}> {text}"


def make_bot_with_message_content() -> commands.Bot:
    """Return a bot with the message content intent."""
    intents = discord.Intents(guilds=True, guild_messages=True, dm_messages=True, message_content=True)
    return commands.Bot(commands.when_mentioned, intents=intents, guild_ready_timeout=0.5)


@covers("discord-posted", "chat-exposed")
def test_answer_in_direct_message_restarts_login(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    direct_channel = api.dm(ada)
    with env.running_bot():
        prompt = env.request_prompt(ada)
        first, answer = env.waiting_login(), env.approve_login()
        answer_message = api.say(ada, direct_channel, answer)
        warning = env.wait_for_message(direct_channel, ENGLISH.answer_as_message_title, ada)
        assert ENGLISH.exposed_answer_delete_failed in warning.text
        env.wait_for_text(prompt, "Cancelled")
        second_prompt = env.wait_for_message(direct_channel, "Connect notes", ada)
        assert env.waiting_login().id != first.id
        assert not api.current(answer_message).deleted, "a bot cannot delete it"
        env.submit_answer(ada, second_prompt, env.approve_login())
        env.wait_for_text(second_prompt, "notes: connected")


@pytest.mark.parametrize("may_delete", [True, False])
@covers("discord-posted", "chat-exposed", "chat-private")
def test_answer_in_channel_is_deleted_if_bot_may(env: DiscordEnvironment, *, may_delete: bool) -> None:
    api, ada = env.api, env.ada
    permissions = DEFAULT_PERMISSIONS | (MANAGE_MESSAGES if may_delete else 0)
    channel = api.add_guild("Elsewhere", [ada], bot_permissions=permissions).channel("general")
    with env.running_bot():
        env.request_prompt(ada, channel)
        first = env.waiting_login()
        answer_message = api.say(ada, channel, with_mention(env, env.approve_login()))
        warning = env.wait_for_message(channel, ENGLISH.exposed_answer_title, ada)
        assert (ENGLISH.exposed_answer_delete_failed in warning.text) is not may_delete
        assert api.current(answer_message).deleted is may_delete
        wait_until(lambda: env.service.blocking.login(first.id).status == "cancelled")
        env.wait_for_message(api.dm(ada), "Connect notes", ada)
    env.check_private(env.waiting_login())


@covers("discord-posted")
def test_login_does_not_restart_if_direct_messages_are_closed(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    api.set_dms_open(ada, dms_open=False)
    with env.running_bot():
        env.request_prompt(ada)
        api.say(ada, env.channel, with_mention(env, env.approve_login()))
        warning = env.wait_for_message(env.channel, ENGLISH.exposed_answer_title, ada)
        assert ENGLISH.exposed_answer_without_login in warning.text
        wait_until(lambda: env.service.blocking.waiting_logins() == [])


def test_messages_without_mention_are_not_read_without_intent(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    with env.running_bot():
        env.request_prompt(ada)
        api.say(ada, env.channel, env.approve_login())
        # This reply shows that the bot has handled the earlier message.
        api.wait_for_response(api.slash(ada, env.channel, "connections"))
        assert len(env.service.blocking.waiting_logins()) == 1


@covers("discord-posted")
def test_bot_with_message_content_claims_answers(env: DiscordEnvironment) -> None:
    api, ada = env.api, env.ada
    with env.running_bot(make_bot=make_bot_with_message_content):
        env.request_prompt(ada)
        api.say(ada, env.channel, env.approve_login())
        env.wait_for_message(env.channel, ENGLISH.exposed_answer_title, ada)


def pass_message_to_cog(
    running_bot: RunningBot, env: DiscordEnvironment, user: User, channel: Channel, text: str
) -> bool:
    """Pass a user's message to the cog. Return whether the cog claims it."""
    message = env.api.say(user, channel, text)

    async def handle_message() -> bool:
        messageable = await running_bot.bot.fetch_channel(int(channel.id))
        assert isinstance(messageable, discord.abc.Messageable)
        return await running_bot.cog.handle_message(await messageable.fetch_message(int(message.id)))

    return running_bot.call(handle_message())


@covers("discord-posted", "chat-ours")
def test_handle_message_returns_whether_cog_claims_message(env: DiscordEnvironment) -> None:
    ada, direct_channel = env.ada, env.api.dm(env.ada)
    with env.running_bot(
        make_bot=make_bot_with_message_content, options=Options(listens_to_messages=False)
    ) as running_bot:
        env.request_prompt(ada)
        answer = env.approve_login()
        assert not pass_message_to_cog(running_bot, env, ada, direct_channel, "hello there")
        assert not pass_message_to_cog(running_bot, env, env.bob, env.channel, "hello there")
        assert len(env.service.blocking.waiting_logins()) == 1
        assert pass_message_to_cog(running_bot, env, ada, direct_channel, f"look: {answer}")
        env.wait_for_message(direct_channel, ENGLISH.answer_as_message_title, ada)
        # The cog also claims an answer that was already used.
        assert pass_message_to_cog(running_bot, env, ada, direct_channel, answer)
        env.wait_for_message(direct_channel, ENGLISH.answer_as_message_title, ada)


@covers("chat-listed")
def test_unknown_user_gets_no_reply_to_answer(env: DiscordEnvironment) -> None:
    api, eve = env.api, env.eve
    with env.running_bot():
        env.request_prompt(env.ada)
        api.say(eve, api.dm(eve), env.approve_login())
        api.wait_for_response(api.slash(env.ada, env.channel, "connections"))
        assert [
            message for message in api.messages(api.dm(eve), seen_by=eve) if message.author == api.bot
        ] == []
    assert len(env.service.blocking.waiting_logins()) == 1
