"""Draws the pictures of chats from what the tests keep of them. Run: python docs/chat_picture.py."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

DOCS_DIR = Path(__file__).parent
TRANSCRIPTS_DIR = DOCS_DIR.parent / "tests" / "transcripts"
SECTION_SEPARATOR = "\n--------\n"


class Picture(NamedTuple):
    """A transcript, what happens between its first and last section, and what the picture shows."""

    transcript_name: str
    caption: str
    title: str


PICTURES = {
    "telegram.svg": Picture(
        "telegram_paste.txt",
        "Anna approves on her phone and sends the address; the bot deletes it.",
        "A login in a Telegram chat: one message with the page, which then says who is connected.",
    ),
    "discord.svg": Picture(
        "discord_paste.txt",
        "Ada approves, presses Paste, and puts the address into the form.",
        "A login in a Discord channel, seen by nobody but the person.",
    ),
    "hermes.svg": Picture(
        "hermes_telegram.txt",
        "Anna approves and sends the address. The tools are live.",
        "An agent in Hermes that asks for a login by itself, and goes on when it has one.",
    ),
}
# What a test's own machine and minute are called.
REPLACEMENTS = {
    "http://127.0.0.1:<port>/api/ping": "https://mcp.notes.example/mcp",
    "http://127.0.0.1:<port>/mcp": "https://mcp.notes.example/mcp",
    "127.0.0.1": "login.notes.example",
    "<time> UTC (": "16:10 UTC (",
    "<time>": "16:00",
}
# A line of an embed that is longer goes on in the next.
JOIN_ABOVE_CHARS = 60
WRAP_CHARS, CHAR_WIDTH, LINE_HEIGHT, PAD, GAP, WIDTH = 56, 7.3, 18, 10, 12, 520


class Bubble(NamedTuple):
    """One message: who wrote it, its lines, and rows of buttons."""

    sender: str
    lines: list[str]
    button_rows: list[list[str]]


def parse_bubbles(transcript: str) -> Iterator[Bubble]:
    """Read a chat's text back into messages: a name at the margin begins one, what follows is indented."""
    who, lines = "", list[str]()
    for line in [*transcript.splitlines(), "end"]:
        if line.startswith(("  ", "║", "╔", "╚")) or not line:
            lines.append(line.removeprefix("  "))
            continue
        if who and (any(lines) or " used /" in who):
            yield _make_bubble(who, lines)
        who, lines = line.rstrip(":"), []


def _make_bubble(sender: str, lines: list[str]) -> Bubble:
    # An embed is drawn as a box of characters, and set in Markdown.
    text = [re.sub(r"\*\*|`", "", line.strip("│").strip()) for line in lines if not _button_labels(line)]
    text = _join_wrapped_lines(line for line in text if not line.startswith(("┌", "└")))
    while text and not text[-1]:
        text.pop()
    return Bubble(sender, text, [labels for line in lines if (labels := _button_labels(line))])


def _join_wrapped_lines(lines: Iterable[str]) -> list[str]:
    """Join what was broken at the edge of an embed."""
    joined = [""]
    for line in lines:
        if len(joined[-1].rpartition("\n")[2]) > JOIN_ABOVE_CHARS and line:
            joined[-1] += f" \n{line}"
        else:
            joined.append(line)
    return [line.replace("\n", "") for line in joined[1:]]


def _button_labels(line: str) -> list[str]:
    return re.findall(r"\[([^\]]+)\]", line) if re.fullmatch(r"(?:\[[^\]]+\] ?)+", line) else []


def draw(picture: Picture) -> str:
    """Draw a chat as SVG: what the person wrote at the right, what the bot wrote at the left."""
    text = (TRANSCRIPTS_DIR / picture.transcript_name).read_text("utf-8")
    for name, drawn in REPLACEMENTS.items():
        text = text.replace(name, drawn)
    first, *_, last = text.split(SECTION_SEPARATOR)
    shown = [each for each in parse_bubbles(first) if not each.sender.startswith("──")]
    ended = [each for each in parse_bubbles(last) if not each.sender.startswith("──")]
    y, parts = float(GAP), list[str]()
    # What is the same in both is drawn once.
    for bubble in [*shown[:2], picture.caption, *(each for each in ended if each not in shown)]:
        if isinstance(bubble, str):
            y += LINE_HEIGHT
            parts.append(f'<text class="between" x="{WIDTH / 2:g}" y="{y:g}">{escape(bubble)}</text>')
            y += LINE_HEIGHT
            continue
        is_bot = bubble.sender == "Hermes" or bubble.sender.endswith(" APP")
        lines = [bubble.sender, *_wrap_lines(bubble.lines)]
        height = len(lines) * LINE_HEIGHT + 2 * PAD
        width = max(len(line) for line in lines) * CHAR_WIDTH + 2 * PAD
        x = GAP if is_bot else WIDTH - GAP - width
        fill = "#ffffff" if is_bot else "#dcf3d0"
        box = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        parts.append(f'<rect {box} rx="10" fill="{fill}"/>')
        for number, line in enumerate(lines):
            kind = ' class="who"' if number == 0 else ""
            at = y + PAD + (number + 0.8) * LINE_HEIGHT
            parts.append(f'<text x="{x + PAD:g}" y="{at:g}" xml:space="preserve"{kind}>{escape(line)}</text>')
        y += height + 4
        for row in bubble.button_rows:
            parts.extend(_draw_button_row(row, y, max(width, 300.0)))
            y += LINE_HEIGHT + 16
        y += GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:g}" role="img">'
        f"<title>{escape(picture.title)}</title>"
        "<style>text{font:12px ui-monospace,Menlo,Consolas,monospace;fill:#1c2733}"
        ".who{font-weight:bold;fill:#2a7ab8}.button{fill:#2a7ab8;text-anchor:middle}"
        ".between{text-anchor:middle;font-style:italic;fill:#4a6274}</style>"
        f'<rect width="100%" height="100%" rx="8" fill="#c9d9e6"/>{"".join(parts)}</svg>\n'
    )


def _draw_button_row(labels: list[str], y: float, width: float) -> Iterator[str]:
    each = (width - 4 * (len(labels) - 1)) / len(labels)
    for number, label in enumerate(labels):
        x = GAP + number * (each + 4)
        size = f'width="{each:g}" height="{LINE_HEIGHT + 12}"'
        yield f'<rect x="{x:g}" y="{y:g}" {size} rx="8" fill="#eaf2f8"/>'
        yield f'<text class="button" x="{x + each / 2:g}" y="{y + LINE_HEIGHT + 2:g}">{escape(label)}</text>'


def _wrap_lines(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield from textwrap.wrap(line, WRAP_CHARS, break_on_hyphens=False) or [""]


if __name__ == "__main__":
    for name, picture in PICTURES.items():
        (DOCS_DIR / name).write_text(draw(picture), "utf-8")
