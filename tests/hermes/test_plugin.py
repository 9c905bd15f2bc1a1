"""The plugin in Hermes's gateway on Telegram: from the command to tools that the agent calls."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from gateway_hooks.dialog.messages import ENGLISH
from tests.consent_form import approve_device
from tests.hermes.anonymous_admin import GROUP, check_anonymous_administrator
from tests.hermes.scenario import (
    LAYOUTS,
    SECONDS,
    SHORT_CALL_SECONDS,
    Scenario,
    SharedTelegramGateway,
    add_started_user,
    run_shared_gateway,
)
from tests.parts.authorization_server import Behaviour
from tests.parts.fake_model import ToolCall
from tests.requirements import covers
from tests.transcript_files import compare_transcript, replace_times

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-plugin")]


@pytest.fixture(scope="module", params=LAYOUTS)
def hermes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedTelegramGateway]:
    """Run the real Hermes 0.19, then the stand-in for Hermes 0.21."""
    home = tmp_path_factory.mktemp("hermes")
    with run_shared_gateway(home, open_groups=[GROUP], layout=request.param) as shared:
        yield shared


@covers("hermes-story", "hermes-live", "hermes-kept-out")
def test_a_server_is_connected_from_the_chat_and_its_tools_are_live_at_once(
    hermes: SharedTelegramGateway,
) -> None:
    with hermes.new_scenario() as scenario:
        address = scenario.start_login()
        paste = scenario.api.say(scenario.anna, address)
        scenario.wait_for_message(f"{scenario.notes}: connected")
        assert paste.id in {message.id for message in scenario.api.deleted_messages(scenario.anna)}
        scenario.wait_for_tools()
        scenario.model.queue_steps(ToolCall(f"mcp__{scenario.notes}__whoami"), "You are Ada there.")
        scenario.ask_agent("Who am I?", reply="You are Ada there.")
        assert "ada@example.com" in scenario.model.tool_results()[-1]
        scenario.assert_no_leaks()


@covers("hermes-kept-out")
def test_a_paste_during_a_turn_is_claimed(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        hold = scenario.model.hold()
        scenario.api.say(scenario.anna, "Think about it.")
        assert hold.reached.wait(SECONDS)
        address = scenario.start_login()
        scenario.api.say(scenario.anna, address)
        scenario.wait_for_message(f"{scenario.notes}: connected")
        hold.release()
        scenario.wait_for_message("Understood.")
        scenario.assert_no_leaks()


@covers("hermes-asks", "hermes-waits", "hermes-layouts")
def test_a_call_of_an_ended_session_waits_for_the_login_and_is_repeated(
    hermes: SharedTelegramGateway,
) -> None:
    with hermes.new_scenario("notes", call_seconds=SHORT_CALL_SECONDS) as scenario:
        scenario.ask_agent("What can you do?", reply="Understood.")
        scenario.demo.authorization_server.ledger.revoke_everything()
        whoami = ToolCall(f"mcp__{scenario.notes}__whoami")
        if hermes.shared.hermes.layout == "0.19":
            scenario.model.queue_steps(whoami, "You are Ada again.")
        else:
            # In 0.21, a hook has only 30 seconds, so it tells the model to call the tool that waits.
            connect = ToolCall("connect_mcp_server", {"server": scenario.notes})
            scenario.model.queue_steps(whoami, connect, whoami, "You are Ada again.")
        scenario.api.say(scenario.anna, "Who am I?")
        scenario.wait_for_message(f"Connect {scenario.notes}")
        # The call waits for the login, and is repeated: Anna does not ask again.
        scenario.api.say(scenario.anna, scenario.approve_prompt())
        scenario.wait_for_message(f"{scenario.notes}: connected")
        scenario.wait_for_message("You are Ada again.")
        assert len(scenario.bot_messages(f"Connect {scenario.notes}")) == 0
        assert "ada@example.com" in scenario.model.tool_results()[-1]
        scenario.assert_no_leaks()


@covers("hermes-asks", "hermes-waits", "hermes-layouts")
def test_the_model_can_ask_for_a_server_that_has_no_tools_yet(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        scenario.model.queue_steps(
            ToolCall("connect_mcp_server", {"server": scenario.later}),
            ToolCall(f"mcp__{scenario.later}__whoami"),
            "You are Ada there.",
        )
        scenario.api.say(scenario.anna, "Look at the later list.")
        scenario.wait_for_message(f"Connect {scenario.later}")
        scenario.api.say(scenario.anna, scenario.approve_prompt(server=scenario.later))
        scenario.wait_for_message(f"{scenario.later}: connected")
        # The tools became available during the turn.
        scenario.wait_for_message("You are Ada there.")
        asked, called = scenario.model.tool_results()[-2:]
        assert "Call its tools now." in asked
        assert "ada@example.com" in called
        scenario.assert_no_leaks()


@covers("hermes-story")
def test_connections_are_listed_and_disconnected(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario("notes") as scenario:
        scenario.api.say(scenario.anna, "/mcpauth")
        connections = scenario.wait_for_message("Connections")
        assert f"{scenario.notes}: connected" in connections.text
        assert f"{scenario.later}: not connected" in connections.text
        pressed = scenario.api.press(scenario.anna, connections, f"Disconnect {scenario.notes}")
        confirmation = scenario.wait_for_message(f"Disconnect {scenario.notes}?")
        pressed.wait_for_answer()
        scenario.api.press(scenario.anna, confirmation, "Yes, disconnect")
        scenario.wait_for_message(f"{scenario.notes}: disconnected")
        assert not scenario.has_tokens()
        scenario.api.say(scenario.anna, "/mcpauth cancel")
        scenario.api.wait(lambda: len(scenario.bot_messages("Connections")) == 1, SECONDS)
        assert scenario.model.bodies == []


@covers("hermes-kept-out")
def test_in_a_group_and_a_topic_only_the_private_chat_sees_the_login(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        group = scenario.add_group("Team", [scenario.anna, scenario.ben])
        forum = scenario.add_group("Forum", [scenario.anna, scenario.ben], forum=True)
        topic = scenario.api.add_topic(forum, "Work")
        for chat, thread in ((group, None), (forum, topic)):
            scenario.api.say(
                scenario.anna, f"/mcpauth@{scenario.api.bot.username} {scenario.notes}", chat, thread
            )
            notice = scenario.wait_for_message("I wrote to you privately", chat)
            assert notice.thread == thread
            hold = scenario.model.hold()
            scenario.api.say(scenario.anna, "Think about it.", chat, thread)
            assert hold.reached.wait(SECONDS)
            address = scenario.approve_prompt()
            scenario.api.say(scenario.anna, address, chat, thread)
            scenario.wait_for_message("Do not post codes in a group", chat)
            hold.release()
            scenario.wait_for_message("Understood.", chat)
        scenario.api.say(scenario.anna, scenario.approve_prompt())
        scenario.wait_for_message(f"{scenario.notes}: connected")
        scenario.assert_no_leaks_outside(group, forum)


@covers("hermes-kept-out")
def test_messages_that_hermes_would_merge_are_read_one_by_one(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        address = scenario.start_login()
        scenario.api.say(scenario.anna, "Here it comes.")
        scenario.api.say(scenario.anna, address)
        scenario.api.say(scenario.anna, "That was it.")
        scenario.wait_for_message(f"{scenario.notes}: connected")
        scenario.wait_for_message("Understood.")
        scenario.api.wait(lambda: scenario.model.has_received("That was it."), SECONDS)
        scenario.assert_no_leaks()


@covers("hermes-kept-out")
def test_a_message_that_an_edit_turns_into_a_paste_is_claimed(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        message_to_edit = scenario.api.say(scenario.anna, "One moment.")
        scenario.wait_for_message("Understood.")
        address = scenario.start_login()
        scenario.api.edit(scenario.anna, message_to_edit, address)
        scenario.wait_for_message(f"{scenario.notes}: connected")
        assert message_to_edit.id in {message.id for message in scenario.api.deleted_messages(scenario.anna)}
        scenario.assert_no_leaks()


@covers("hermes-who")
def test_two_users_cannot_finish_each_others_logins(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        hers, his = scenario.start_login(scenario.anna), scenario.start_login(scenario.ben, scenario.later)
        scenario.api.say(scenario.ben, hers)
        scenario.api.say(scenario.anna, his)
        scenario.api.wait(
            lambda: (
                len(scenario.api.deleted_messages(scenario.ben)) > 0
                and scenario.api.deleted_messages(scenario.anna)
            ),
            SECONDS,
        )
        scenario.wait_for_message(ENGLISH.answer_refused_title.format(server=scenario.notes), scenario.anna)
        scenario.wait_for_message(ENGLISH.answer_refused_title.format(server=scenario.later), scenario.ben)
        assert not scenario.has_tokens()
        assert not scenario.has_tokens(scenario.later)
        scenario.api.say(scenario.anna, hers)
        scenario.wait_for_message(f"{scenario.notes}: connected", scenario.anna)
        scenario.api.say(scenario.ben, his)
        scenario.wait_for_message(f"{scenario.later}: connected", scenario.ben)
        scenario.assert_no_leaks()


@covers("hermes-who")
def test_users_that_hermes_does_not_admit_get_no_reply(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        eve = add_started_user(scenario.api, 1000, "Eve")
        scenario.api.say(eve, f"/mcpauth {scenario.notes}")
        scenario.ask_agent("Are you there?", "Understood.", scenario.ben)
        assert scenario.bot_messages("", eve) == []


def test_device_login_finishes_without_a_paste(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario(behaviour=Behaviour(with_device=True, device_interval_seconds=1)) as scenario:
        scenario.api.say(scenario.anna, f"/mcpauth connect {scenario.notes}")
        prompt = scenario.wait_for_message(f"Connect {scenario.notes}")
        code = scenario.api.copied_text(prompt, "Copy the code")
        scenario.codes.add(code)
        approve_device(scenario.api.button_url(prompt, "Open the page").partition("?")[0], code)
        scenario.wait_for_message(f"{scenario.notes}: connected")
        scenario.wait_for_tools()
        scenario.assert_no_leaks()


@covers("hermes-kept-out")
def test_a_code_of_an_anonymous_administrator_is_claimed_and_other_text_reaches_hermes(
    hermes: SharedTelegramGateway,
) -> None:
    with hermes.new_scenario() as scenario:
        check_anonymous_administrator(scenario, deletes=True)


@covers("hermes-asks")
def test_agent_login_matches_the_transcript_in_the_docs(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario(names=("notes", "later")) as scenario:
        scenario.model.queue_steps(
            ToolCall("connect_mcp_server", {"server": "notes"}),
            ToolCall("mcp__notes__whoami"),
            "You are Ada there.",
        )
        scenario.api.say(scenario.anna, "Who am I in my notes?")
        scenario.wait_for_message("Connect notes")
        parts = [normalized_transcript(scenario)]
        scenario.api.say(scenario.anna, scenario.approve_prompt())
        scenario.wait_for_message("notes: connected")
        scenario.wait_for_message("You are Ada there.")
        parts.append(normalized_transcript(scenario))
    compare_transcript("hermes_telegram", "\n--------\n\n".join(f"{part.rstrip()}\n" for part in parts))


def normalized_transcript(scenario: Scenario) -> str:
    """Return Anna's chat without Hermes's own notices, and with placeholders for values of each run."""
    text = scenario.api.transcript(scenario.anna)
    text = re.sub(r"Anna:\n  /start\n\n", "", text)
    text = re.sub(r"Hermes:\n  📬 No home channel.*?(?=\n\n(?:Anna|Hermes):)\n\n", "", text, flags=re.DOTALL)
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>", text)
    return replace_times(text)
