"""Hermes's tools after a login, and the stored tokens during a login."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.hermes.scenario import (
    PLUGIN,
    SECONDS,
    SHORT_CALL_SECONDS,
    Scenario,
    SharedTelegramGateway,
    run_shared_gateway,
    write_plugin,
)
from tests.parts.authorization_server import Behaviour
from tests.parts.fake_model import ToolCall
from tests.requirements import covers
from tests.service.helpers import read_credential_files

pytestmark = [pytest.mark.hermes, pytest.mark.real_hermes, pytest.mark.xdist_group("hermes-tools")]

PARKED_TEXT = "parking"
PARK_SECONDS = 120.0
# A plugin whose chat commands change the running Hermes:
#   forget     Remove a function of Hermes, as a later version might.
#   remember   Restore that function.
#   reconnect  Replace the adapter, as Hermes does after a fatal network error.
# The plugin also shortens times. A call waits a second for its login, not four minutes. Hermes gives up on a
# server after two attempts (three seconds), not after five (31 seconds).
TINKER_PLUGIN = """
import asyncio

import gateway_hooks.hermes.agent_tool
import tools.mcp_tool as tool

removed = {}

def forget(gateway):
    removed["discover_mcp_tools"] = vars(tool).pop("discover_mcp_tools")
    print("The function is removed.", flush=True)

def remember(gateway):
    vars(tool).update(removed)
    print("The function is restored.", flush=True)

async def replace_adapter(gateway):
    (platform, old), = gateway.adapters.items()
    del gateway.adapters[platform]
    await old.disconnect()
    new = gateway._create_adapter(platform, gateway.config.platforms[platform])
    new.set_message_handler(gateway._handle_message)
    new.set_busy_session_handler(gateway._handle_active_session_busy_message)
    await new.connect()
    gateway.adapters[platform] = new
    print("The adapter is replaced.", flush=True)

def reconnect(gateway):
    asyncio.get_running_loop().create_task(replace_adapter(gateway))

COMMANDS = {command.__name__: command for command in (forget, remember, reconnect)}

def register(ctx):
    def run_command(event=None, gateway=None, **_):
        if event.text not in COMMANDS:
            return None
        COMMANDS[event.text](gateway)
        return {"action": "skip", "reason": "a test"}

    tool._MAX_RECONNECT_RETRIES = 2
    gateway_hooks.hermes.agent_tool.LOGIN_WAIT_SECONDS = 1.0
    ctx.register_hook("pre_gateway_dispatch", run_command)
