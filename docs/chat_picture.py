"""Draw the pictures of chats from the transcripts of the tests. Run: python docs/chat_picture.py."""

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
    """A transcript, a caption between its first and last section, and the picture's title."""

    transcript_name: str
    caption: str
    title: str


PICTURES = {
    "telegram.svg": Picture(
        "telegram_paste.txt",
        "Anna approves on her phone and sends the address; the bot deletes it.",
        "A login in a Telegram chat: one message with the link, which then shows the connected account.",
    ),
    "discord.svg": Picture(
        "discord_paste.txt",
        "Ada approves, presses Paste, and puts the address into the form.",
        "A login in a Discord channel that only the user sees.",
    ),
    "hermes.svg": Picture(
        "hermes_telegram.txt",
        "Anna approves and sends the address. The tools are loaded.",
        "An agent in Hermes that asks for a login by itself, and continues after it.",
    ),
}
# The pictures show these instead of the addresses and times of a test.
REPLACEMENTS = {
    "http://127.0.0.1:<port>/api/ping": "https://mcp.notes.example/mcp",
    "http://127.0.0.1:<port>/mcp": "https://mcp.notes.example/mcp",
    "127.0.0.1": "login.notes.example",
    "<time> UTC (": "16:10 UTC (",
    "<time>": "16:00",
}
# A longer line of an embed continues in the next line.
JOIN_ABOVE_CHARS = 60
WRAP_CHARS, CHAR_WIDTH, LINE_HEIGHT, PAD, GAP, WIDTH = 56, 7.3, 18, 10, 12, 520


class Bubble(NamedTuple):
    """A message: its sender, its lines, and its rows of buttons."""

    sender: str
    lines: list[str]
    button_rows: list[list[str]]


def parse_bubbles(transcript: str) -> Iterator[Bubble]:
    """Parse a transcript into messages: an unindented name starts a message, its lines are indented."""
    sender, lines = "", list[str]()
    for line in [*transcript.splitlines(), "end"]:
        if line.startswith(("  ", "║", "╔", "╚")) or not line:
            lines.append(line.removeprefix("  "))
            continue
        if sender and (any(lines) or " used /" in sender):
            yield _make_bubble(sender, lines)
        sender, lines = line.rstrip(":"), []


def _make_bubble(sender: str, lines: list[str]) -> Bubble:
    # A transcript shows an embed as a box of characters with Markdown inside.
    text = [re.sub(r"\*\*|`", "", line.strip("│").strip()) for line in lines if not _button_labels(line)]
    text = _join_wrapped_lines(line for line in text if not line.startswith(("┌", "└")))
    while text and not text[-1]:
        text.pop()
    return Bubble(sender, text, [labels for line in lines if (labels := _button_labels(line))])


def _join_wrapped_lines(lines: Iterable[str]) -> list[str]:
    """Join lines that were wrapped at the edge of an embed."""
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
    """Draw a chat as SVG: the user's messages on the right, the bot's on the left."""
    text = (TRANSCRIPTS_DIR / picture.transcript_name).read_text("utf-8")
    for recorded, shown in REPLACEMENTS.items():
        text = text.replace(recorded, shown)
    first, *_, last = text.split(SECTION_SEPARATOR)
    first_bubbles = [bubble for bubble in parse_bubbles(first) if not bubble.sender.startswith("──")]
    last_bubbles = [bubble for bubble in parse_bubbles(last) if not bubble.sender.startswith("──")]
    new_bubbles = [bubble for bubble in last_bubbles if bubble not in first_bubbles]
    y, parts = float(GAP), list[str]()
    # Draw a message that is in both sections once.
    for bubble in [*first_bubbles[:2], picture.caption, *new_bubbles]:
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
            css_class = ' class="who"' if number == 0 else ""
            text_y = y + PAD + (number + 0.8) * LINE_HEIGHT
            parts.append(
                f'<text x="{x + PAD:g}" y="{text_y:g}" xml:space="preserve"{css_class}>{escape(line)}</text>'
            )
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
    button_width = (width - 4 * (len(labels) - 1)) / len(labels)
    for number, label in enumerate(labels):
        x = GAP + number * (button_width + 4)
        size = f'width="{button_width:g}" height="{LINE_HEIGHT + 12}"'
        yield f'<rect x="{x:g}" y="{y:g}" {size} rx="8" fill="#eaf2f8"/>'
        center = x + button_width / 2
        yield f'<text class="button" x="{center:g}" y="{y + LINE_HEIGHT + 2:g}">{escape(label)}</text>'


def _wrap_lines(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield from textwrap.wrap(line, WRAP_CHARS, break_on_hyphens=False) or [""]


if __name__ == "__main__":
    for name, picture in PICTURES.items():
        (DOCS_DIR / name).write_text(draw(picture), "utf-8")
