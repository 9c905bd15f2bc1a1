"""The chat command in Hermes, and messages that Hermes has merged from several."""

from __future__ import annotations

import pytest

from gateway_hooks.hermes.commands import parse_command, split_merged_message
from tests.requirements import covers

ADDRESS = "http://127.0.0.1:1/callback?code=abc&state=def"


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
        (f"/mcpauth {ADDRESS}", ("connect", ADDRESS)),
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
    ("text", "ours", "rest"),
    [
        (f"hello\n{ADDRESS}", [ADDRESS], "hello"),
        (f"{ADDRESS}\n\nand thanks", [ADDRESS], "and thanks"),
        ("hello\nyou", [], "hello\nyou"),
        # Hermes must not see text that may be the rest of a code.
        (f"{ADDRESS}\n4f6a8b0c2d4e6f8a0b2c4d6e8f", [ADDRESS], ""),
        (f"{ADDRESS}\n{ADDRESS}", [ADDRESS, ADDRESS], ""),
    ],
)
def test_a_merged_message_is_split(text: str, ours: list[str], rest: str) -> None:
    assert split_merged_message(text, lambda line: line.startswith("http")) == (ours, rest)