"""


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedTelegramGateway]:
    home = tmp_path_factory.mktemp("hermes")
    # Use the highest verbosity: even so, no test of this module may log a code.
    plugins: list[str | Path] = [PLUGIN, write_plugin(home / "tinker", TINKER_PLUGIN)]
    with run_shared_gateway(home, plugins=plugins, verbosity="-vv") as shared:
        yield shared


def run_tinker_command(scenario: Scenario, command: str, output: str) -> None:
    """Run a command of the tinker plugin and wait for its output."""
    previous_count = scenario.hermes.output().count(output)
    scenario.api.say(scenario.anna, command)
    scenario.api.wait(lambda: scenario.hermes.output().count(output) > previous_count, SECONDS)


def has_reload_hints(scenario: Scenario, times: int) -> bool:
    return len(scenario.bot_messages("/reload-mcp")) == times


def has_given_up(scenario: Scenario) -> bool:
    """Return whether Hermes has parked the server."""
    lines = scenario.hermes.output().splitlines()
    return any(PARKED_TEXT in line and f"'{scenario.notes}'" in line for line in lines)


def call_whoami(scenario: Scenario, server: str = "") -> str:
    """Let the agent call a tool; return the result that the model received."""
    scenario.model.queue_steps(
        ToolCall(f"mcp__{server or scenario.notes}__whoami"), f"Called {len(scenario.model.bodies)}."
    )
    reply = f"Called {len(scenario.model.bodies)}."
    scenario.ask_agent("Who am I?", reply=reply)
    return scenario.model.tool_results()[-1]


@covers("hermes-live")
def test_a_connected_server_continues_with_the_new_token(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario("notes", "later") as scenario:
        assert "ada@example.com" in call_whoami(scenario)
        scenario.api.say(scenario.anna, scenario.start_login())
        scenario.wait_for_message(f"{scenario.notes}: connected")
        scenario.wait_for_tools()
        previous_count = scenario.demo.authorization_server.count_requests("token")
        assert "ada@example.com" in call_whoami(scenario)
        assert "ada@example.com" in call_whoami(scenario, scenario.later)
        assert scenario.demo.authorization_server.count_requests("token") == previous_count
        scenario.assert_no_leaks()


@covers("hermes-live", "hermes-asks")
def test_server_with_revoked_tokens_reconnects_without_a_restart(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario("notes", "later", call_seconds=SHORT_CALL_SECONDS) as scenario:
        scenario.ask_agent("What can you do?", reply="Understood.")
        scenario.demo.authorization_server.ledger.revoke_everything()
        call_whoami(scenario)
        # Hermes gives up and removes the server's tools.
        scenario.api.wait(lambda: has_given_up(scenario), PARK_SECONDS)
        # The failed call has already prompted the user.
        scenario.api.say(scenario.anna, scenario.approve_prompt())
        scenario.wait_for_message(f"{scenario.notes}: connected")
        scenario.wait_for_tools()
        assert "ada@example.com" in call_whoami(scenario)
        scenario.assert_no_leaks()


@covers("hermes-asks")
def test_a_user_is_prompted_once_for_many_calls_of_the_model(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        prompt_call = ToolCall("connect_mcp_server", {"server": scenario.notes})
        scenario.model.queue_steps([prompt_call, prompt_call], prompt_call, "I have asked you.")
        scenario.ask_agent("Look at my notes.", reply="I have asked you.")
        assert len(scenario.bot_messages(f"Connect {scenario.notes}")) == 1
        assert all("has been asked" in result for result in scenario.model.tool_results())
        scenario.api.press(scenario.anna, scenario.wait_for_message(f"Connect {scenario.notes}"), "Cancel")
        scenario.wait_for_message(f"{scenario.notes}: not connected")
        # After a cancelled login, the plugin does not prompt the user again at once.
        scenario.model.queue_steps(prompt_call, "You said no.")
        scenario.ask_agent("And now?", reply="You said no.")
        assert f"they can type /mcpauth {scenario.notes}" in scenario.model.tool_results()[-1]
        assert scenario.bot_messages(f"Connect {scenario.notes}") == []


def test_a_prompt_for_a_turn_in_a_group_is_sent_in_private(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        group = scenario.add_group("Team", [scenario.anna, scenario.ben])
        scenario.model.queue_steps(
            ToolCall("connect_mcp_server", {"server": scenario.notes}), "I have asked you."
        )
        scenario.api.say(scenario.anna, "Look at my notes.", group)
        scenario.wait_for_message("I have asked you.", group)
        scenario.wait_for_message("I wrote to you privately", group)
        scenario.api.say(scenario.anna, scenario.approve_prompt())
        scenario.wait_for_message(f"{scenario.notes}: connected")
        scenario.assert_no_leaks()


def read_files_of_the_session(home: Path) -> dict[str, bytes]:
    """Return what is stored for a session, except the mark that a client got no response (quirk 49)."""
    files = read_credential_files(home)
    for name, content in files.items():
        document = json.loads(content)
        document.pop("unanswered_client", None)
        files[name] = json.dumps(document).encode()
    return files


@covers("hermes-keeps")
def test_the_old_tokens_and_client_stay_until_the_new_tokens_are_stored(
    hermes: SharedTelegramGateway,
) -> None:
    with hermes.new_scenario("notes") as scenario:
        stored_files = read_files_of_the_session(scenario.home)
        scenario.start_login()
        assert read_files_of_the_session(scenario.home) == stored_files
        scenario.api.press(scenario.anna, scenario.wait_for_message(f"Connect {scenario.notes}"), "Cancel")
        scenario.wait_for_message(f"{scenario.notes}: still connected")
        assert read_files_of_the_session(scenario.home) == stored_files
        # The authorization server now rejects every code as expired.
        scenario.demo.authorization_server.change_behaviour(code_seconds=-1)
        scenario.api.say(scenario.anna, scenario.start_login())
        scenario.api.wait(
            lambda: len(scenario.bot_messages(f"{scenario.notes}: still connected")) == 2, SECONDS
        )
        assert read_files_of_the_session(scenario.home) == stored_files
        assert "ada@example.com" in call_whoami(scenario)


@covers("hermes-moved")
def test_if_hermes_has_changed_the_user_gets_a_command_and_the_operator_one_warning(
    hermes: SharedTelegramGateway,
) -> None:
    with hermes.new_scenario() as scenario:
        hermes.shared.servers_without_tools.add(scenario.notes)
        run_tinker_command(scenario, "forget", "The function is removed.")
        scenario.ask_agent("Good morning.", reply="Understood.")
        for times in (1, 2):
            scenario.api.say(scenario.anna, scenario.start_login())
            scenario.api.wait(partial(has_reload_hints, scenario, times), SECONDS)
        warning = "Hermes has no discover_mcp_tools in tools.mcp_tool_discovery or tools.mcp_tool: "
        assert scenario.hermes.output().count(warning) == 1
        scenario.assert_no_leaks()
        run_tinker_command(scenario, "remember", "The function is restored.")


@covers("hermes-kept-out")
def test_a_replaced_adapter_is_attached_like_the_first(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        address = scenario.start_login()
        run_tinker_command(scenario, "reconnect", "The adapter is replaced.")
        scenario.ask_agent("Are you there?", reply="Understood.")
        hold = scenario.model.hold()
        scenario.api.say(scenario.anna, "Think about it.")
        assert hold.reached.wait(SECONDS)
        scenario.api.say(scenario.anna, address)
        scenario.wait_for_message(f"{scenario.notes}: connected")
        hold.release()
        scenario.assert_no_leaks()


@covers("hermes-kept-out")
def test_hermes_logs_no_code_at_debug_level(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario(behaviour=Behaviour(with_device=True)) as scenario:
        scenario.api.say(scenario.anna, f"/mcpauth {scenario.notes}")
        prompt = scenario.wait_for_message(f"Connect {scenario.notes}")
        scenario.codes.add(scenario.api.copied_text(prompt, "Copy the code"))
        scenario.api.press(scenario.anna, prompt, "Paste instead")
        scenario.api.wait(
            lambda: "Copy the last page" in scenario.wait_for_message(f"Connect {scenario.notes}").text,
            SECONDS,
        )
        scenario.api.say(scenario.anna, scenario.approve_prompt())
        scenario.wait_for_message(f"{scenario.notes}: connected")
        assert "DEBUG" in scenario.hermes.output()
        scenario.assert_no_leaks()
