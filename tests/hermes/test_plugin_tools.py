"""After a login Hermes has the tools, whatever the server was before; until then it loses nothing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from tests.hermes.stage import SECONDS, Stage, another_plugin, on_stage
from tests.parts.model import Call
from tests.requirements import covers
from tests.service.given import kept

pytestmark = pytest.mark.hermes

PARKED = "parking"
PARK_SECONDS = 120.0
# Hermes's function is gone as soon as the first message has come.
FORGETFUL = """
def register(ctx):
    def forget(**_):
        import tools.mcp_tool
        vars(tools.mcp_tool).pop("discover_mcp_tools", None)

    ctx.register_hook("pre_gateway_dispatch", forget)
"""
# As after a fatal error of the network: Hermes puts another adapter in its place.
RECONNECT = """
import asyncio

def register(ctx):
    def anew(event=None, gateway=None, **_):
        if event.text != "reconnect":
            return None
        async def replaced():
            (platform, old), = gateway.adapters.items()
            del gateway.adapters[platform]
            await old.disconnect()
            new = gateway._create_adapter(platform, gateway.config.platforms[platform])
            new.set_message_handler(gateway._handle_message)
            new.set_busy_session_handler(gateway._handle_active_session_busy_message)
            await new.connect()
            gateway.adapters[platform] = new
            print("Another adapter is there.", flush=True)
        asyncio.get_running_loop().create_task(replaced())
        return {"action": "skip", "reason": "a test"}

    ctx.register_hook("pre_gateway_dispatch", anew)
