"""What is typed to Hermes: our one command with its words, and pastes among lines that were merged. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gateway_hooks.dialog.intents import contains_authorization_response
from gateway_hooks.hermes.cached_files import cached_texts_with_codes
from gateway_hooks.hermes.internals import COMMAND

# What Hermes is told to do with what is ours.
SKIP = {"action": "skip", "reason": "a login"}
_COMMAND_PATTERN = re.compile(rf"(?is)\s*/{COMMAND}(?:@(\w+))?(?:\s+(.*))?")
# What follows the command, and what the conversation calls it.
_VERBS = {
    "": "connections",
    "list": "connections",
    "connections": "connections",
    "connect": "connect",
    "disconnect": "disconnect",
    "qr": "qr",
    "code": "code",
    "new": "new",
    "paste": "paste",
    "cancel": "cancel",
}
# Shorter than any code: what may go on to others of a message that held one.
_MAX_WORD_CHARS = 19


def skip_if_code(hermes_event: Any) -> dict[str, str] | None:  # noqa: ANN401  Hermes's own
    """Return what Hermes does with an event that could not be looked at: nothing, if it carries a code."""
    names = ("text", "reply_to_text", "channel_context")
    said = [str(getattr(hermes_event, name, None) or "") for name in names] + list(
        cached_texts_with_codes(hermes_event).values()
    )
    return SKIP if any(contains_authorization_response(each) for each in said) else None


def parse_command(text: str, bot_name: str = "") -> tuple[str, str] | None:
    """Read "/mcpauth ..." as the conversation's command and its text; None for what is not ours.

    `bot` is our name, for commands that name one. A word that is no verb names a server to connect.
    """
    found = _COMMAND_PATTERN.fullmatch(text)
    if found is None or (found[1] or bot_name).lower() != bot_name.lower():
        return None
    rest = (found[2] or "").strip()
    verb, _, argument = rest.partition(" ")
    command = _VERBS.get(verb.lower())
    return ("connect", rest) if command is None else (command, argument.strip())


def split_merged_message(text: str, is_ours: Callable[[str], bool]) -> tuple[list[str], str]:
    """Split a message that Hermes has merged of several: lines that are ours, and what may go on to others.

    Nothing goes on where a line beside ours could be part of a code.
    """
    lines = text.splitlines()
    ours = [line for line in lines if line.strip() and is_ours(line)]
    others = [line for line in lines if line not in ours]
    words = [word for line in others for word in line.split()]
    harmless = all(len(word) <= _MAX_WORD_CHARS for word in words)
    return ours, "\n".join(others).strip() if harmless else ""
