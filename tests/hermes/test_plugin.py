"""The plugin in the real Hermes gateway on Telegram: from the command to tools that the agent calls."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browserless import approve_device
from tests.hermes.anonymous import GROUP, check_an_anonymous_administrator
from tests.hermes.stage import SECONDS, SHORT_CALL_SECONDS, SharedStage, Stage, acquainted, shared_stage
from tests.parts.authorization_server import Behaviour
from tests.parts.model import Call
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-plugin")]

GOLDEN = Path(__file__).parents[1] / "transcripts" / "hermes_telegram.txt"


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStage]:
    with shared_stage(tmp_path_factory.mktemp("hermes"), open_groups=[GROUP]) as shared:
        yield shared


@covers("hermes-story", "hermes-live", "hermes-kept-out")
def test_a_server_is_connected_from_the_chat_and_its_tools_are_live_at_once(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        address = stage.begin()
        paste = stage.api.say(stage.anna, address)
        stage.said(f"{stage.notes}: connected")
        assert paste.id in {message.id for message in stage.api.deleted(stage.anna)}
        stage.live()
        stage.model.will(Call(f"mcp__{stage.notes}__whoami"), "You are Ada there.")
        stage.ask("Who am I?", until="You are Ada there.")
        assert "ada@example.com" in stage.model.tool_results()[-1]
        stage.nothing_leaked()


@covers("hermes-kept-out")
def test_a_paste_during_a_turn_is_claimed(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        held = stage.model.hold()
        stage.api.say(stage.anna, "Think about it.")
        assert held.reached.wait(SECONDS)
        address = stage.begin()
        stage.api.say(stage.anna, address)
        stage.said(f"{stage.notes}: connected")
        held.release()
        stage.said("Understood.")
        stage.nothing_leaked()


@covers("hermes-asks")
def test_a_call_of_an_ended_session_prompts_once_in_private_and_tells_the_model(hermes: SharedStage) -> None:
    with hermes.stage("notes", call_seconds=SHORT_CALL_SECONDS) as stage:
        stage.ask("What can you do?", until="Understood.")
        stage.demo.authorization_server.ledger.revoke_everything()
        stage.model.will(Call(f"mcp__{stage.notes}__whoami"), "Please log in.")
        stage.ask("Who am I?", until="Please log in.")
        assert "has just been asked" in stage.model.tool_results()[-1]
        stage.said(f"Connect {stage.notes}")
        stage.api.say(stage.anna, stage.approved())
        stage.said(f"{stage.notes}: connected")
        stage.live()
        stage.model.will(Call(f"mcp__{stage.notes}__whoami"), "You are Ada again.")
        stage.ask("And now?", until="You are Ada again.")
        assert "ada@example.com" in stage.model.tool_results()[-1]
        stage.nothing_leaked()


@covers("hermes-asks")
def test_the_model_can_ask_for_a_server_that_has_no_tools_yet(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        stage.model.will(Call("connect_mcp_server", {"server": stage.later}), "I have asked you.")
        stage.ask("Look at the later list.", until="I have asked you.")
        assert "has just been asked" in stage.model.tool_results()[-1]
        stage.api.say(stage.anna, stage.approved(server=stage.later))
        stage.said(f"{stage.later}: connected")
        stage.live(stage.later)
        stage.model.will(Call(f"mcp__{stage.later}__whoami"), "Done.")
        stage.ask("Now?", until="Done.")
        assert "ada@example.com" in stage.model.tool_results()[-1]
        stage.nothing_leaked()


@covers("hermes-story")
def test_connections_are_listed_and_disconnected(hermes: SharedStage) -> None:
    with hermes.stage("notes") as stage:
        stage.api.say(stage.anna, "/mcpauth")
        listed = stage.said("Connections")
        assert f"{stage.notes}: connected" in listed.text
        assert f"{stage.later}: not connected" in listed.text
        pressed = stage.api.press(stage.anna, listed, f"Disconnect {stage.notes}")
        sure = stage.said(f"Disconnect {stage.notes}?")
        pressed.answered()
        stage.api.press(stage.anna, sure, "Yes, disconnect")
        stage.said(f"{stage.notes}: disconnected")
        assert not stage.tokens()
        stage.api.say(stage.anna, "/mcpauth cancel")
        stage.api.wait(lambda: len(stage.shown("Connections")) == 1, SECONDS)
        assert stage.model.bodies == []


@covers("hermes-kept-out")
def test_in_a_group_and_a_topic_only_the_private_chat_sees_the_login(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        group = stage.group("Team", [stage.anna, stage.ben])
        forum = stage.group("Forum", [stage.anna, stage.ben], forum=True)
        topic = stage.api.topic(forum, "Work")
        for place, thread in ((group, None), (forum, topic)):
            stage.api.say(stage.anna, f"/mcpauth@{stage.api.bot.username} {stage.notes}", place, thread)
            told = stage.said("I wrote to you privately", place)
            assert told.thread == thread
            held = stage.model.hold()
            stage.api.say(stage.anna, "Think about it.", place, thread)
            assert held.reached.wait(SECONDS)
            exposed = stage.approved()
            stage.api.say(stage.anna, exposed, place, thread)
            stage.said("Do not post codes in a group", place)
            held.release()
            stage.said("Understood.", place)
        stage.api.say(stage.anna, stage.approved())
        stage.said(f"{stage.notes}: connected")
        stage.leaked_nowhere_but(group, forum)


@covers("hermes-kept-out")
def test_messages_that_hermes_would_merge_are_read_one_by_one(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        address = stage.begin()
        stage.api.say(stage.anna, "Here it comes.")
        stage.api.say(stage.anna, address)
        stage.api.say(stage.anna, "That was it.")
        stage.said(f"{stage.notes}: connected")
        stage.said("Understood.")
        stage.api.wait(lambda: stage.model.saw("That was it."), SECONDS)
        stage.nothing_leaked()


@covers("hermes-kept-out")
def test_a_message_that_an_edit_turns_into_a_paste_is_claimed(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        written = stage.api.say(stage.anna, "One moment.")
        stage.said("Understood.")
        address = stage.begin()
        stage.api.edit(stage.anna, written, address)
        stage.said(f"{stage.notes}: connected")
        assert written.id in {message.id for message in stage.api.deleted(stage.anna)}
        stage.nothing_leaked()


@covers("hermes-who")
def test_two_people_cannot_finish_each_others_logins(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        hers, his = stage.begin(stage.anna), stage.begin(stage.ben, stage.later)
        stage.api.say(stage.ben, hers)
        stage.api.say(stage.anna, his)
        stage.api.wait(
            lambda: len(stage.api.deleted(stage.ben)) > 0 and stage.api.deleted(stage.anna), SECONDS
        )
        stage.said(f"That did not finish the login of {stage.notes}", stage.anna)
        stage.said(f"That did not finish the login of {stage.later}", stage.ben)
        assert not stage.tokens()
        assert not stage.tokens(stage.later)
        stage.api.say(stage.anna, hers)
        stage.said(f"{stage.notes}: connected", stage.anna)
        stage.api.say(stage.ben, his)
        stage.said(f"{stage.later}: connected", stage.ben)
        stage.nothing_leaked()


@covers("hermes-who")
def test_users_whom_hermes_does_not_admit_get_no_reply(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        eve = acquainted(stage.api, 1000, "Eve")
        stage.api.say(eve, f"/mcpauth {stage.notes}")
        stage.ask("Are you there?", "Understood.", stage.ben)
        assert stage.shown("", eve) == []


def test_a_code_for_another_device_ends_by_itself(hermes: SharedStage) -> None:
    with hermes.stage(behaviour=Behaviour(with_device=True, device_interval_seconds=1)) as stage:
        stage.api.say(stage.anna, f"/mcpauth connect {stage.notes}")
        prompt = stage.said(f"Connect {stage.notes}")
        code = stage.api.copied_from(prompt, "Copy the code")
        stage.secrets.add(code)
        approve_device(stage.api.url_of(prompt, "Open the page").partition("?")[0], code)
        stage.said(f"{stage.notes}: connected")
        stage.live()
        stage.nothing_leaked()


@covers("hermes-kept-out")
def test_a_code_of_an_anonymous_administrator_is_claimed_and_other_text_reaches_hermes(
    hermes: SharedStage,
) -> None:
    with hermes.stage() as stage:
        check_an_anonymous_administrator(stage, deletes=True)


@covers("hermes-asks")
def test_the_agent_prompts_and_continues_as_in_the_picture_of_the_docs(hermes: SharedStage) -> None:
    with hermes.stage(names=("notes", "later")) as stage:
        asks = Call("connect_mcp_server", {"server": "notes"})
        stage.model.will(asks, "I need you to log in to notes first: I have sent you the page.")
        stage.ask("Who am I in my notes?", until="I have sent you the page.")
        parts = [seen(stage)]
        stage.api.say(stage.anna, stage.approved())
        stage.said("notes: connected")
        stage.live()
        stage.model.will(Call("mcp__notes__whoami"), "You are Ada there.")
        stage.ask("And now?", until="You are Ada there.")
        parts.append(seen(stage))
    text = "\n--------\n\n".join(f"{part.rstrip()}\n" for part in parts)
    if os.environ.get("NEW_TRANSCRIPTS"):
        GOLDEN.write_text(text, "utf-8")
    assert text == GOLDEN.read_text("utf-8")


def seen(stage: Stage) -> str:
    """Return Anna's chat without Hermes's own notices and without values that differ in each run."""
    text = stage.api.transcript(stage.anna)
    text = re.sub(r"Anna:\n  /start\n\n", "", text)
    text = re.sub(r"Hermes:\n  📬 No home channel.*?(?=\n\n(?:Anna|Hermes):)\n\n", "", text, flags=re.DOTALL)
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>", text)
    return re.sub(r"\b\d\d:\d\d\b", "<time>", text)
