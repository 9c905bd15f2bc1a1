"""Messages of an anonymous group administrator, with a Hermes that admits all members of the group."""

from __future__ import annotations

import time

from tests.gateway_hooks.telegram.test_overheard import ANONYMOUS
from tests.hermes.stage import SECONDS, Stage
from tests.parts.bot_api import Chat

# The gateway must listen to this group from its start.
GROUP = -5001


def check_an_anonymous_administrator(stage: Stage, *, deletes: bool) -> None:
    """Let an anonymous administrator send a code, other text and a command.

    `deletes` says whether the message with the code is deleted.
    """
    group = stage.api.group(GROUP, "Team", [stage.anna])
    wrote(stage, group, "Good morning, all.", 500)
    stage.api.wait(lambda: stage.model.saw("Good morning, all."), SECONDS)
    stage.api.say(stage.anna, f"/mcpauth {stage.notes}")
    prompt = stage.said(f"Connect {stage.notes}")
    link = next((button.url for row in prompt.keyboard for button in row if button.url), None)
    url = link or next(word for word in prompt.text.split() if "code_challenge=" in word)
    address = stage.answer_of(url)
    wrote(stage, group, address, 501)
    wrote(stage, group, "Good evening, all.", 502)
    stage.api.wait(lambda: stage.model.saw("Good evening, all."), SECONDS)
    # An anonymous administrator cannot start a login either.
    wrote(stage, group, f"/mcpauth {stage.later}", 503)
    stage.said("Log in with", group)
    assert not stage.shown(f"Connect {stage.later}")
    tried = [call.parameters.get("message_id") for call in stage.api.calls_of("deleteMessage")]
    # In plain text the bot only warns: Hermes may have merged messages, so the plugin deletes none.
    assert not deletes or "501" in map(str, tried)
    stage.api.say(stage.anna, "/mcpauth cancel")
    stage.said(f"{stage.notes}: not connected")
    stage.leaked_nowhere_but(group, stage.api.private(stage.anna))


def wrote(stage: Stage, group: Chat, text: str, message: int) -> None:
    """Send a message in the name of the group, as an anonymous administrator does."""
    said = {"message_id": message, "date": int(time.time()), "chat": group.json(), "text": text}
    stage.api.world.push("message", {**said, "from": ANONYMOUS, "sender_chat": group.json()})
