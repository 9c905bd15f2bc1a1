"""What a terminal can show: its size, colours, escape sequences."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TextIO

from hermes_mcp_auth_remote.terminal.text import CHECK_MARK, CROSS_MARK

BOLD, RESET = "\x1b[1m", "\x1b[m"
_MARK_COLOURS = {CHECK_MARK: "\x1b[32m", CROSS_MARK: "\x1b[31m"}


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Return the columns and rows of a stream's terminal, zeros if the stream is not a terminal."""
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (AttributeError, OSError, ValueError):  # AttributeError: a closed standard stream is None
        return 0, 0
    return columns, rows


def obeys_escapes(environ: Mapping[str, str]) -> bool:
    """True if a terminal obeys escape sequences; a dumb one prints them."""
    return environ.get("TERM") != "dumb"


def uses_colour(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """True if a stream is a terminal with colours, and NO_COLOR (https://no-color.org) is not set."""
    return terminal_size(stream)[0] > 0 and obeys_escapes(environ) and not environ.get("NO_COLOR")


def colour_mark(text: str) -> str:
    """Colour the mark at the start of a text: green for success, red for failure."""
    colour = _MARK_COLOURS.get(text[:1])
    return f"{colour}{text[0]}{RESET}{text[1:]}" if colour else text
