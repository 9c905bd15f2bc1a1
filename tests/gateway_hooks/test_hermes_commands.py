"""The chat command in Hermes, and messages that Hermes has merged from several."""

from __future__ import annotations

import pytest

from gateway_hooks.hermes.commands import parse_command, split_merged_message
from tests.requirements import covers

ANSWER_URL = "http://127.0.0.1:1/callback?code=abc&state=def"


@covers("hermes-story")
@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/mcpauth", ("connections", "")),
        ("/mcpauth list", ("connections", "")),
        ("/MCPAUTH  LIST ", ("connections", "")),
        ("/mcpauth notes", ("connect", "notes")),
        ("/mcpauth my notes", ("connect", "my notes")),
        ("/mcpauth connect", ("connect", "")),
        ("/mcpauth connect list", ("connect", "list")),
        ("/mcpauth disconnect notes yes", ("disconnect", "notes yes")),
        ("/mcpauth@bot notes", ("connect", "notes")),
        ("/mcpauth@Bot\ncancel", ("cancel", "")),
        (f"/mcpauth {ANSWER_URL}", ("connect", ANSWER_URL)),
        ("/mcpauth@other notes", None),
        ("/mcpauthnotes", None),
        ("/mcp notes", None),
        ("type /mcpauth notes", None),
        ("", None),
    ],
)
def test_the_command_is_parsed(text: str, command: tuple[str, str] | None) -> None:
    assert parse_command(text, "bot") == command


@covers("hermes-belt")
@pytest.mark.parametrize(
    ("text", "answers", "rest"),
    [
        (f"hello\n{ANSWER_URL}", [ANSWER_URL], "hello"),
        (f"{ANSWER_URL}\n\nand thanks", [ANSWER_URL], "and thanks"),
        ("hello\nyou", [], "hello\nyou"),
        # Hermes must not see text that may be the rest of a code.
        (f"{ANSWER_URL}\n4f6a8b0c2d4e6f8a0b2c4d6e8f", [ANSWER_URL], ""),
        (f"{ANSWER_URL}\n{ANSWER_URL}", [ANSWER_URL, ANSWER_URL], ""),
    ],
)
def test_a_merged_message_is_split(text: str, answers: list[str], rest: str) -> None:
    assert split_merged_message(text, lambda line: line.startswith("http")) == (answers, rest)
