"""The real Hermes gateway with local chat platforms, a stand-in model and MCP servers, without the plugin."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests import leak_check
from tests.hermes.scenario import (
    SECONDS,
    SHORT_CALL_SECONDS,
    SharedTelegramGateway,
    run_shared_gateway,
    write_plugin,
)
from tests.parts import discord_api
from tests.parts.discord_api import DiscordApi, User
from tests.parts.fake_model import ToolCall
from tests.service.helpers import log_in

pytestmark = [
    pytest.mark.hermes,
    pytest.mark.real_hermes,
    pytest.mark.soak,
    pytest.mark.xdist_group("hermes-gateway"),
]

GREETER_PLUGIN = """
def register(ctx):
    ctx.register_command("greet", lambda name: f"Good day, {name}.", "Greets", "name")
    def setup(parser):
        parser.add_argument("name")

    ctx.register_cli_command("greet", "Greets", setup, lambda given: print(f"Good day, {given.name}."))
"""


@dataclass(frozen=True, slots=True)
class Platforms:
    """A gateway on Telegram and Discord, and Ada on Discord."""

    shared: SharedTelegramGateway
    discord: DiscordApi
    ada: User


@pytest.fixture(scope="module")
def platforms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platforms]:
    home = tmp_path_factory.mktemp("hermes")
    with discord_api.serve_discord_api() as api:
        ada = api.add_user("ada")
        api.add_guild("Home", [ada], channels=["general"])
        plugins = [write_plugin(home / "greeter", GREETER_PLUGIN)]
        with run_shared_gateway(home, plugins=plugins, discord=api, discord_user_ids=[ada.id]) as shared:
            yield Platforms(shared, api, ada)


@pytest.fixture
def hermes(platforms: Platforms) -> SharedTelegramGateway:
    leak_check.watch_secrets([platforms.discord.token])
    return platforms.shared


def test_the_stand_in_model_replies_and_hermes_stores_the_message(
    hermes: SharedTelegramGateway,
) -> None:
    with hermes.new_scenario() as scenario:
        scenario.model.queue_steps("Hello, Anna.")
        scenario.ask_agent("Good morning, machine.", reply="Hello, Anna.")
        assert scenario.model.has_received("Good morning, machine.")

        def find_message() -> list[str]:
            return scenario.hermes.find_in_home("Good morning, machine.")

        # The leak search must find a text while the gateway runs.
        scenario.api.wait(lambda: "state.db: messages" in find_message(), SECONDS)
        assert "logs/agent.log" in find_message()
        assert "Good morning, machine." in scenario.hermes.state_db_text()


def test_model_calls_a_tool_of_a_server_with_stored_tokens(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario("notes") as scenario:
        scenario.model.queue_steps(ToolCall(f"mcp__{scenario.notes}__whoami"), "You are Ada there.")
        scenario.ask_agent("Who am I?", reply="You are Ada there.")
        assert "ada@example.com" in scenario.model.tool_results()[-1]


def test_a_server_without_a_token_has_no_tools(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario("notes") as scenario:
        scenario.ask_agent("What can you do?", reply="Understood.")
        assert {name for name in scenario.model.offered_tools() if name.startswith("mcp__")} == {
            f"mcp__{scenario.notes}__add",
            f"mcp__{scenario.notes}__whoami",
        }
        assert f"MCP OAuth for '{scenario.later}'" in scenario.hermes.logs()


def test_tokens_stored_while_the_gateway_runs_are_used_after_a_restart(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        asyncio.run(
            log_in(
                AuthService(scenario.home), Server(scenario.later, scenario.demo.resources.origin + "/later")
            )
        )
        scenario.ask_agent("Remember the milk, machine.", reply="Understood.")
        scenario.hermes.stop()
        # After the stop, the write-ahead log is in the database.
        assert "state.db: messages" in scenario.hermes.find_in_home("Remember the milk, machine.")
        scenario.hermes.start()
        scenario.model.queue_steps(ToolCall(f"mcp__{scenario.later}__whoami"), "Found you.")
        scenario.ask_agent("Who am I now?", reply="Found you.")
        assert "ada@example.com" in scenario.model.tool_results()[-1]


def test_held_model_reply_keeps_the_turn_open(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        hold = scenario.model.hold()
        scenario.api.say(scenario.anna, "Think about it.")
        assert hold.reached.wait(SECONDS)
        scenario.api.say(scenario.anna, "http://127.0.0.1:1/callback?code=said-while-busy")
        # Without the plugin, Hermes adds the code to the conversation.
        scenario.api.wait(lambda: scenario.model.has_received("said-while-busy"), SECONDS)
        hold.release()


def test_a_call_times_out_if_the_session_ends_while_it_is_connected(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario("notes", call_seconds=SHORT_CALL_SECONDS) as scenario:
        scenario.ask_agent("What can you do?", reply="Understood.")
        scenario.demo.authorization_server.ledger.revoke_everything()
        scenario.model.queue_steps(ToolCall(f"mcp__{scenario.notes}__whoami"), "I cannot tell.")
        scenario.ask_agent("Who am I?", reply="I cannot tell.")
        # Hermes does not return `needs_reauth`, because the transport fails and the call gets no response.
        assert "MCP call timed out" in scenario.model.tool_results()[-1]


def test_plugin_in_a_folder_is_loaded(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        scenario.api.say(scenario.anna, "/greet Ada")
        scenario.wait_for_message("Good day, Ada.")
        assert "Good day, Ada." in scenario.hermes.run_command("greet", "Ada").stdout
        assert not scenario.model.turns


def test_a_discord_message_gets_a_reply(platforms: Platforms, hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        api, ada = platforms.discord, platforms.ada
        scenario.model.queue_steps("Hello, Ada.")
        api.say(ada, api.dm(ada), "Good morning, machine.")
        api.wait(lambda: api.messages_containing("Hello, Ada."), SECONDS)
        assert scenario.model.has_received("Good morning, machine.")