"""


def said_so_often(stage: Stage, times: int) -> bool:
    return len(stage.shown("/reload-mcp")) == times


def whoami(stage: Stage, server: str = "notes") -> str:
    """Have the agent call a tool; returns what the model was told of it."""
    stage.model.will(Call(f"mcp__{server}__whoami"), f"Called {len(stage.model.bodies)}.")
    told = f"Called {len(stage.model.bodies)}."
    stage.ask("Who am I?", until=told)
    return stage.model.tool_results()[-1]


@covers("hermes-live")
def test_a_connected_server_goes_on_with_the_new_token(tmp_path: Path) -> None:
    with on_stage(tmp_path, "notes", "later") as stage:
        assert "ada@example.com" in whoami(stage)
        stage.api.say(stage.anna, stage.begin())
        stage.said("notes: connected")
        stage.live()
        before = stage.demo.server.count("token")
        assert "ada@example.com" in whoami(stage)
        assert "ada@example.com" in whoami(stage, "later")
        assert stage.demo.server.count("token") == before
        stage.nothing_leaked()


@covers("hermes-live", "hermes-asks")
def test_a_server_whose_token_died_is_there_again_without_a_restart(tmp_path: Path) -> None:
    with on_stage(tmp_path, "notes", "later") as stage:
        stage.ask("What can you do?", until="Understood.")
        stage.demo.server.ledger.revoke_everything()
        whoami(stage)
        # It gives up after half a minute, and takes the server's tools away.
        stage.api.wait(lambda: PARKED in stage.hermes.output(), PARK_SECONDS)
        # The agent has asked by itself.
        stage.api.say(stage.anna, stage.approved())
        stage.said("notes: connected")
        stage.live()
        assert "ada@example.com" in whoami(stage)
        stage.nothing_leaked()


@covers("hermes-asks")
def test_a_person_is_asked_once_however_often_the_model_calls(tmp_path: Path) -> None:
    with on_stage(tmp_path) as stage:
        asks = Call("connect_mcp_server", {"server": "notes"})
        stage.model.will([asks, asks], asks, "I have asked you.")
        stage.ask("Look at my notes.", until="I have asked you.")
        assert len(stage.shown("Connect notes")) == 1
        assert all("has just been asked" in told for told in stage.model.tool_results())
        stage.api.press(stage.anna, stage.said("Connect notes"), "Cancel")
        stage.said("notes: not connected")
        # Who said no is not asked again at once.
        stage.model.will(asks, "You said no.")
        stage.ask("And now?", until="You said no.")
        assert "they can type /mcpauth notes" in stage.model.tool_results()[-1]
        assert stage.shown("Connect notes") == []


def test_asked_in_a_group_the_person_hears_in_private(tmp_path: Path) -> None:
    with on_stage(tmp_path, privacy_mode=False) as stage:
        group = stage.api.group(-1001, "Team", [stage.anna, stage.ben])
        stage.model.will(Call("connect_mcp_server", {"server": "notes"}), "I have asked you.")
        stage.api.say(stage.anna, "Look at my notes.", group)
        stage.said("I have asked you.", group)
        stage.said("I wrote to you privately", group)
        stage.api.say(stage.anna, stage.approved())
        stage.said("notes: connected")
        stage.nothing_leaked()


@covers("hermes-keeps")
def test_what_hermes_has_stays_until_the_new_tokens_are_there(tmp_path: Path) -> None:
    with on_stage(tmp_path, "notes") as stage:
        before = kept(tmp_path)
        stage.begin()
        assert kept(tmp_path) == before
        stage.api.press(stage.anna, stage.said("Connect notes"), "Cancel")
        stage.said("notes: not connected")
        assert kept(tmp_path) == before
        # A provider that takes no code any more.
        stage.demo.server.change(code_seconds=-1)
        stage.api.say(stage.anna, stage.begin())
        stage.api.wait(lambda: len(stage.shown("notes: not connected")) == 2, SECONDS)
        assert kept(tmp_path) == before
        assert "ada@example.com" in whoami(stage)


@covers("hermes-moved")
def test_where_hermes_has_moved_the_user_is_told_what_to_type_and_the_operator_once(tmp_path: Path) -> None:
    with on_stage(tmp_path, beside=another_plugin(tmp_path / "forgetful", FORGETFUL)) as stage:
        stage.ask("Good morning.", until="Understood.")
        for times in (1, 2):
            stage.api.say(stage.anna, stage.begin())
            stage.api.wait(partial(said_so_often, stage, times), SECONDS)
        said = "Hermes has no tools.mcp_tool.discover_mcp_tools: tools appear after /reload-mcp only."
        assert stage.hermes.output().count(said) == 1
        stage.nothing_leaked()


@covers("hermes-kept-out")
def test_another_adapter_of_hermess_is_attended_as_the_first_was(tmp_path: Path) -> None:
    with on_stage(tmp_path, beside=another_plugin(tmp_path / "reconnect", RECONNECT)) as stage:
        address = stage.begin()
        stage.api.say(stage.anna, "reconnect")
        stage.api.wait(lambda: "Another adapter is there." in stage.hermes.output(), SECONDS)
        stage.ask("Are you there?", until="Understood.")
        held = stage.model.hold()
        stage.api.say(stage.anna, "Think about it.")
        assert held.reached.wait(SECONDS)
        stage.api.say(stage.anna, address)
        stage.said("notes: connected")
        held.release()
        stage.nothing_leaked()


@covers("hermes-kept-out")
def test_debugged_hermes_logs_no_code(tmp_path: Path) -> None:
    with on_stage(tmp_path, verbosity="-vv", behaviour=Behaviour(with_device=True)) as stage:
        stage.api.say(stage.anna, "/mcpauth notes")
        prompt = stage.said("Connect notes")
        stage.secrets.add(stage.api.copied_from(prompt, "Copy the code"))
        stage.api.press(stage.anna, prompt, "Paste instead")
        stage.api.wait(lambda: "Copy the whole address" in stage.said("Connect notes").text, SECONDS)
        stage.api.say(stage.anna, stage.approved())
        stage.said("notes: connected")
        assert "DEBUG" in stage.hermes.output()
        stage.nothing_leaked()
