"""Ask a question at a terminal, or read one line from a pipe. The terminal shows what the user types."""

from __future__ import annotations

import os
import sys

# A terminal cuts a line at 4096 bytes.
MAX_LINE_BYTES = 16_384

_QUOTES = frozenset({'""', "''", "``", "<>", "“”"})


def read_answer(question: str) -> str | None:
    """Show a question on standard error and return the next line of standard input, None at its end.

    Reads no byte after the line: what follows belongs to the next reader.
    """
    if sys.stdin is None:
        return None
    sys.stderr.write(question)
    sys.stderr.flush()
    line, byte = bytearray(), b""
    while byte != b"\n" and len(line) < MAX_LINE_BYTES:
        line += byte
        byte = os.read(0, 1)
        if not byte:
            break
    return line.decode("utf-8", "replace").strip() if line or byte else None


def remove_quotes(answer: str) -> str:
    """Return an address without the quotes and the comma that the user copied with it, as from JSON."""
    quoted = answer.removesuffix(",")
    if len(quoted) > 2 and quoted[0] + quoted[-1] in _QUOTES:
        return quoted[1:-1].strip()
    return answer
