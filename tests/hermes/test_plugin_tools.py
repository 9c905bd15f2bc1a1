"""Hermes's tools after a login, and the stored tokens during one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.hermes.stage import (
    PLUGIN,
    SECONDS,
    SHORT_CALL_SECONDS,
    SharedStage,
    Stage,
    another_plugin,
    shared_stage,
)
from tests.parts.authorization_server import Behaviour
from tests.parts.model import Call
from tests.requirements import covers
from tests.service.given import kept

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-tools")]

PARKED = "parking"
PARK_SECONDS = 120.0
# A plugin whose chat commands change the running Hermes:
#   forget     Remove a function of Hermes, as a later version might.
#   remember   Restore that function.
#   reconnect  Replace the adapter, as Hermes does after a fatal network error.
# Hermes gives up on a server after two attempts instead of five, in three seconds instead of 31.
TINKER = """
import asyncio

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
    ctx.register_hook("pre_gateway_dispatch", run_command)
"""


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStage]:
    home = tmp_path_factory.mktemp("hermes")
    # At the highest verbosity: even then, no test of this module may log a code.
    plugins: list[str | Path] = [PLUGIN, another_plugin(home / "tinker", TINKER)]
    with shared_stage(home, plugins=plugins, verbosity="-vv") as shared:
        yield shared


def tinker(stage: Stage, word: str, until: str) -> None:
    """Run a command of the tinker plugin and wait for its output."""
    before = stage.hermes.output().count(until)
    stage.api.say(stage.anna, word)
    stage.api.wait(lambda: stage.hermes.output().count(until) > before, SECONDS)


def said_so_often(stage: Stage, times: int) -> bool:
    return len(stage.shown("/reload-mcp")) == times


def has_given_up(stage: Stage) -> bool:
    """Return whether Hermes has parked the server."""
    lines = stage.hermes.output().splitlines()
    return any(PARKED in line and f"'{stage.notes}'" in line for line in lines)


def whoami(stage: Stage, server: str = "") -> str:
    """Let the agent call a tool; return the result that the model received."""
    stage.model.will(Call(f"mcp__{server or stage.notes}__whoami"), f"Called {len(stage.model.bodies)}.")
    told = f"Called {len(stage.model.bodies)}."
    stage.ask("Who am I?", until=told)
    return stage.model.tool_results()[-1]


@covers("hermes-live")
def test_a_connected_server_continues_with_the_new_token(hermes: SharedStage) -> None:
    with hermes.stage("notes", "later") as stage:
        assert "ada@example.com" in whoami(stage)
        stage.api.say(stage.anna, stage.begin())
        stage.said(f"{stage.notes}: connected")
        stage.live()
        before = stage.demo.authorization_server.count_requests("token")
        assert "ada@example.com" in whoami(stage)
        assert "ada@example.com" in whoami(stage, stage.later)
        assert stage.demo.authorization_server.count_requests("token") == before
        stage.nothing_leaked()


@covers("hermes-live", "hermes-asks")
def test_a_server_whose_token_died_is_connected_again_without_a_restart(hermes: SharedStage) -> None:
    with hermes.stage("notes", "later", call_seconds=SHORT_CALL_SECONDS) as stage:
        stage.ask("What can you do?", until="Understood.")
        stage.demo.authorization_server.ledger.revoke_everything()
        whoami(stage)
        # Hermes gives up and removes the server's tools.
        stage.api.wait(lambda: has_given_up(stage), PARK_SECONDS)
        # The failed call has already prompted the user.
        stage.api.say(stage.anna, stage.approved())
        stage.said(f"{stage.notes}: connected")
        stage.live()
        assert "ada@example.com" in whoami(stage)
        stage.nothing_leaked()


@covers("hermes-asks")
def test_a_user_is_prompted_once_for_many_calls_of_the_model(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        asks = Call("connect_mcp_server", {"server": stage.notes})
        stage.model.will([asks, asks], asks, "I have asked you.")
        stage.ask("Look at my notes.", until="I have asked you.")
        assert len(stage.shown(f"Connect {stage.notes}")) == 1
        assert all("has just been asked" in told for told in stage.model.tool_results())
        stage.api.press(stage.anna, stage.said(f"Connect {stage.notes}"), "Cancel")
        stage.said(f"{stage.notes}: not connected")
        # After a cancelled login, the plugin does not prompt the user again at once.
        stage.model.will(asks, "You said no.")
        stage.ask("And now?", until="You said no.")
        assert f"they can type /mcpauth {stage.notes}" in stage.model.tool_results()[-1]
        assert stage.shown(f"Connect {stage.notes}") == []


def test_a_prompt_for_a_turn_in_a_group_is_sent_in_private(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        group = stage.group("Team", [stage.anna, stage.ben])
        stage.model.will(Call("connect_mcp_server", {"server": stage.notes}), "I have asked you.")
        stage.api.say(stage.anna, "Look at my notes.", group)
        stage.said("I have asked you.", group)
        stage.said("I wrote to you privately", group)
        stage.api.say(stage.anna, stage.approved())
        stage.said(f"{stage.notes}: connected")
        stage.nothing_leaked()


@covers("hermes-keeps")
def test_the_old_tokens_and_client_stay_until_the_new_tokens_are_stored(hermes: SharedStage) -> None:
    with hermes.stage("notes") as stage:
        before = kept(stage.home)
        stage.begin()
        assert kept(stage.home) == before
        stage.api.press(stage.anna, stage.said(f"Connect {stage.notes}"), "Cancel")
        stage.said(f"{stage.notes}: not connected")
        assert kept(stage.home) == before
        # The authorization server now rejects every code as expired.
        stage.demo.authorization_server.change_behaviour(code_seconds=-1)
        stage.api.say(stage.anna, stage.begin())
        stage.api.wait(lambda: len(stage.shown(f"{stage.notes}: not connected")) == 2, SECONDS)
        assert kept(stage.home) == before
        assert "ada@example.com" in whoami(stage)


@covers("hermes-moved")
def test_if_hermes_has_changed_the_user_gets_a_command_and_the_operator_one_warning(
    hermes: SharedStage,
) -> None:
    with hermes.stage() as stage:
        hermes.shared.never_live.add(stage.notes)
        tinker(stage, "forget", "The function is removed.")
        stage.ask("Good morning.", until="Understood.")
        for times in (1, 2):
            stage.api.say(stage.anna, stage.begin())
            stage.api.wait(partial(said_so_often, stage, times), SECONDS)
        said = "Hermes has no tools.mcp_tool.discover_mcp_tools: tools appear after /reload-mcp only."
        assert stage.hermes.output().count(said) == 1
        stage.nothing_leaked()
        tinker(stage, "remember", "The function is restored.")


@covers("hermes-kept-out")
def test_a_replaced_adapter_is_attached_like_the_first(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        address = stage.begin()
        tinker(stage, "reconnect", "The adapter is replaced.")
        stage.ask("Are you there?", until="Understood.")
        held = stage.model.hold()
        stage.api.say(stage.anna, "Think about it.")
        assert held.reached.wait(SECONDS)
        stage.api.say(stage.anna, address)
        stage.said(f"{stage.notes}: connected")
        held.release()
        stage.nothing_leaked()


@covers("hermes-kept-out")
def test_hermes_logs_no_code_at_debug_level(hermes: SharedStage) -> None:
    with hermes.stage(behaviour=Behaviour(with_device=True)) as stage:
        stage.api.say(stage.anna, f"/mcpauth {stage.notes}")
        prompt = stage.said(f"Connect {stage.notes}")
        stage.secrets.add(stage.api.copied_from(prompt, "Copy the code"))
        stage.api.press(stage.anna, prompt, "Paste instead")
        stage.api.wait(lambda: "Copy the whole address" in stage.said(f"Connect {stage.notes}").text, SECONDS)
        stage.api.say(stage.anna, stage.approved())
        stage.said(f"{stage.notes}: connected")
        assert "DEBUG" in stage.hermes.output()
        stage.nothing_leaked()
