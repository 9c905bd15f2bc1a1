"""The plain-text fallback for unknown adapters: the hook and the busy handler."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hermes.anonymous import GROUP, check_an_anonymous_administrator
from tests.hermes.stage import PLUGIN, SECONDS, SharedStage, Stage, another_plugin, shared_stage
from tests.parts.model import Call
from tests.requirements import covers

pytestmark = [pytest.mark.hermes, pytest.mark.xdist_group("hermes-belt")]

MOVED = """
import gateway_hooks.hermes.telegram

def fail_to_start(self):
    raise AttributeError("_app")

def register(ctx):
    gateway_hooks.hermes.telegram.HermesTelegramAdapter.start = fail_to_start
"""


@pytest.fixture(scope="module")
def hermes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedStage]:
    home = tmp_path_factory.mktemp("hermes")
    plugins: list[str | Path] = [PLUGIN, another_plugin(home / "mover", MOVED)]
    with shared_stage(home, plugins=plugins, open_groups=[GROUP]) as shared:
        yield shared


def begin(stage: Stage) -> str:
    """Send the command, approve at the URL in the text of the prompt, and return the redirect URL."""
    stage.api.say(stage.anna, f"/mcpauth {stage.notes}")
    prompt = stage.said(f"Connect {stage.notes}")
    url = re.search(r"http://\S+code_challenge\S+", prompt.text)
    assert url is not None
    assert prompt.buttons == ()
    return stage.answer_of(url[0])


@covers("hermes-belt")
def test_a_login_in_plain_text_works_and_deletes_the_paste(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        assert "logins there are in plain text" in stage.hermes.output()
        paste = stage.api.say(stage.anna, begin(stage))
        stage.said(f"{stage.notes}: connected")
        stage.live()
        assert paste.id in {message.id for message in stage.api.deleted(stage.anna)}
        stage.model.will(Call(f"mcp__{stage.notes}__whoami"), "You are Ada there.")
        stage.ask("Who am I?", until="You are Ada there.")
        stage.api.say(stage.anna, f"/mcpauth disconnect {stage.notes}")
        stage.said(f"Disconnect {stage.notes}?")
        stage.api.say(stage.anna, f"/mcpauth disconnect {stage.notes} yes")
        stage.said(f"{stage.notes}: disconnected")
        stage.nothing_leaked()


@covers("hermes-belt", "hermes-kept-out")
def test_a_paste_during_a_turn_is_claimed_by_the_busy_handler(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        held = stage.model.hold()
        stage.api.say(stage.anna, "Think about it.")
        assert held.reached.wait(SECONDS)
        stage.api.say(stage.anna, begin(stage))
        stage.said(f"{stage.notes}: connected")
        held.release()
        stage.said("Understood.")
        stage.nothing_leaked()


@covers("hermes-belt", "hermes-kept-out")
def test_the_other_lines_of_a_merged_message_reach_the_model(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        address = begin(stage)
        stage.api.say(stage.anna, "Here it comes.")
        stage.api.say(stage.anna, address)
        stage.said(f"{stage.notes}: connected")
        stage.said("please delete it yourself")
        stage.api.wait(lambda: stage.model.saw("Here it comes."), SECONDS)
        stage.leaked_nowhere_but(stage.api.private(stage.anna))


@covers("hermes-belt")
def test_a_command_in_a_group_is_answered_in_private(hermes: SharedStage) -> None:
    with hermes.stage() as stage:
        group = stage.group("Team", [stage.anna])
        # In plain text no button opens the private chat: the user must write to the bot first.
        stage.api.say(stage.anna, f"/mcpauth {stage.notes}", group)
        stage.said("I cannot write to you yet", group)
        stage.ask("Good morning.", "Understood.")
        stage.api.say(stage.anna, f"/mcpauth {stage.notes}", group)
        stage.said("I wrote to you privately", group)
        stage.said(f"Connect {stage.notes}")
        held = stage.model.hold()
        stage.api.say(stage.anna, "Think about it.", group)
        assert held.reached.wait(SECONDS)
        found = re.search(r"http://\S+code_challenge\S+", stage.said(f"Connect {stage.notes}").text)
        assert found is not None
        stage.api.say(stage.anna, stage.answer_of(found[0]), group)
        stage.said("Do not post codes in a group", group)
        held.release()
        stage.said("Understood.", group)
        stage.api.say(stage.anna, "/mcpauth cancel")
        stage.said(f"{stage.notes}: not connected")
        stage.leaked_nowhere_but(group)


@covers("hermes-kept-out", "hermes-belt")
def test_a_code_of_an_anonymous_administrator_is_claimed_and_other_text_reaches_hermes(
    hermes: SharedStage,
) -> None:
    with hermes.stage() as stage:
        check_an_anonymous_administrator(stage, deletes=False)
