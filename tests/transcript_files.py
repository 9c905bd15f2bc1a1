"""Compare what a user sees with a stored transcript: placeholders stand for the values of one run."""

from __future__ import annotations

import os
import re
from pathlib import Path

TRANSCRIPTS = Path(__file__).parent / "transcripts"


def compare_transcript(name: str, text: str) -> None:
    """Compare a text with the transcript `name`. `NEW_TRANSCRIPTS=1` rewrites the file."""
    file, text = TRANSCRIPTS / f"{name}.txt", text.rstrip("\n") + "\n"
    if os.environ.get("NEW_TRANSCRIPTS"):
        file.write_text(text, "utf-8")
    assert text == file.read_text("utf-8")


def replace_times(text: str) -> str:
    """Replace each time of day by <time>, with its date: shortly before midnight, later times have one."""
    return re.sub(r"\b(?:\d{4}-\d\d-\d\d )?\d\d:\d\d\b", "<time>", text)
