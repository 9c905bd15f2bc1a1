"""Cards: platform-independent chat messages with text and buttons. Plain values, no chat library.

Each adapter renders a card with the features of its platform. Text that a server or another user wrote is
marked as quoted, so that no platform turns it into a link, a mention or markup.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Style = Literal["plain", "bold", "code"]

# An action is "mcp:<verb>:<argument>", such as "mcp:cancel:<login id>". Telegram allows 64 bytes.
ACTION_PREFIX = "mcp:"
# No card may exceed a platform's limit: 4096 characters, including the URL.
MAX_VALUE_CHARS = 300
# A private-use character (Unicode category Co), which is never printed.
_TIME_DELIMITER = "\ue000"
_TIME_MARK = re.compile(rf"{_TIME_DELIMITER}(-?\d+):(\w){_TIME_DELIMITER}")


@dataclass(frozen=True, slots=True)
class Button:
    """A button. A press sends `action` to the bot, or copies `copy` to the user's clipboard.

    `typed` is the command that a user types instead on a platform without buttons, with its prefix. The verbs
    of `intents.COMMANDS_BY_VERB` need none.
    """

    label: str
    action: str = ""
    copy: str = field(default="", repr=False)
    tone: Literal["plain", "good", "bad"] = "plain"
    # If the platform has forms, the button opens a form for the answer to the login that `action` names.
    opens_form: bool = False
    typed: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled value. `is_quoted`: a third party wrote it, or the user compares it letter by letter.

    `lead` is text that this package puts before the value.
    """

    label: str
    value: str
    is_quoted: bool = False
    lead: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A URL that only this user may see, and the label of the button that opens it."""

    label: str
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Card:
    """One message. `code` is a code that the user copies and enters on another page.

    `intro`, `rows`, `steps`, `code` and `after_code` are on separate lines; blank lines separate
    `paragraphs`.
    """

    title: str
    intro: str = field(default="", kw_only=True)
    rows: tuple[Row, ...] = ()
    paragraphs: tuple[str, ...] = ()
    steps: tuple[str, ...] = field(default=(), kw_only=True)
    code: str = field(default="", repr=False)
    after_code: tuple[str, ...] = ()
    link: Link | None = None
    buttons: tuple[tuple[Button, ...], ...] = ()
    tone: Literal["plain", "good", "bad"] = "plain"


def spans(card: Card, *, with_link: bool) -> Iterator[tuple[str, Style]]:
    """Yield the card's text with its styles. Set `with_link` if no button opens the URL."""
    yield card.title, "bold"
    # A card with an introduction is compact: its parts are on separate lines, without blank lines.
    line_break, gap = "\n", "\n" if card.intro else "\n\n"
    if card.intro:
        yield f"\n{card.intro}", "plain"
    for number, row in enumerate(card.rows):
        yield f"{line_break if number else gap}{row.label}: {row.lead}", "plain"
        yield row.value, "code" if row.is_quoted else "plain"
    if with_link and card.link is not None:
        yield f"{gap}{card.link.label}:\n", "plain"
        yield card.link.url, "plain"
    for number, step in enumerate(card.steps):
        yield f"{line_break if number else gap}{step}", "plain"
    if not card.steps:
        yield from _paragraphs(card.paragraphs)
    if card.code:
        yield gap, "plain"
        yield card.code, "code"
    for text in card.after_code:
        yield f"{gap}{text}", "plain"
    if card.steps:
        yield from _paragraphs(card.paragraphs)


def _paragraphs(paragraphs: Iterable[str]) -> Iterator[tuple[str, Style]]:
    for paragraph in paragraphs:
        yield f"\n\n{paragraph}", "plain"


def time_mark(timestamp: float, style: Literal["t", "f", "R"]) -> str:
    """Return a mark that a platform with time tags shows in the user's time zone (`has_time_tags`).

    Styles: "t" time, "f" date and time, "R" remaining time. Text of servers and users contains no such
    mark: `phrases.replace_unprintable` replaces its delimiter.
    """
    return f"{_TIME_DELIMITER}{int(timestamp)}:{style}{_TIME_DELIMITER}"


def replace_time_marks(text: str, replacement: str) -> str:
    r"""Replace each time mark by `replacement`; its \1 is the time (epoch seconds), its \2 is the style."""
    return _TIME_MARK.sub(replacement, text)


def truncate(text: str, max_units: int = MAX_VALUE_CHARS) -> str:
    """Shorten a text to `max_units` UTF-16 units, with an ellipsis at the end if it was longer."""
    units = text.encode("utf-16-le", "surrogatepass")
    if len(units) <= 2 * max_units:
        return text
    return units[: 2 * (max_units - 1)].decode("utf-16-le", "ignore") + "…"


def encode_action(verb: str, argument: str = "") -> str:
    """Return the action string of a button."""
    return f"{ACTION_PREFIX}{verb}:{argument}"


def decode_action(text: str) -> tuple[str, str] | None:
    """Return the verb and argument of an action; None if it is not an action of this package."""
    if not text.startswith(ACTION_PREFIX):
        return None
    verb, separator, argument = text.removeprefix(ACTION_PREFIX).partition(":")
    return (verb, argument) if separator else None


def arrange_in_rows(buttons: Iterable[Button], width: int = 2) -> tuple[tuple[Button, ...], ...]:
    """Arrange buttons in rows of `width`. A phone shows two side by side."""
    all_buttons = list(buttons)
    return tuple(tuple(all_buttons[start : start + width]) for start in range(0, len(all_buttons), width))
