"""Parse the chat command /mcpauth, and split messages that Hermes has merged. Reads only cached files."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gateway_hooks.dialog.intents import COMMANDS_BY_VERB, contains_authorization_response
from gateway_hooks.hermes.cached_files import cached_texts_with_codes
from gateway_hooks.hermes.internals import COMMAND, event_texts

# The hook action for an event that this plugin claims.
SKIP = {"action": "skip", "reason": "a login"}
_COMMAND_PATTERN = re.compile(rf"(?is)\s*/{COMMAND}(?:@(\w+))?(?:\s+(.*))?")
# The word after the command, and the dispatcher's command for it.
_VERBS = {
    "": "connections",
    "list": "connections",
    "help": "help",
    **{command: command for command in ("connections", "connect", "disconnect", *COMMANDS_BY_VERB.values())},
}
# A word of at most this length is shorter than any code, so Hermes may see it.
_MAX_WORD_CHARS = 19


def skip_if_code(hermes_event: Any) -> dict[str, str] | None:  # noqa: ANN401  Hermes's own
    """Return the hook action for an event that could not be read: SKIP if it contains a code, else None."""
    texts = (*event_texts(hermes_event), *cached_texts_with_codes(hermes_event).values())
    return SKIP if any(contains_authorization_response(text) for text in texts) else None


def parse_command(text: str, bot_name: str = "") -> tuple[str, str] | None:
    """Parse "/mcpauth ..." into a dispatcher's command and its argument; None for any other text.

    If a command names a bot ("/mcpauth@bot"), that name must be `bot_name`. If the word after the command is
    not a verb, it is the name of a server to connect.
    """
    match = _COMMAND_PATTERN.fullmatch(text)
    if match is None or (match[1] or bot_name).lower() != bot_name.lower():
        return None
    rest = (match[2] or "").strip()
    verb, _, argument = rest.partition(" ")
    command = _VERBS.get(verb.lower())
    return ("connect", rest) if command is None else (command, argument.strip())


def split_merged_message(text: str, is_ours: Callable[[str], bool]) -> tuple[list[str], str]:
    """Return our lines of a message that Hermes has merged from several, and the text that Hermes may see.

    If one of the other lines could be a part of a code, the text for Hermes is empty.
    """
    lines = text.splitlines()
    ours = [line for line in lines if line.strip() and is_ours(line)]
    others = [line for line in lines if line not in ours]
    words = [word for line in others for word in line.split()]
    is_harmless = all(len(word) <= _MAX_WORD_CHARS for word in words)
    return ours, "\n".join(others).strip() if is_harmless else ""
