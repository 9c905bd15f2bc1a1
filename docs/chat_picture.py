"""Draws telegram.svg and discord.svg from the chats that the tests keep. Run: python docs/chat_picture.py."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
TRANSCRIPTS = HERE.parent / "tests" / "transcripts"
# The picture's name, the transcript that it draws, and what it is called for those who cannot see it.
PICTURES = {
    "telegram.svg": ("telegram_login.txt", "A login in a Telegram chat, from the command to the connection."),
    "discord.svg": ("discord_login.txt", "A login in a Discord channel, seen by nobody but the person."),
}
WRAP, CHAR, LINE, PAD, GAP, WIDTH = 56, 7.3, 18, 10, 12, 520


class Bubble(NamedTuple):
    """One message: who wrote it, its lines, and rows of buttons."""

    who: str
    lines: list[str]
    buttons: list[list[str]]


def bubbles(transcript: str) -> Iterator[Bubble]:
    """Read a chat's text back into messages: a name at the margin begins one, what follows is indented."""
    who, lines = "", list[str]()
    for line in [*transcript.splitlines(), "end"]:
        if line.startswith(("  ", "║", "╔", "╚")) or not line:
            lines.append(line.removeprefix("  "))
            continue
        if who and any(lines):
            yield _bubble(who, lines)
        who, lines = line.rstrip(":"), []


def _bubble(who: str, lines: list[str]) -> Bubble:
    text = [line for line in lines if not _labels(line)]
    while text and not text[-1]:
        text.pop()
    return Bubble(who, text, [labels for line in lines if (labels := _labels(line))])


def _labels(line: str) -> list[str]:
    return re.findall(r"\[([^\]]+)\]", line) if re.fullmatch(r"(?:\[[^\]]+\] ?)+", line) else []


def draw(transcript: str, title: str) -> str:
    """Draw a chat as SVG: what the person wrote at the right, what the bot wrote at the left."""
    y, parts = float(GAP), list[str]()
    for bubble in bubbles(transcript):
        if bubble.who.startswith("──"):
            continue
        is_bot = "bot" in bubble.who.lower() or "APP" in bubble.who
        lines = [bubble.who, *_wrapped(bubble.lines)]
        height = len(lines) * LINE + 2 * PAD
        width = max(len(line) for line in lines) * CHAR + 2 * PAD
        x = GAP if is_bot else WIDTH - GAP - width
        fill = "#ffffff" if is_bot else "#dcf3d0"
        box = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        parts.append(f'<rect {box} rx="10" fill="{fill}"/>')
        for number, line in enumerate(lines):
            kind = ' class="who"' if number == 0 else ""
            at = y + PAD + (number + 0.8) * LINE
            parts.append(f'<text x="{x + PAD:g}" y="{at:g}" xml:space="preserve"{kind}>{escape(line)}</text>')
        y += height + 4
        for row in bubble.buttons:
            parts.extend(_buttons(row, y, max(width, 300.0)))
            y += LINE + 16
        y += GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:g}" role="img">'
        f"<title>{escape(title)}</title>"
        "<style>text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1c2733}"
        ".who{font-weight:bold;fill:#2a7ab8}.button{fill:#2a7ab8;text-anchor:middle}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="#c9d9e6"/>{"".join(parts)}</svg>\n'
    )


def _buttons(labels: list[str], y: float, width: float) -> Iterator[str]:
    each = (width - 4 * (len(labels) - 1)) / len(labels)
    for number, label in enumerate(labels):
        x = GAP + number * (each + 4)
        yield f'<rect x="{x:g}" y="{y:g}" width="{each:g}" height="{LINE + 12}" rx="8" fill="#eaf2f8"/>'
        yield f'<text class="button" x="{x + each / 2:g}" y="{y + LINE + 2:g}">{escape(label)}</text>'


def _wrapped(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield from textwrap.wrap(line, WRAP, break_on_hyphens=False, drop_whitespace=False) or [""]


if __name__ == "__main__":
    for name, (source, title) in PICTURES.items():
        (HERE / name).write_text(draw((TRANSCRIPTS / source).read_text("utf-8"), title), "utf-8")
