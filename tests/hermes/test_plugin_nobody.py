"""What is written in the name of a group, where Hermes listens to whole groups: nobody's, with a code."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from tests.gateway_hooks.telegram.test_overheard import ANONYMOUS
from tests.hermes.stage import SECONDS, Stage, on_stage
from tests.hermes.test_plugin_belt import in_plain_text
from tests.parts.bot_api import Chat
from tests.requirements import covers

pytestmark = pytest.mark.hermes


@covers("hermes-kept-out", "hermes-belt")
@pytest.mark.parametrize(
    "staged", [partial(on_stage, privacy_mode=False), in_plain_text], ids=["telegram", "plain text"]
)
def test_a_code_that_an_anonymous_administrator_writes_is_taken_and_the_rest_goes_on(
    tmp_path: Path, staged: Callable[[Path], AbstractContextManager[Stage]]
) -> None:
    with staged(tmp_path) as stage:
        group = stage.api.group(-1001, "Team", [stage.anna])
        stage.hermes.secrets["TELEGRAM_GROUP_ALLOWED_CHATS"] = str(group.id)
        stage.hermes.restart()
        wrote(stage, group, "Good morning, all.", 500)
        stage.api.wait(lambda: stage.model.saw("Good morning, all."), SECONDS)
        stage.api.say(stage.anna, "/mcpauth notes")
        prompt = stage.said("Connect notes")
        link = next((button.url for row in prompt.keyboard for button in row if button.url), None)
        url = link or next(word for word in prompt.text.split() if "code_challenge=" in word)
        address = stage.answer_of(url)
        wrote(stage, group, address, 501)
        wrote(stage, group, "Good evening, all.", 502)
        stage.api.wait(lambda: stage.model.saw("Good evening, all."), SECONDS)
        # Nobody begins a login, either.
        wrote(stage, group, "/mcpauth later", 503)
        stage.said("Log in with", group)
        assert not stage.shown("Connect later")
        tried = [call.parameters.get("message_id") for call in stage.api.calls_of("deleteMessage")]
        # In plain text it is said alone: of what Hermes may have merged, no message is ours to delete.
        assert staged is in_plain_text or "501" in map(str, tried)
        stage.api.say(stage.anna, "/mcpauth cancel")
        stage.said("notes: not connected")
        stage.leaked_nowhere_but(group, stage.api.private(stage.anna))


def wrote(stage: Stage, group: Chat, text: str, message: int) -> None:
    """Write in the name of the group, as its administrators can."""
    said = {"message_id": message, "date": int(time.time()), "chat": group.json(), "text": text}
    stage.api.world.push("message", {**said, "from": ANONYMOUS, "sender_chat": group.json()})
