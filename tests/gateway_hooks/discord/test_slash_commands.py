"""The cog registers a slash command only if it is new or changed. It does not change other commands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import discord
import httpx
import pytest
from discord.ext import commands

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.dialog.policy import AllowList
from gateway_hooks.discord import McpLogins, Options
from gateway_hooks.discord.slash_commands import matches_registered
from hermes_mcp_auth_remote.auth.httpx import McpAuth
from tests.gateway_hooks.discord.environment import DiscordEnvironment
from tests.gateway_hooks.fake_platform import demo_servers
from tests.parts.authorization_server import Fault, Gate
from tests.requirements import covers

pytestmark = pytest.mark.slow


def command_names(commands: list[dict[str, object]]) -> list[str]:
    return sorted(str(command["name"]) for command in commands)


LOGIN_COMMANDS = ["connect", "connections", "disconnect"]


@covers("discord-commands")
def test_commands_are_registered_once(env: DiscordEnvironment) -> None:
    for _ in range(3):
        with env.running_bot():
            assert env.api.command_changes == 3
    assert command_names(env.api.commands) == LOGIN_COMMANDS
    assert {tuple(command["contexts"]) for command in env.api.commands} == {(0, 1)}


@covers("discord-commands")
def test_commands_are_registered_only_in_chosen_guilds(env: DiscordEnvironment) -> None:
    options = Options(guild_ids=(int(env.guild.id),))
    for _ in range(2):
        with env.running_bot(options=options):
            assert command_names(env.api.guild_commands(env.guild)) == LOGIN_COMMANDS
            assert "Connect notes" in env.request_prompt(env.ada).text
    assert env.api.commands == []
    assert env.api.command_changes == 3


def make_host_bot() -> commands.Bot:
    bot = commands.Bot(commands.when_mentioned, intents=discord.Intents(guilds=True), guild_ready_timeout=0.5)

    @bot.tree.command(name="hello", description="Says hello")
    async def hello(interaction: discord.Interaction) -> None:
        await interaction.response.send_message("Hello!")

    return bot


@covers("discord-commands")
def test_commands_of_host_bot_are_kept(env: DiscordEnvironment) -> None:
    api = env.api
    with env.running_bot(make_bot=make_host_bot, options=Options(syncs_commands=False)) as running:
        running.call(running.bot.tree.sync())
        assert command_names(api.commands) == sorted([*LOGIN_COMMANDS, "hello"])
        assert api.wait_for_response(api.slash(env.ada, env.channel, "hello")).content == "Hello!"
    sync_count = api.command_changes
    with env.running_bot():
        # This bot has no command "hello", but it leaves the registered command "hello" in place.
        assert "hello" in command_names(api.commands)
        assert api.command_changes == sync_count


@covers("chat-asks", "discord-commands")
def test_a_command_of_the_host_bot_prompts_its_user_as_documented(env: DiscordEnvironment) -> None:
    page = (Path(__file__).parents[3] / "docs" / "chat.md").read_text("utf-8")
    [example] = [code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "bot.tree" in code]
    names: dict[str, Any] = {"discord": discord, "httpx": httpx, "McpAuth": McpAuth, "statuses": []}
    example = example.replace("linear", "notes").replace(
        "...  #", f"statuses.append((await client.get({env.demo.ping_url!r})).status_code)  #"
    )

    def make_bot() -> commands.Bot:
        names["bot"] = make_host_bot()
        exec(example, names)
        bot = names["bot"]
        assert isinstance(bot, commands.Bot)
        return bot

    api, ada = env.api, env.ada
    with env.running_bot(make_bot=make_bot, options=Options(syncs_commands=False)) as running:
        names["logins"] = running.cog
        running.call(running.bot.tree.sync())
        request = api.slash(ada, env.channel, "work")
        prompt = env.wait_for_message(api.dm(ada), "Connect notes", ada)
        env.submit_answer(ada, prompt, env.approve_login())
        assert api.wait_for_response(request).content == "Done."
    assert names["statuses"] == [200]


@covers("discord-commands")
def test_only_changed_command_is_registered(env: DiscordEnvironment) -> None:
    api = env.api
    with env.running_bot():
        pass
    command = next(candidate for candidate in api.commands if candidate["name"] == "connect")
    command["description"] = "Something older"
    with env.running_bot():
        api.wait(lambda: api.command_changes == 4)
    assert {command["description"] for command in api.commands} == {
        ENGLISH.connect_description,
        ENGLISH.connections_description,
        ENGLISH.disconnect_description,
    }


@covers("discord-commands")
def test_command_names_can_have_prefix(env: DiscordEnvironment) -> None:
    api = env.api
    with env.running_bot(options=Options(command_prefix="/mcp-")):
        assert command_names(api.commands) == ["mcp-connect", "mcp-connections", "mcp-disconnect"]
        prompt = api.wait_for_response(api.slash(env.ada, env.channel, "mcp-connect", server="notes"))
        assert "Connect notes" in prompt.text
        choice = api.wait_for_response(
            api.slash(env.ada, env.channel, "mcp-connect", server="no such server")
        )
        assert choice.labels == ["notes"]


def test_cog_can_add_no_commands(env: DiscordEnvironment) -> None:
    with env.running_bot(options=Options(adds_commands=False)) as running:
        assert running.bot.tree.get_commands() == []
    assert env.api.command_changes == 0


def test_cog_can_be_removed_and_added_again(env: DiscordEnvironment) -> None:
    with env.running_bot() as running:

        async def replace_cog() -> None:
            await running.bot.remove_cog("McpLogins")
            assert running.bot.tree.get_commands() == []
            await running.bot.add_cog(
                McpLogins(running.bot, env.service, demo_servers(env.demo), env.policy, clock=env.clock)
            )

        running.call(replace_cog())
        assert "Connect notes" in env.request_prompt(env.ada).text


def test_removed_cog_leaves_no_tasks(env: DiscordEnvironment) -> None:
    gate = Gate()
    env.demo.authorization_server.record.add_fault("authorization_server_metadata", Fault(gate=gate))
    with env.running_bot() as running:
        env.api.slash(env.ada, env.channel, "connect", server="notes")
        assert gate.arrived.wait(20)
        running.call(running.bot.remove_cog("McpLogins"))
        assert running.cog._tasks == set()
        gate.open()
    assert env.service.blocking.logins() == []


def test_existing_command_name_raises(env: DiscordEnvironment) -> None:
    def make_clashing_bot() -> commands.Bot:
        bot = make_host_bot()

        @bot.tree.command(name="connect", description="Mine")
        async def connect(interaction: discord.Interaction) -> None: ...

        return bot

    with (
        pytest.raises(ValueError, match=r"a command /connect itself\. Pass Options\(command_prefix="),
        env.running_bot(make_bot=make_clashing_bot),
    ):
        pass


@pytest.mark.parametrize(
    ("local", "registered", "expected"),
    [
        ({"name": "a"}, None, False),
        ({"name": "a"}, {"name": "a", "id": "1"}, True),
        ({"name": "a"}, {"name": "b"}, False),
        ({"nsfw": False, "options": []}, {}, True),
        ({"contexts": [0, 1]}, {"contexts": [0]}, False),
        ({"contexts": None}, {"contexts": [0]}, True),
        ({"options": [{"name": "a", "autocomplete": True}]}, {"options": [{"name": "a"}]}, False),
        ({"options": [{"name": "a"}]}, {"options": [{"name": "a", "max_length": 6000}]}, True),
    ],
)
def test_matches_registered(local: object, registered: object, *, expected: bool) -> None:
    assert matches_registered(local, registered) is expected


@covers("chat-url")
def test_the_server_option_takes_an_address(env: DiscordEnvironment) -> None:
    api = env.api
    with env.running_bot(policy=AllowList(users={str(env.ada.id)}, owners="per_user")):
        prompt = api.wait_for_response(
            api.slash(env.ada, env.channel, "connect", server=demo_servers(env.demo).find("notes").url)
        )
        assert "Connect notes" in prompt.text
        refusal = api.wait_for_response(
            api.slash(env.ada, env.channel, "connect", server="https://169.254.169.254/mcp?key=an-api-key")
        )
        assert ENGLISH.address_refused_title in refusal.text
        assert refusal.ephemeral
        assert api.messages(env.channel, seen_by=env.bob) == []
    assert len(env.service.blocking.waiting_logins()) == 1
