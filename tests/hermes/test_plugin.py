"""The plugin in the real Hermes gateway, by Telegram: from the command to tools that the agent calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hermes.stage import SECONDS, on_stage
from tests.parts.model import Call

pytestmark = pytest.mark.hermes


def test_a_server_is_connected_from_the_chat_and_its_tools_are_live_at_once(tmp_path: Path) -> None:
    with on_stage(tmp_path) as stage:
        address = stage.begin()
        paste = stage.api.say(stage.anna, address)
        stage.said("notes: connected")
        assert paste.id in {message.id for message in stage.api.deleted(stage.anna)}
        stage.live()
        stage.model.will(Call("mcp__notes__whoami"), "You are Ada there.")
        stage.ask("Who am I?", until="You are Ada there.")
        assert "ada@example.com" in stage.model.tool_results()[-1]
        stage.nothing_leaked()


def test_a_paste_during_a_turn_is_taken_too(tmp_path: Path) -> None:
    with on_stage(tmp_path) as stage:
        held = stage.model.hold()
        stage.api.say(stage.anna, "Think about it.")
        assert held.reached.wait(SECONDS)
        address = stage.begin()
        stage.api.say(stage.anna, address)
        stage.said("notes: connected")
        held.release()
        stage.said("Understood.")
        stage.nothing_leaked()


def test_a_call_whose_session_is_over_asks_once_in_private_and_tells_the_model(tmp_path: Path) -> None:
    with on_stage(tmp_path, "notes") as stage:
        stage.ask("What can you do?", until="Understood.")
        stage.demo.server.ledger.revoke_everything()
        stage.model.will(Call("mcp__notes__whoami"), "Please log in.")
        stage.ask("Who am I?", until="Please log in.")
        assert "has just been asked" in stage.model.tool_results()[-1]
        stage.said("Connect notes")
        stage.api.say(stage.anna, stage.approved())
        stage.said("notes: connected")
        stage.live()
        stage.model.will(Call("mcp__notes__whoami"), "You are Ada again.")
        stage.ask("And now?", until="You are Ada again.")
        assert "ada@example.com" in stage.model.tool_results()[-1]
        stage.nothing_leaked()


def test_the_model_can_ask_for_a_server_that_has_no_tools_yet(tmp_path: Path) -> None:
    with on_stage(tmp_path) as stage:
        stage.model.will(Call("connect_mcp_server", {"server": "later"}), "I have asked you.")
        stage.ask("Look at the later list.", until="I have asked you.")
        assert "has just been asked" in stage.model.tool_results()[-1]
        stage.api.say(stage.anna, stage.approved(server="later"))
        stage.said("later: connected")
        stage.live("later")
        stage.model.will(Call("mcp__later__whoami"), "Done.")
        stage.ask("Now?", until="Done.")
        assert "ada@example.com" in stage.model.tool_results()[-1]
        stage.nothing_leaked()
