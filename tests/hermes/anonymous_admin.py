"""Messages of an anonymous group administrator. Hermes is configured to admit all members of the group."""

from __future__ import annotations

import time

from tests.gateway_hooks.telegram.test_codes_without_user import ANONYMOUS_ADMIN
from tests.hermes.scenario import SECONDS, Scenario
from tests.parts.bot_api import Chat

# The gateway must listen to this group from its start.
GROUP = -5001


def check_anonymous_administrator(scenario: Scenario, *, deletes: bool) -> None:
    """Let an anonymous administrator send a code, other text and a command.

    `deletes` says whether the message with the code is deleted.
    """
    group = scenario.api.add_group(GROUP, "Team", [scenario.anna])
    send_as_group(scenario, group, "Good morning, all.", 500)
    scenario.api.wait(lambda: scenario.model.has_received("Good morning, all."), SECONDS)
    scenario.api.say(scenario.anna, f"/mcpauth {scenario.notes}")
    prompt = scenario.wait_for_message(f"Connect {scenario.notes}")
    link = next((button.url for row in prompt.keyboard for button in row if button.url), None)
    url = link or next(word for word in prompt.text.split() if "code_challenge=" in word)
    address = scenario.approve_url(url)
    send_as_group(scenario, group, address, 501)
    send_as_group(scenario, group, "Good evening, all.", 502)
    scenario.api.wait(lambda: scenario.model.has_received("Good evening, all."), SECONDS)
    # An anonymous administrator cannot start a login either.
    send_as_group(scenario, group, f"/mcpauth {scenario.later}", 503)
    scenario.wait_for_message("Log in with", group)
    assert not scenario.bot_messages(f"Connect {scenario.later}")
    attempted_ids = [call.parameters.get("message_id") for call in scenario.api.calls_of("deleteMessage")]
    # In plain text the bot only warns: Hermes may have merged messages, so the plugin deletes none.
    assert not deletes or "501" in map(str, attempted_ids)
    scenario.api.say(scenario.anna, "/mcpauth cancel")
    scenario.wait_for_message(f"{scenario.notes}: not connected")
    scenario.assert_no_leaks_outside(group, scenario.api.private_chat(scenario.anna))


def send_as_group(scenario: Scenario, group: Chat, text: str, message_id: int) -> None:
    """Send a message in the name of the group, as an anonymous administrator does."""
    message = {"message_id": message_id, "date": int(time.time()), "chat": group.json(), "text": text}
    scenario.api.state.push("message", {**message, "from": ANONYMOUS_ADMIN, "sender_chat": group.json()})
