"""A card as Telegram shows it: text with entities in UTF-16 units and an inline keyboard. Pure.

Telegram makes links of what looks like one, unasked. What others wrote, and whatever else it would take for
an address or a mention, is set as code: there it looks for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from telegram import CopyTextButton, InlineKeyboardButton, InlineKeyboardMarkup, MessageEntity
from telegram.constants import InlineKeyboardButtonLimit, MessageLimit

from gateway_hooks.dialog.cards import Button, Card, Link, spans, truncate

MAX_TEXT_UNITS = int(MessageLimit.MAX_TEXT_LENGTH)
MAX_CAPTION_UNITS = int(MessageLimit.CAPTION_LENGTH)
MAX_ENTITIES = int(MessageLimit.MESSAGE_ENTITIES)
# Telegram documents none; longer ones have been refused.
MAX_BUTTON_URL_CHARS = 2048
# A phone shows about half of that.
MAX_LABEL_CHARS = 64
# What stands between spaces, and what in it Telegram would take for an address, a mention, a hashtag, or a
# command to tap: only our own are offered, as others have been put into a server's words.
_WORD = re.compile(r"\S+")
_AUTOLINKED_TEXT = re.compile(
    r"\w\.\w|\w://|(?<!\w)[@#$]\w|(?<!\w)/(?!(?:connect|connections|disconnect|mcpauth)(?!\w))\w"
)
_TRAILING_PUNCTUATION = ".,:;!?)"


@dataclass(frozen=True, slots=True)
class RenderedMessage:
    """One message. `address` has no room in it: a second message holds it alone."""

    text: str
    entities: tuple[MessageEntity, ...]
    keyboard: InlineKeyboardMarkup | None = None
    separate_link: Link | None = None


def render_card(card: Card, max_units: int = MAX_TEXT_UNITS, *, with_button: bool = True) -> RenderedMessage:
    """Lay out a card in at most so many UTF-16 units: what is too long is cut, visibly; an address is not.

    Where Telegram takes no button for the address, or `with_button` is off, it stands in the text.
    """
    link = card.link
    opens = with_button and link is not None and is_button_url(link.url)
    in_text = link is not None and not opens
    runs = list(_styled_runs(card, with_link=in_text))
    is_apart = in_text and count_utf16_units("".join(text for text, _ in runs)) > max_units
    if is_apart:
        runs = list(_styled_runs(card, with_link=False))
    text, entities = _join_runs(runs, max_units)
    return RenderedMessage(
        text, entities, _keyboard(card, link if opens else None), link if is_apart else None
    )


def is_button_url(url: str) -> bool:
    """True where Telegram takes an address for a button: a web address, with a dot in its host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    named = parts.scheme in {"http", "https"} and "." in (parts.hostname or "")
    return named and len(url) <= MAX_BUTTON_URL_CHARS and not re.search(r"[\s<>\"]", url)


def count_utf16_units(text: str) -> int:
    """Count UTF-16 code units, in which Telegram measures."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def truncate_units(text: str, max_units: int) -> str:
    """Return a text of at most so many UTF-16 units, with an ellipsis where something is missing."""
    if count_utf16_units(text) <= max_units:
        return text
    kept = text.encode("utf-16-le", "surrogatepass")[: 2 * (max_units - 1)].decode("utf-16-le", "ignore")
    return f"{kept}…"


def _styled_runs(card: Card, *, with_link: bool) -> Iterator[tuple[str, str]]:
    """Yield runs of text, each with its type of entity, "" for none."""
    for text, style in spans(card, with_link=with_link):
        if style == "code":
            yield text, MessageEntity.CODE
        elif card.link is not None and text == card.link.url:
            # One that Telegram makes no link of can be copied by a tap at least.
            yield text, "" if is_button_url(text[:MAX_BUTTON_URL_CHARS]) else MessageEntity.CODE
        else:
            yield from _unlinked_runs(text, MessageEntity.BOLD if style == "bold" else "")


def _unlinked_runs(text: str, entity_type: str) -> Iterator[tuple[str, str]]:
    at = 0
    for word in _WORD.finditer(text):
        if _AUTOLINKED_TEXT.search(word[0]):
            end = word.start() + len(word[0].rstrip(_TRAILING_PUNCTUATION))
            yield text[at : word.start()], entity_type
            yield text[word.start() : end], MessageEntity.CODE
            at = end
    yield text[at:], entity_type


def _join_runs(runs: Iterable[tuple[str, str]], max_units: int) -> tuple[str, tuple[MessageEntity, ...]]:
    """Put runs together, trimmed as Telegram does it, so that every offset stays right."""
    text, placed = "", list[tuple[str, int, int]]()
    at = 0
    for piece, kind in runs:
        kept = piece if text else piece.lstrip()
        length = count_utf16_units(kept)
        if kind and kept.strip():
            placed.append((kind, at, length))
        text, at = text + kept, at + length
    text = truncate_units(text.rstrip(), max_units)
    end = count_utf16_units(text)
    placed = [(kind, offset, min(length, end - offset)) for kind, offset, length in placed if offset < end]
    if len(placed) > MAX_ENTITIES:
        # Telegram leaves out those beyond: the rest is one.
        offset = placed[MAX_ENTITIES - 1][1]
        placed[MAX_ENTITIES - 1 :] = [(MessageEntity.CODE, offset, end - offset)]
    return text, tuple(MessageEntity(*each) for each in placed)


def _keyboard(card: Card, link: Link | None) -> InlineKeyboardMarkup | None:
    rows = [[InlineKeyboardButton(truncate(link.label, MAX_LABEL_CHARS), url=link.url)]] if link else []
    rows.extend([made for button in row if (made := _button(button))] for row in card.buttons)
    rows = [row for row in rows if row]
    return InlineKeyboardMarkup(rows) if rows else None


def _button(button: Button) -> InlineKeyboardButton | None:
    """Return a button, None where Telegram has no room for what it brings back."""
    label = truncate(button.label, MAX_LABEL_CHARS).strip() or "…"
    if button.copy:
        fits = count_utf16_units(button.copy) <= InlineKeyboardButtonLimit.MAX_COPY_TEXT
        return InlineKeyboardButton(label, copy_text=CopyTextButton(button.copy)) if fits else None
    fits = 0 < len(button.action.encode()) <= InlineKeyboardButtonLimit.MAX_CALLBACK_DATA
    return InlineKeyboardButton(label, callback_data=button.action) if fits else None
