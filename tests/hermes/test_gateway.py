"""The real Hermes gateway with local chat platforms, a stand-in model and MCP servers, without the plugin."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests import tripwire
from tests.hermes.stage import SECONDS, SHORT_CALL_SECONDS, SharedStage, another_plugin, shared_stage
from tests.parts import discord_api
from tests.parts.discord_api import DiscordApi, User
from tests.parts.model import Call
from tests.service.given import log_in

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-gateway")]

GREETER = """
def register(ctx):
    ctx.register_command("greet", lambda name: f"Good day, {name}.", "Greets", "name")
    def setup(parser):
        parser.add_argument("name")

    ctx.register_cli_command("greet", "Greets", setup, lambda given: print(f"Good day, {given.name}."))
"""


@dataclass(frozen=True, slots=True)
class Platforms:
    """A gateway on Telegram and Discord, and Ada on Discord."""

    stage: SharedStage
    discord: DiscordApi
    ada: User


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platforms]:
    home = tmp_path_factory.mktemp("hermes")
    with discord_api.running() as api:
        ada = api.user("ada")
        api.guild("Home", [ada], channels=["general"])
        plugins = [another_plugin(home / "greeter", GREETER)]
        with shared_stage(home, plugins=plugins, discord=api, on_discord=[ada.id]) as stage:
            yield Platforms(stage, api, ada)


@pytest.fixture
def hermes(both: Platforms) -> SharedStage:
    tripwire.guard([both.discord.token])
    return both.stage


def test_the_stand_in_model_replies_and_hermes_stores_the_message(
    hermes: SharedStage,
) -> None:
    with hermes.stage() as chat:
        chat.model.will("Hello, Anna.")
        chat.ask("Good morning, machine.", until="Hello, Anna.")
        assert chat.model.saw("Good morning, machine.")

        def places() -> list[str]:
            return chat.hermes.search_everything("Good morning, machine.")

        # The leak search must find a text while the gateway runs.
        chat.api.wait(lambda: "state.db: messages" in places(), SECONDS)
        assert "logs/agent.log" in places()
        assert "Good morning, machine." in chat.hermes.state_db_text()


def test_a_server_whose_tokens_are_stored_has_its_tools_called(hermes: SharedStage) -> None:
    with hermes.stage("notes") as chat:
        chat.model.will(Call(f"mcp__{chat.notes}__whoami"), "You are Ada there.")
        chat.ask("Who am I?", until="You are Ada there.")
        assert "ada@example.com" in chat.model.tool_results()[-1]


def test_a_server_without_a_token_has_no_tools(hermes: SharedStage) -> None:
    with hermes.stage("notes") as chat:
        chat.ask("What can you do?", until="Understood.")
        assert {name for name in chat.model.tools() if name.startswith("mcp__")} == {
            f"mcp__{chat.notes}__add",
            f"mcp__{chat.notes}__whoami",
        }
        assert f"MCP OAuth for '{chat.later}'" in chat.hermes.logs()


def test_tokens_stored_while_the_gateway_runs_are_used_after_a_restart(hermes: SharedStage) -> None:
    with hermes.stage() as chat:
        asyncio.run(log_in(AuthService(chat.home), Server(chat.later, chat.demo.resources.origin + "/later")))
        chat.ask("Remember the milk, machine.", until="Understood.")
        chat.hermes.stop()
        # After the stop, the write-ahead log is in the database.
        assert "state.db: messages" in chat.hermes.search_everything("Remember the milk, machine.")
        chat.hermes.start()
        chat.model.will(Call(f"mcp__{chat.later}__whoami"), "Found you.")
        chat.ask("Who am I now?", until="Found you.")
        assert "ada@example.com" in chat.model.tool_results()[-1]


def test_a_held_answer_keeps_the_turn_open(hermes: SharedStage) -> None:
    with hermes.stage() as chat:
        held = chat.model.hold()
        chat.api.say(chat.anna, "Think about it.")
        assert held.reached.wait(SECONDS)
        chat.api.say(chat.anna, "http://127.0.0.1:1/callback?code=said-while-busy")
        # Without the plugin, Hermes adds the code to the conversation.
        chat.api.wait(lambda: chat.model.saw("said-while-busy"), SECONDS)
        held.release()


def test_a_call_times_out_if_the_session_ends_while_it_is_connected(hermes: SharedStage) -> None:
    with hermes.stage("notes", call_seconds=SHORT_CALL_SECONDS) as chat:
        chat.ask("What can you do?", until="Understood.")
        chat.demo.authorization_server.ledger.revoke_everything()
        chat.model.will(Call(f"mcp__{chat.notes}__whoami"), "I cannot tell.")
        chat.ask("Who am I?", until="I cannot tell.")
        # Hermes does not return its `needs_reauth`: the transport fails and the call gets no response.
        assert "MCP call timed out" in chat.model.tool_results()[-1]


def test_a_folder_given_as_a_plugin_is_loaded(hermes: SharedStage) -> None:
    with hermes.stage() as chat:
        chat.api.say(chat.anna, "/greet Ada")
        chat.said("Good day, Ada.")
        assert "Good day, Ada." in chat.hermes.command("greet", "Ada").stdout
        assert not chat.model.turns


def test_a_discord_message_gets_a_reply(both: Platforms, hermes: SharedStage) -> None:
    with hermes.stage() as chat:
        api, ada = both.discord, both.ada
        chat.model.will("Hello, Ada.")
        api.say(ada, api.dm(ada), "Good morning, machine.")
        api.wait(lambda: api.standing("Hello, Ada."), SECONDS)
        assert chat.model.saw("Good morning, machine.")
