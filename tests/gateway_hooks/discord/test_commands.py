"""The cog registers its slash commands only if they are new or changed. It keeps other commands."""

from __future__ import annotations

import discord
import pytest
from discord import app_commands
from discord.ext import commands

from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.discord import McpLogins, Options
from gateway_hooks.discord.slash_commands import matches_registered
from tests.gateway_hooks.discord.given import Scene
from tests.gateway_hooks.given import servers_of
from tests.parts.authorization_server import Fault, Gate
from tests.requirements import covers

pytestmark = pytest.mark.slow


def names(listed: list[dict[str, object]]) -> list[str]:
    return sorted(str(one["name"]) for one in listed)


OURS = ["connect", "connections", "disconnect"]


@covers("discord-commands")
def test_commands_are_told_once(scene: Scene) -> None:
    for _ in range(3):
        with scene.bot():
            assert scene.api.syncs == 3
    assert names(scene.api.commands) == OURS
    assert {tuple(one["contexts"]) for one in scene.api.commands} == {(0, 1)}


@covers("discord-commands")
def test_in_guilds_of_the_owners_choice(scene: Scene) -> None:
    options = Options(guild_ids=(int(scene.guild.id),))
    for _ in range(2):
        with scene.bot(options=options):
            assert names(scene.api.guild_commands(scene.guild)) == OURS
            assert "Connect notes" in scene.connect(scene.ada).text
    assert scene.api.commands == []
    assert scene.api.syncs == 3


def hosting_bot() -> commands.Bot:
    bot = commands.Bot(commands.when_mentioned, intents=discord.Intents(guilds=True), guild_ready_timeout=0.5)

    @bot.tree.command(name="hello", description="Says hello")
    async def hello(interaction: discord.Interaction) -> None:
        await interaction.response.send_message("Hello!")

    return bot


@covers("discord-commands")
def test_the_commands_of_the_bot_around_us_stay_what_they_are(scene: Scene) -> None:
    api = scene.api
    with scene.bot(make=hosting_bot, options=Options(syncs_commands=False)) as running:
        running.call(running.bot.tree.sync())
        assert names(api.commands) == sorted([*OURS, "hello"])
        assert api.answer(api.slash(scene.ada, scene.channel, "hello")).content == "Hello!"
    before = api.syncs
    with scene.bot():
        # The tree of this bot has no such command, but the bot does not remove it.
        assert "hello" in names(api.commands)
        assert api.syncs == before


@covers("discord-commands")
def test_a_change_is_told_alone(scene: Scene) -> None:
    api = scene.api
    with scene.bot():
        pass
    command = next(one for one in api.commands if one["name"] == "connect")
    command["description"] = "Something older"
    with scene.bot():
        api.wait(lambda: api.syncs == 4)
    assert {one["description"] for one in api.commands} == {
        ENGLISH.connect_description,
        ENGLISH.connections_description,
        ENGLISH.disconnect_description,
    }


@covers("discord-commands")
def test_names_can_be_others(scene: Scene) -> None:
    api = scene.api
    with scene.bot(options=Options(command_prefix="/mcp-")):
        assert names(api.commands) == ["mcp-connect", "mcp-connections", "mcp-disconnect"]
        prompt = api.answer(api.slash(scene.ada, scene.channel, "mcp-connect", server="notes"))
        assert "Connect notes" in prompt.text
        choice = api.answer(api.slash(scene.ada, scene.channel, "mcp-connect", server="no such server"))
        assert choice.labels == ["notes"]


def test_a_bot_with_commands_of_its_own_has_none_of_ours(scene: Scene) -> None:
    with scene.bot(options=Options(adds_commands=False)) as running:
        assert running.bot.tree.get_commands() == []
    assert scene.api.syncs == 0


def test_a_cog_can_be_taken_away_and_added_again(scene: Scene) -> None:
    with scene.bot() as running:

        async def again() -> None:
            await running.bot.remove_cog("McpLogins")
            assert running.bot.tree.get_commands() == []
            await running.bot.add_cog(
                McpLogins(running.bot, scene.store, servers_of(scene.demo), scene.policy, clock=scene.clock)
            )

        running.call(again())
        assert "Connect notes" in scene.connect(scene.ada).text


def test_a_cog_that_is_taken_away_leaves_nothing_at_work(scene: Scene) -> None:
    gate = Gate()
    scene.demo.authorization_server.record.add_fault("authorization_server_metadata", Fault(gate=gate))
    with scene.bot() as running:
        scene.api.slash(scene.ada, scene.channel, "connect", server="notes")
        assert gate.arrived.wait(20)
        running.call(running.bot.remove_cog("McpLogins"))
        assert running.cog._tasks == set()
        gate.open()
    assert scene.store.logins() == []


def test_a_name_that_the_bot_has_already_is_refused(scene: Scene) -> None:
    def clashing() -> commands.Bot:
        bot = hosting_bot()

        @bot.tree.command(name="connect", description="Mine")
        async def connect(interaction: discord.Interaction) -> None: ...

        return bot

    with pytest.raises(app_commands.CommandAlreadyRegistered), scene.bot(make=clashing):
        pass


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
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
def test_what_counts_as_the_same(ours: object, theirs: object, *, same: bool) -> None:
    assert matches_registered(ours, theirs) is same
