"""Render a card for Telegram: text with entities in UTF-16 units, and an inline keyboard. Pure.

If text looks like a URL or a mention, Telegram turns it into a link. So quoted text, and other text that
Telegram would link, gets a code entity: Telegram creates no links inside a code entity.
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
# Telegram documents no limit, but has rejected longer URLs.
MAX_BUTTON_URL_CHARS = 2048
# A phone shows about half of a label of this length.
MAX_LABEL_CHARS = 64
# Words that Telegram would turn into a link, a mention, a hashtag or a command. Only the commands of this
# package stay tappable, because a malicious server can put other commands into its texts.
_WORD = re.compile(r"\S+")
_AUTOLINKED_TEXT = re.compile(
    r"\w\.\w|\w://|(?<!\w)[@#$]\w|(?<!\w)/(?!(?:[a-z0-9_]{0,20}_)?(?:connect|connections|disconnect|mcpauth)(?!\w))\w"
)
_TRAILING_PUNCTUATION = ".,:;!?)"
# Clients make phone numbers and card numbers tappable. The pattern matches no date and no time of day.
_TAPPABLE_NUMBER = re.compile(
    r"(?<![\w.])(?<!\d:)\+?(?!\d{4}-\d\d-\d\d\b)"
    r"\(?\d(?:[ ().\-\u2010-\u2013\u00a0\u00b7\u2022\u202f/]{0,3}\d){6,}(?!\w)"
)
# Telegram has no colour for a message.
_OUTCOME_MARKS = {"plain": "", "good": "✓ ", "bad": "✗ "}


@dataclass(frozen=True, slots=True)
class RenderedMessage:
    """One message. If `separate_link` is set, that link does not fit: a second message contains only it."""

    text: str
    entities: tuple[MessageEntity, ...]
    keyboard: InlineKeyboardMarkup | None = None
    separate_link: Link | None = None


def render_card(card: Card, max_units: int = MAX_TEXT_UNITS, *, with_button: bool = True) -> RenderedMessage:
    """Render a card in at most `max_units` UTF-16 units. A longer text is truncated, a URL never is.

    The URL is in the text if Telegram accepts no button for it, or if `with_button` is False.
    """
    link = card.link
    has_link_button = with_button and link is not None and is_button_url(link.url)
    is_link_in_text = link is not None and not has_link_button
    runs = list(_styled_runs(card, with_link=is_link_in_text))
    is_link_separate = is_link_in_text and count_utf16_units("".join(text for text, _ in runs)) > max_units
    if is_link_separate:
        runs = list(_styled_runs(card, with_link=False))
    text, entities = _join_runs(runs, max_units)
    return RenderedMessage(
        text, entities, _keyboard(card, link if has_link_button else None), link if is_link_separate else None
    )


def is_button_url(url: str) -> bool:
    """Return True if Telegram accepts the URL for a button: http(s), with a dot in its host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    has_web_host = parts.scheme in {"http", "https"} and "." in (parts.hostname or "")
    return has_web_host and len(url) <= MAX_BUTTON_URL_CHARS and not re.search(r"[\s<>\"]", url)


def count_utf16_units(text: str) -> int:
    """Count UTF-16 code units, the unit of Telegram's limits and offsets."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _styled_runs(card: Card, *, with_link: bool) -> Iterator[tuple[str, str]]:
    """Yield runs of text with their entity type, "" for none."""
    if mark := _OUTCOME_MARKS[card.tone]:
        yield mark, ""
    for text, style in spans(card, with_link=with_link):
        if style == "code":
            yield text, MessageEntity.CODE
        elif card.link is not None and text == card.link.url:
            # If Telegram does not make a URL a link, a code entity lets the user copy the URL with a tap.
            yield text, "" if is_button_url(text[:MAX_BUTTON_URL_CHARS]) else MessageEntity.CODE
        else:
            yield from _unlinked_runs(text, MessageEntity.BOLD if style == "bold" else "")


def _unlinked_runs(text: str, entity_type: str) -> Iterator[tuple[str, str]]:
    """Yield the text with code entities for what Telegram would link, such as a URL or a phone number."""
    start = 0
    for number in _TAPPABLE_NUMBER.finditer(text):
        yield from _unlinked_words(text[start : number.start()], entity_type)
        yield number[0], MessageEntity.CODE
        start = number.end()
    yield from _unlinked_words(text[start:], entity_type)


def _unlinked_words(text: str, entity_type: str) -> Iterator[tuple[str, str]]:
    start = 0
    for word in _WORD.finditer(text):
        if _AUTOLINKED_TEXT.search(word[0]):
            end = word.start() + len(word[0].rstrip(_TRAILING_PUNCTUATION))
            yield text[start : word.start()], entity_type
            yield text[word.start() : end], MessageEntity.CODE
            start = end
    yield text[start:], entity_type


def _join_runs(runs: Iterable[tuple[str, str]], max_units: int) -> tuple[str, tuple[MessageEntity, ...]]:
    """Join the runs, trimmed as Telegram trims text, so that every offset is correct."""
    text, entities = "", list[tuple[str, int, int]]()
    position = 0
    for piece, kind in runs:
        trimmed = piece if text else piece.lstrip()
        length = count_utf16_units(trimmed)
        if kind and trimmed.strip():
            entities.append((kind, position, length))
        text, position = text + trimmed, position + length
    text = truncate(text.rstrip(), max_units)
    end = count_utf16_units(text)
    entities = [
        (kind, offset, min(length, end - offset)) for kind, offset, length in entities if offset < end
    ]
    if len(entities) > MAX_ENTITIES:
        # Telegram ignores all entities above the limit: merge these into one entity.
        offset = entities[MAX_ENTITIES - 1][1]
        entities[MAX_ENTITIES - 1 :] = [(MessageEntity.CODE, offset, end - offset)]
    return text, tuple(MessageEntity(*entity) for entity in entities)


def _keyboard(card: Card, link: Link | None) -> InlineKeyboardMarkup | None:
    rows = [[InlineKeyboardButton(truncate(link.label, MAX_LABEL_CHARS), url=link.url)]] if link else []
    rows.extend([rendered for button in row if (rendered := _button(button))] for row in card.buttons)
    rows = [row for row in rows if row]
    return InlineKeyboardMarkup(rows) if rows else None


def _button(button: Button) -> InlineKeyboardButton | None:
    """Return a button, None if its action or copied text is too long for Telegram."""
    label = truncate(button.label, MAX_LABEL_CHARS).strip() or "…"
    if button.copy:
        fits = count_utf16_units(button.copy) <= InlineKeyboardButtonLimit.MAX_COPY_TEXT
        return InlineKeyboardButton(label, copy_text=CopyTextButton(button.copy)) if fits else None
    fits = 0 < len(button.action.encode()) <= InlineKeyboardButtonLimit.MAX_CALLBACK_DATA
    return InlineKeyboardButton(label, callback_data=button.action) if fits else None
