"""Plain-text chats for unknown adapters: the hook, and the handler for messages during a turn."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hermes.anonymous_admin import GROUP, check_anonymous_administrator
from tests.hermes.scenario import (
    LAYOUTS_WITH_SOAK,
    PLUGIN,
    SECONDS,
    Scenario,
    SharedTelegramGateway,
    run_shared_gateway,
    write_plugin,
)
from tests.parts.fake_model import ToolCall
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-belt")]

BROKEN_ADAPTER_PLUGIN = """
import gateway_hooks.hermes.telegram

def fail_to_start(self):
    raise AttributeError("_app")

def register(ctx):
    gateway_hooks.hermes.telegram.HermesTelegramAdapter.start = fail_to_start
"""


@pytest.fixture(scope="module", params=LAYOUTS_WITH_SOAK)
def hermes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SharedTelegramGateway]:
    home = tmp_path_factory.mktemp("hermes")
    plugins: list[str | Path] = [PLUGIN, write_plugin(home / "mover", BROKEN_ADAPTER_PLUGIN)]
    with run_shared_gateway(home, plugins=plugins, open_groups=[GROUP], layout=request.param) as shared:
        yield shared


def start_login(scenario: Scenario) -> str:
    """Send the command, approve at the URL in the text of the prompt, and return the redirect URL."""
    scenario.api.say(scenario.anna, f"/mcpauth {scenario.notes}")
    prompt = scenario.wait_for_message(f"Connect {scenario.notes}")
    url = re.search(r"http://\S+code_challenge\S+", prompt.text)
    assert url is not None
    assert prompt.buttons == ()
    return scenario.approve_url(url[0])


@covers("hermes-belt")
def test_a_login_in_plain_text_works_and_deletes_the_paste(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        assert "logins there are in plain text" in scenario.hermes.output()
        paste = scenario.api.say(scenario.anna, start_login(scenario))
        scenario.wait_for_message(f"{scenario.notes}: connected")
        scenario.wait_for_tools()
        assert paste.id in {message.id for message in scenario.api.deleted_messages(scenario.anna)}
        scenario.model.queue_steps(ToolCall(f"mcp__{scenario.notes}__whoami"), "You are Ada there.")
        scenario.ask_agent("Who am I?", reply="You are Ada there.")
        scenario.api.say(scenario.anna, f"/mcpauth disconnect {scenario.notes}")
        scenario.wait_for_message(f"Disconnect {scenario.notes}?")
        scenario.api.say(scenario.anna, f"/mcpauth disconnect {scenario.notes} yes")
        scenario.wait_for_message(f"{scenario.notes}: disconnected")
        scenario.assert_no_leaks()


@covers("hermes-belt", "hermes-kept-out")
def test_a_paste_during_a_turn_is_claimed_by_the_busy_handler(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        hold = scenario.model.hold()
        scenario.api.say(scenario.anna, "Think about it.")
        assert hold.reached.wait(SECONDS)
        scenario.api.say(scenario.anna, start_login(scenario))
        scenario.wait_for_message(f"{scenario.notes}: connected")
        hold.release()
        scenario.wait_for_message("Understood.")
        scenario.assert_no_leaks()


@covers("hermes-belt", "hermes-kept-out")
def test_the_other_lines_of_a_merged_message_reach_the_model(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        address = start_login(scenario)
        scenario.api.say(scenario.anna, "Here it comes.")
        scenario.api.say(scenario.anna, address)
        scenario.wait_for_message(f"{scenario.notes}: connected")
        scenario.wait_for_message("please delete it yourself")
        scenario.api.wait(lambda: scenario.model.has_received("Here it comes."), SECONDS)
        scenario.assert_no_leaks_outside(scenario.api.private_chat(scenario.anna))


@covers("hermes-belt")
def test_a_command_in_a_group_is_answered_in_private(hermes: SharedTelegramGateway) -> None:
    with hermes.new_scenario() as scenario:
        group = scenario.add_group("Team", [scenario.anna])
        # In plain text no button opens the private chat: the user must write to the bot first.
        scenario.api.say(scenario.anna, f"/mcpauth {scenario.notes}", group)
        scenario.wait_for_message("I cannot write to you yet", group)
        scenario.ask_agent("Good morning.", "Understood.")
        scenario.api.say(scenario.anna, f"/mcpauth {scenario.notes}", group)
        scenario.wait_for_message("I wrote to you privately", group)
        scenario.wait_for_message(f"Connect {scenario.notes}")
        hold = scenario.model.hold()
        scenario.api.say(scenario.anna, "Think about it.", group)
        assert hold.reached.wait(SECONDS)
        url_match = re.search(
            r"http://\S+code_challenge\S+", scenario.wait_for_message(f"Connect {scenario.notes}").text
        )
        assert url_match is not None
        scenario.api.say(scenario.anna, scenario.approve_url(url_match[0]), group)
        scenario.wait_for_message("Do not post codes in a group", group)
        hold.release()
        scenario.wait_for_message("Understood.", group)
        scenario.api.say(scenario.anna, "/mcpauth cancel")
        scenario.wait_for_message(f"{scenario.notes}: not connected")
        scenario.assert_no_leaks_outside(group)


@covers("hermes-kept-out", "hermes-belt")
def test_a_code_of_an_anonymous_administrator_is_claimed_and_other_text_reaches_hermes(
    hermes: SharedTelegramGateway,
) -> None:
    with hermes.new_scenario() as scenario:
        check_anonymous_administrator(scenario, deletes=False)
