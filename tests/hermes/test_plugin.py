"""The plugin in the real Hermes gateway, by Telegram: from the command to tools that the agent calls."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.service import AuthService
from tests.browserless import approve_device
from tests.hermes.stage import SECONDS, on_stage
from tests.parts.model import Call
from tests.requirements import covers

pytestmark = pytest.mark.hermes


@covers("hermes-story", "hermes-live", "hermes-kept-out")
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


@covers("hermes-kept-out")
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


@covers("hermes-asks")
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


@covers("hermes-asks")
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


@covers("hermes-story")
def test_lists_and_disconnects(tmp_path: Path) -> None:
    with on_stage(tmp_path, "notes") as stage:
        stage.api.say(stage.anna, "/mcpauth")
        listed = stage.said("Connections")
        assert "notes: connected" in listed.text
        assert "later: not connected" in listed.text
        pressed = stage.api.press(stage.anna, listed, "Disconnect notes")
        sure = stage.said("Disconnect notes?")
        pressed.answered()
        stage.api.press(stage.anna, sure, "Yes, disconnect")
        stage.said("notes: disconnected")
        assert not stage.tokens()
        stage.api.say(stage.anna, "/mcpauth cancel")
        stage.api.wait(lambda: len(stage.shown("Connections")) == 1, SECONDS)
        assert stage.model.bodies == []


@covers("hermes-kept-out")
def test_in_a_group_and_a_topic_only_the_private_chat_sees_the_login(tmp_path: Path) -> None:
    with on_stage(tmp_path, privacy_mode=False) as stage:
        group = stage.api.group(-1001, "Team", [stage.anna, stage.ben])
        forum = stage.api.group(-1002, "Forum", [stage.anna, stage.ben], forum=True)
        topic = stage.api.topic(forum, "Work")
        for place, thread in ((group, None), (forum, topic)):
            stage.api.say(stage.anna, f"/mcpauth@{stage.api.bot.username} notes", place, thread)
            told = stage.said("I wrote to you privately", place)
            assert told.thread == thread
            held = stage.model.hold()
            stage.api.say(stage.anna, "Think about it.", place, thread)
            assert held.reached.wait(SECONDS)
            exposed = stage.approved()
            stage.api.say(stage.anna, exposed, place, thread)
            stage.said("Never here", place)
            held.release()
            stage.said("Understood.", place)
        stage.api.say(stage.anna, stage.approved())
        stage.said("notes: connected")
        stage.leaked_nowhere_but(group, forum)


@covers("hermes-story")
def test_the_gateway_is_restarted_between_prompt_and_paste(tmp_path: Path) -> None:
    with on_stage(tmp_path) as stage:
        address = stage.begin()
        stage.hermes.restart()
        stage.api.say(stage.anna, address)
        stage.said("notes: connected")
        stage.live()
        # The prompt that the first process wrote has become this.
        assert stage.shown("Connect notes") == []
        stage.nothing_leaked()


@covers("hermes-kept-out")
def test_messages_that_hermes_would_merge_are_told_apart(tmp_path: Path) -> None:
    with on_stage(tmp_path) as stage:
        address = stage.begin()
        stage.api.say(stage.anna, "Here it comes.")
        stage.api.say(stage.anna, address)
        stage.api.say(stage.anna, "That was it.")
        stage.said("notes: connected")
        stage.said("Understood.")
        stage.api.wait(lambda: stage.model.saw("That was it."), SECONDS)
        stage.nothing_leaked()


@covers("hermes-kept-out")
def test_a_message_that_becomes_a_paste_by_an_edit_is_taken(tmp_path: Path) -> None:
    with on_stage(tmp_path) as stage:
        written = stage.api.say(stage.anna, "One moment.")
        stage.said("Understood.")
        address = stage.begin()
        stage.api.edit(stage.anna, written, address)
        stage.said("notes: connected")
        assert written.id in {message.id for message in stage.api.deleted(stage.anna)}
        stage.nothing_leaked()


@covers("hermes-who")
def test_two_people_cannot_finish_each_others_logins(tmp_path: Path) -> None:
    with on_stage(tmp_path) as stage:
        hers, his = stage.begin(stage.anna), stage.begin(stage.ben, "later")
        stage.api.say(stage.ben, hers)
        stage.api.say(stage.anna, his)
        stage.api.wait(
            lambda: len(stage.api.deleted(stage.ben)) > 0 and stage.api.deleted(stage.anna), SECONDS
        )
        stage.said("That did not finish the login of notes", stage.anna)
        stage.said("That did not finish the login of later", stage.ben)
        assert not stage.tokens("notes")
        assert not stage.tokens("later")
        stage.api.say(stage.anna, hers)
        stage.said("notes: connected", stage.anna)
        stage.api.say(stage.ben, his)
        stage.said("later: connected", stage.ben)
        stage.nothing_leaked()


@covers("hermes-who")
def test_administrators_connect_and_others_are_told_so_by_hermes(tmp_path: Path) -> None:
    with on_stage(tmp_path, settings=admins(42)) as stage:
        stage.api.say(stage.ben, "/mcpauth notes")
        stage.said("admin-only", stage.ben)
        address = stage.begin()
        # Who he is asked for by the operator is asked again at the paste.
        stage.hermes.settings["platforms"]["telegram"]["extra"]["allow_admin_from"] = ["43"]
        stage.hermes.restart()
        stage.api.say(stage.anna, address)
        stage.said("only an administrator", stage.anna)
        stage.said("notes: not connected", stage.anna)
        assert not stage.tokens()
        stage.api.say(stage.ben, stage.begin(stage.ben))
        stage.said("notes: connected", stage.ben)
        stage.nothing_leaked()


@covers("hermes-who", "hermes-kept-out")
def test_who_may_no_longer_talk_finishes_nothing_and_hermes_hears_nothing(tmp_path: Path) -> None:
    with on_stage(tmp_path) as stage:
        address = stage.begin()
        stage.hermes.secrets["TELEGRAM_ALLOWED_USERS"] = "43"
        stage.hermes.restart()
        stage.api.say(stage.anna, address)
        stage.api.say(stage.ben, "Are you there?")
        stage.said("Understood.", stage.ben)
        assert not stage.tokens()
        login = next(iter(AuthService(tmp_path).waiting()))
        asyncio.run(AuthService(tmp_path).cancel(login.id))
        # What she wrote stands in her chat, and nowhere else.
        stage.leaked_nowhere_but(stage.api.private(stage.anna))


@covers("hermes-who")
def test_strangers_are_not_answered(tmp_path: Path) -> None:
    with on_stage(tmp_path, people=(43,)) as stage:
        stage.api.say(stage.anna, "/mcpauth notes")
        stage.ask("Are you there?", "Understood.", stage.ben)
        assert stage.shown("", stage.anna) == []


def test_a_code_for_another_device_ends_by_itself(tmp_path: Path) -> None:
    with on_stage(tmp_path, behaviour=Behaviour(with_device=True, device_interval_seconds=1)) as stage:
        stage.api.say(stage.anna, "/mcpauth connect notes")
        prompt = stage.said("Connect notes")
        code = stage.api.copied_from(prompt, "Copy the code")
        stage.secrets.add(code)
        approve_device(stage.api.url_of(prompt, "Open the page").partition("?")[0], code)
        stage.said("notes: connected")
        stage.live()
        stage.nothing_leaked()


def admins(*users: int) -> dict[str, Any]:
    extra = {"allow_admin_from": [str(user) for user in users]}
    return {"platforms": {"telegram": {"extra": extra}}}
