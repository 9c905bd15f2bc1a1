"""What a chat shows: a card of words and buttons, the same on every platform. Values; no library.

Adapters draw it with what their platform has. Whatever a server or another person wrote is marked as quoted,
so that no platform takes it for a link, a mention or markup.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

Style = Literal["plain", "bold", "code"]

# What an action looks like, "mcp:cancel:<login id>"; Telegram has room for 64 bytes.
ACTION_PREFIX = "mcp:"
# Nobody reads on, and no card may pass a platform's limit: 4096 characters, the address among them.
MAX_VALUE_CHARS = 300


@dataclass(frozen=True, slots=True)
class Button:
    """What a person may press. `action` comes back to us; `copy` goes to the person's clipboard."""

    label: str
    action: str = ""
    copy: str = field(default="", repr=False)
    tone: Literal["plain", "good", "bad"] = "plain"
    # Opens a form for the answer, where a platform has forms; `action` then names what is answered.
    opens_form: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """A labelled value. `quoted` where others wrote it, or where it is to be compared letter by letter."""

    label: str
    value: str
    is_quoted: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """An address for this person's eyes alone, and what its button says."""

    label: str
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Card:
    """One message. `code` is large and can be copied, for entering it elsewhere."""

    title: str
    rows: tuple[Row, ...] = ()
    paragraphs: tuple[str, ...] = ()
    code: str = field(default="", repr=False)
    after_code: tuple[str, ...] = ()
    link: Link | None = None
    buttons: tuple[tuple[Button, ...], ...] = ()
    tone: Literal["plain", "good", "bad"] = "plain"


def spans(card: Card, *, with_link: bool) -> Iterator[tuple[str, Style]]:
    """Yield the card as runs of text and how each is set; `with_link` where no button opens the address."""
    yield card.title, "bold"
    if card.rows:
        yield "\n", "plain"
        for row in card.rows:
            yield f"\n{row.label}: ", "plain"
            yield row.value, "code" if row.is_quoted else "plain"
    if with_link and card.link is not None:
        yield f"\n\n{card.link.label}:\n", "plain"
        yield card.link.url, "plain"
    yield from _paragraphs(card.paragraphs)
    if card.code:
        yield "\n\n", "plain"
        yield card.code, "code"
    yield from _paragraphs(card.after_code)


def truncate(text: str, max_units: int = MAX_VALUE_CHARS) -> str:
    """Cut a long value, visibly; `most` is in UTF-16 units, by which platforms count."""
    units = text.encode("utf-16-le", "surrogatepass")
    if len(units) <= 2 * max_units:
        return text
    return units[: 2 * (max_units - 1)].decode("utf-16-le", "ignore") + "…"


def encode_action(verb: str, argument: str = "") -> str:
    """Write what a button brings back."""
    return f"{ACTION_PREFIX}{verb}:{argument}"


def decode_action(text: str) -> tuple[str, str] | None:
    """Read what a button brought, verb and argument; None where the button is not ours."""
    if not text.startswith(ACTION_PREFIX):
        return None
    verb, separator, argument = text.removeprefix(ACTION_PREFIX).partition(":")
    return (verb, argument) if separator else None


def arrange_in_rows(buttons: Iterable[Button], width: int = 2) -> tuple[tuple[Button, ...], ...]:
    """Lay out buttons, so many to a row: a phone is narrow."""
    known = list(buttons)
    return tuple(tuple(known[at : at + width]) for at in range(0, len(known), width))


def _paragraphs(paragraphs: Iterable[str]) -> Iterator[tuple[str, Style]]:
    for paragraph in paragraphs:
        yield f"\n\n{paragraph}", "plain"
