"""Draw the pictures of chats from the transcripts of the tests. Run: python docs/chat_picture.py."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

DOCS_DIR = Path(__file__).parent
TRANSCRIPTS_DIR = DOCS_DIR.parent / "tests" / "transcripts"
SECTION_SEPARATOR = "\n--------\n"


class Picture(NamedTuple):
    """A transcript, a caption between its first and last section, a title and a platform."""

    transcript_name: str
    caption: str
    title: str
    platform: str


PICTURES = {
    "telegram.svg": Picture(
        "telegram_paste.txt",
        "Anna approves on her phone and sends the address; the bot deletes it. The same message changes:",
        "A login in a Telegram chat: one message with the link, which then shows the connected account.",
        "telegram",
    ),
    "discord.svg": Picture(
        "discord_paste.txt",
        "Ada approves, presses Paste, and puts the address into the form. The same message changes:",
        "A login in a Discord channel that only the user sees.",
        "discord",
    ),
    "hermes.svg": Picture(
        "hermes_telegram.txt",
        "Anna approves and sends the address. The tools are loaded.",
        "An agent in Hermes that asks for a login by itself, and continues after it.",
        "telegram",
    ),
}
# The pictures show these instead of the addresses and times of a test.
REPLACEMENTS = {
    "http://127.0.0.1:<port>/api/ping": "https://mcp.notes.example/mcp",
    "http://127.0.0.1:<port>/mcp": "https://mcp.notes.example/mcp",
    "127.0.0.1": "login.notes.example",
    "<time> UTC (": "08:10 UTC (",
    "<time>": "08:00",
}
# The colours of light and dark themes, by CSS class.
THEMES = {
    "telegram": (
        {
            "page": "#c9d9e6",
            "bot": "#fff",
            "own": "#e3f6d3",
            "key": "#fff",
            "ink": "#000",
            "dim": "#4a6274",
            "link": "#2481cc",
            "bar": "none",
        },
        {
            "page": "#0e1621",
            "bot": "#182533",
            "own": "#2b5278",
            "key": "#1f2f3f",
            "ink": "#f5f5f5",
            "dim": "#8fa3b3",
            "link": "#6ab3f3",
            "bar": "none",
        },
    ),
    "discord": (
        {
            "page": "#fff",
            "bot": "#f2f3f5",
            "own": "#fff",
            "key": "#e3e5e8",
            "ink": "#2e3338",
            "dim": "#5c5e66",
            "link": "#2e3338",
            "bar": "#5865f2",
        },
        {
            "page": "#313338",
            "bot": "#2b2d31",
            "own": "#313338",
            "key": "#4e5058",
            "ink": "#dbdee1",
            "dim": "#949ba4",
            "link": "#fff",
            "bar": "#5865f2",
        },
    ),
}
DONE_COLOUR = "#248046"
# If a line of an embed is longer than this, the next line continues it.
JOIN_ABOVE_CHARS = 60
WRAP_CHARS, CHAR_WIDTH, LINE_HEIGHT, PAD, GAP, WIDTH = 56, 6.9, 19, 10, 12, 480


class Bubble(NamedTuple):
    """A message: its sender, its lines, and its rows of buttons."""

    sender: str
    lines: list[str]
    button_rows: list[list[str]]


def parse_bubbles(transcript: str) -> Iterator[Bubble]:
    """Parse a transcript into messages. An unindented name starts a message; its lines are indented."""
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
    text = [line.strip("│").strip() for line in lines if not _button_labels(line)]
    text = _join_wrapped_lines(line for line in text if not line.startswith(("┌", "└")))
    while text and not text[-1]:
        text.pop()
    return Bubble(sender, text, [labels for line in lines if (labels := _button_labels(line))])


def _join_wrapped_lines(lines: Iterable[str]) -> list[str]:
    """Join lines that were wrapped at the edge of an embed."""
    joined = [""]
    for line in lines:
        if (
            len(joined[-1].rpartition("\n")[2]) > JOIN_ABOVE_CHARS
            and line
            and not re.match(r"\d\\?\.|\*\*", line)
        ):
            joined[-1] += f" \n{line}"
        else:
            joined.append(line)
    return [line.replace("\n", "") for line in joined[1:]]


def _button_labels(line: str) -> list[str]:
    return re.findall(r"\[([^\]]+)\]", line) if re.fullmatch(r"(?:\[[^\]]+\] ?)+", line) else []


def draw(picture: Picture) -> str:
    """Draw a chat as SVG, in the colours of its platform: the user's messages, then the bot's."""
    text = (TRANSCRIPTS_DIR / picture.transcript_name).read_text("utf-8")
    for recorded, shown in REPLACEMENTS.items():
        text = text.replace(recorded, shown)
    # Discord shows such a tag in the reader's own time zone and language.
    text = re.sub(r"<t:\d+:R>", "in 10 minutes", text)
    text = re.sub(r"<t:(\d+):t>", lambda tag: time.strftime("%H:%M", time.gmtime(int(tag[1]))), text)
    first, *_, last = text.split(SECTION_SEPARATOR)
    first_bubbles = [bubble for bubble in parse_bubbles(first) if not bubble.sender.startswith("──")]
    last_bubbles = [bubble for bubble in parse_bubbles(last) if not bubble.sender.startswith("──")]
    new_bubbles = [bubble for bubble in last_bubbles if bubble not in first_bubbles]
    y, parts = float(GAP), list[str]()
    # If a message is in both sections, draw it only once.
    for bubble in [*first_bubbles[:2], picture.caption, *new_bubbles]:
        if isinstance(bubble, str):
            for line in textwrap.wrap(bubble, WRAP_CHARS + 10):
                y += LINE_HEIGHT
                parts.append(f'<text class="between" x="{WIDTH / 2:g}" y="{y:g}">{escape(line)}</text>')
            y += LINE_HEIGHT
            continue
        drawn, height = _draw_bubble(bubble, y, picture.platform)
        parts += drawn
        y += height + GAP
    light, dark = (_style(theme) for theme in THEMES[picture.platform])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:g}" role="img">'
        f"<title>{escape(picture.title)}</title>"
        "<style>text{font:13px -apple-system,Segoe UI,Roboto,Helvetica,Arial,sans-serif}"
        ".title{font-weight:600}"
        ".who{font-weight:600}.code{font:12px ui-monospace,Menlo,Consolas,monospace}"
        ".button,.between{text-anchor:middle}.between{font-style:italic}"
        f"{light}@media(prefers-color-scheme:dark){{{dark}}}</style>"
        f'<rect width="100%" height="100%" rx="8" class="page"/>{"".join(parts)}</svg>\n'
    )


def _style(theme: dict[str, str]) -> str:
    return (
        f".page{{fill:{theme['page']}}}.bot{{fill:{theme['bot']}}}.own{{fill:{theme['own']}}}"
        f".key{{fill:{theme['key']}}}.bar{{fill:{theme['bar']}}}text{{fill:{theme['ink']}}}"
        f".who,.code,.button{{fill:{theme['link']}}}.between{{fill:{theme['dim']}}}"
    )


def _draw_bubble(bubble: Bubble, y: float, platform: str) -> tuple[list[str], float]:
    """Return the drawing of a message with its buttons, and its height."""
    is_bot = bubble.sender == "Hermes" or bubble.sender.endswith(" APP")
    lines = [bubble.sender, *_wrap_lines(bubble.lines)]
    height, is_embed = len(lines) * LINE_HEIGHT + 2 * PAD, platform == "discord" and is_bot
    # The sender and the title are bold, which is wider.
    longest = max(len(_plain(line)) * (1.1 if number < 2 else 1) for number, line in enumerate(lines))
    width = min(longest * CHAR_WIDTH + 2 * PAD + 8, WIDTH - 2 * GAP)
    x = GAP if is_bot or platform == "discord" else WIDTH - GAP - width
    css_class = "bot" if is_bot else "own"
    box = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    parts = [f'<rect {box} rx="{4 if is_embed else 12}" class="{css_class}"/>']
    if is_embed:
        # Discord's bar has the colour of the outcome.
        is_done = any("connected" in line for line in lines[1:2])
        fill = f'style="fill:{DONE_COLOUR}"' if is_done else 'class="bar"'
        parts.append(f'<rect x="{x:g}" y="{y:g}" width="4" height="{height:g}" rx="2" {fill}/>')
    for number, line in enumerate(lines):
        text_y = y + PAD + (number + 0.8) * LINE_HEIGHT
        # A quoted line is no title.
        is_title = number == 1 and is_bot and not line.startswith("> ")
        line_class = ' class="who"' if number == 0 else ' class="title"' if is_title else ""
        place = f'x="{x + PAD + 2:g}" y="{text_y:g}" xml:space="preserve"'
        parts.append(f"<text {place}{line_class}>{_markup(line)}</text>")
    y += height + 4
    for row in bubble.button_rows:
        parts.extend(_draw_button_row(row, y, max(width, 300.0)))
        y += LINE_HEIGHT + 16
        height += LINE_HEIGHT + 16
    return parts, height + 4


def _plain(line: str) -> str:
    return re.sub(r"\*\*|`|\\\\(?=\.)", "", line)


def _markup(line: str) -> str:
    """Return a line as SVG text; the transcripts mark bold text and code as Markdown does."""
    text = escape(re.sub(r"\\(?=\.)", "", line), quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r'<tspan class="title">\1</tspan>', text)
    return re.sub(r"`([^`]+)`", r'<tspan class="code">\1</tspan>', text)


def _draw_button_row(labels: list[str], y: float, width: float) -> Iterator[str]:
    button_width = (width - 4 * (len(labels) - 1)) / len(labels)
    for number, label in enumerate(labels):
        x = GAP + number * (button_width + 4)
        size = f'width="{button_width:g}" height="{LINE_HEIGHT + 12}"'
        yield f'<rect x="{x:g}" y="{y:g}" {size} rx="8" class="key"/>'
        center = x + button_width / 2
        yield f'<text class="button" x="{center:g}" y="{y + LINE_HEIGHT + 2:g}">{escape(label)}</text>'


def _wrap_lines(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield from textwrap.wrap(line, WRAP_CHARS, break_on_hyphens=False) or [""]


if __name__ == "__main__":
    for name, picture in PICTURES.items():
        (DOCS_DIR / name).write_text(draw(picture), "utf-8")
