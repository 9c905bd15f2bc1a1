"""A chat with Hermes whose agent asks for a login by itself: the picture of docs/hermes.md."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.hermes.stage import Stage, on_stage
from tests.parts.model import Call
from tests.requirements import covers

pytestmark = pytest.mark.hermes

GOLDEN = Path(__file__).parents[1] / "transcripts" / "hermes_telegram.txt"


def seen(stage: Stage) -> str:
    """Return Anna's chat, without what Hermes says of itself and what differs each time."""
    text = stage.api.transcript(stage.anna)
    text = re.sub(r"Anna:\n  /start\n\n", "", text)
    text = re.sub(r"Hermes:\n  📬 No home channel.*?(?=\n\n(?:Anna|Hermes):)\n\n", "", text, flags=re.DOTALL)
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:<port>", text)
    return re.sub(r"\b\d\d:\d\d\b", "<time>", text)


@covers("hermes-asks")
def test_the_agent_asks_and_goes_on(tmp_path: Path) -> None:
    with on_stage(tmp_path) as stage:
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
