"""A card within Telegram's limits, by the same rules as the local Bot API."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from telegram import MessageEntity

from gateway_hooks.dialog.cards import Button, Card, Link, Row, encode_action, truncate
from gateway_hooks.telegram.render import (
    MAX_CAPTION_UNITS,
    RenderedMessage,
    count_utf16_units,
    is_button_url,
    render_card,
)
from tests.parts.bot_api import Entity
from tests.parts.bot_api.entities import detect_entities, validate_entity
from tests.parts.bot_api.keyboards import read_keyboard
from tests.parts.bot_api.limits import ENTITIES
from tests.requirements import covers

HOSTILE_TEXTS = [
    "evil.com",
    "@everybody",
    "#tag",
    "https://evil.com/x",
    "a@evil.com",
    "t.me/evil",
    "10.0.0.1",
    "x.y/z?w",
    "(@everybody)",
]


def visible_entities(rendered: RenderedMessage) -> list[tuple[str, str]]:
    """Return the type and text of each entity, with those that Telegram detects itself."""
    own_entities = tuple(
        validate_entity(Entity(e.type, e.offset, e.length), rendered.text) for e in rendered.entities
    )
    raw = rendered.text.encode("utf-16-le")
    return [
        (entity.type, raw[2 * entity.offset : 2 * (entity.offset + entity.length)].decode("utf-16-le"))
        for entity in detect_entities(rendered.text, own_entities)
    ]


def test_card_is_rendered_as_text_with_entities() -> None:
    card = Card(
        "Connect 💙 notes",
        (Row("Server", "https://x.example/💙", is_quoted=True), Row("For", "you alone")),
        ("Continue only if you asked.",),
        code="WDJB-MJHT",
        steps=("1. Open it.",),
        after_code=("Compare it.",),
        link=Link("Open the page", "https://as.example/?a=b"),
        buttons=((Button("Cancel", encode_action("cancel", "x")), Button("Copy", copy="WDJB-MJHT")),),
    )
    rendered = render_card(card)
    assert rendered.text == (
        "Connect 💙 notes\n\nServer: https://x.example/💙\nFor: you alone\n\n1. Open it.\n\nWDJB-MJHT"
        "\n\nCompare it."
        "\n\nContinue only if you asked."
    )
    assert visible_entities(rendered) == [
        ("bold", "Connect 💙 notes"),
        ("code", "https://x.example/💙"),
        ("code", "WDJB-MJHT"),
    ]
    assert rendered.keyboard is not None
    (page,), (cancel, copy) = rendered.keyboard.inline_keyboard
    assert (page.text, page.url) == ("Open the page", "https://as.example/?a=b")
    assert cancel.callback_data == "mcp:cancel:x"
    assert copy.copy_text is not None
    assert copy.copy_text.text == "WDJB-MJHT"


@covers("telegram-plain")
@pytest.mark.parametrize("text", HOSTILE_TEXTS)
@pytest.mark.parametrize("part", ["title", "row", "quoted", "paragraph", "code"])
def test_foreign_text_has_no_links(part: str, text: str) -> None:
    text_in_sentence = f"before {text} after"
    cards = {
        "title": Card(text_in_sentence),
        "row": Card("T", (Row("A", text_in_sentence),)),
        "quoted": Card("T", (Row("A", text_in_sentence, is_quoted=True),)),
        "paragraph": Card("T", paragraphs=(text_in_sentence,)),
        "code": Card("T", code=text_in_sentence),
    }
    assert {kind for kind, _ in visible_entities(render_card(cards[part]))} <= {"bold", "code"}


@covers("telegram-plain")
def test_more_names_than_entity_limit_are_no_links() -> None:
    rendered = render_card(Card("T", paragraphs=("evil.com and " * 200,)))
    assert len(rendered.entities) == ENTITIES
    assert {kind for kind, _ in visible_entities(rendered)} == {"bold", "code"}


@covers("telegram-plain")
def test_bot_command_is_a_link() -> None:
    assert ("bot_command", "/connect") in visible_entities(
        render_card(Card("Help", paragraphs=("/connect: log in to a server",)))
    )


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=300)
DIFFICULT_TEXTS = st.one_of(
    TEXTS, st.sampled_from([*HOSTILE_TEXTS, " ", "\n", "💙" * 200, "x" * 5000, "a.b " * 900])
)
URLS = st.builds(
    "{}://{}/{}".format,
    st.sampled_from(["https", "http"]),
    st.sampled_from(["a.example", "localhost"]),
    st.sampled_from(["", "x", "y" * 2000, "y" * 2048, "z" * 5000]),
)
BUTTONS = st.builds(
    Button,
    DIFFICULT_TEXTS,
    st.sampled_from(["", "mcp:qr:x", "x" * 64, "ü" * 33]),
    st.sampled_from(["", "x" * 256, "💙" * 129]),
)
CARDS = st.builds(
    Card,
    DIFFICULT_TEXTS,
    st.lists(st.builds(Row, DIFFICULT_TEXTS, DIFFICULT_TEXTS, st.booleans()), max_size=4).map(tuple),
    st.lists(DIFFICULT_TEXTS, max_size=3).map(tuple),
    DIFFICULT_TEXTS,
    st.lists(DIFFICULT_TEXTS, max_size=2).map(tuple),
    st.none() | st.builds(Link, TEXTS.filter(str.strip), URLS),
    st.lists(st.lists(BUTTONS, max_size=3).map(tuple), max_size=3).map(tuple),
)


@covers("telegram-limits", "telegram-plain")
@settings(deadline=None)
@given(CARDS, st.sampled_from([MAX_CAPTION_UNITS, 4096]))
def test_any_card_keeps_message_limits(card: Card, most: int) -> None:
    rendered = render_card(card, most)
    assert count_utf16_units(rendered.text) <= most
    assert rendered.text == rendered.text.strip()
    assert len(rendered.entities) <= ENTITIES
    # Each entity lies within the text and does not split a character.
    kinds = {kind for kind, _ in visible_entities(rendered)} if rendered.text else set()
    in_text = card.link is not None and card.link.url in rendered.text
    assert kinds <= {"bold", "code", "bot_command"} | ({"url"} if in_text else set())
    if rendered.keyboard is not None:
        read_keyboard(rendered.keyboard.to_json())
    if card.link is not None:
        urls = [
            button.url
            for row in (rendered.keyboard.inline_keyboard if rendered.keyboard else ())
            for button in row
        ]
        assert card.link.url in urls or in_text or rendered.separate_link == card.link


@covers("telegram-limits")
def test_truncation_adds_ellipsis_and_splits_no_character() -> None:
    assert truncate("abc", 3) == "abc"
    assert truncate("abcd", 3) == "ab…"
    assert truncate("💙💙", 3) == "💙…"
    rendered = render_card(Card("T", code="x" * 5000))
    assert count_utf16_units(rendered.text) == 4096
    assert rendered.text.endswith("x…")
    assert rendered.entities[-1] == MessageEntity(MessageEntity.CODE, 3, 4093)


@covers("telegram-limits")
@pytest.mark.parametrize(
    ("url", "opens"),
    [
        ("https://as.example/authorize?x=y", True),
        ("http://127.0.0.1:8080/authorize", True),
        ("http://localhost:8080/authorize", False),
        ("https://intranet/authorize", False),
        ("https://as.example/" + "x" * 2048, False),
        ("https://[not/an/address", False),
        ("ftp://as.example/", False),
        ("https://as.example/a b", False),
    ],
)
def test_button_has_only_urls_that_telegram_accepts(url: str, *, opens: bool) -> None:
    assert is_button_url(url) is opens
    rendered = render_card(Card("T", link=Link("Open", url)))
    assert (rendered.keyboard is not None) is opens
    if not opens:
        assert url in rendered.text


@covers("telegram-plain")
@pytest.mark.parametrize(
    "number",
    [
        "+49 170 1234567",
        "+1 (415) 555-2671",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "030•123•4567",
        "00441632960961",
        "0170/1234567",
        "5550-1234",
        "1234567",
    ],
)
def test_phone_and_card_numbers_are_code(number: str) -> None:
    card = Card("Title", paragraphs=(f"Call:{number} now, or pay with {number}.",), tone="bad")
    assert [text for kind, text in visible_entities(render_card(card)) if kind == "code"] == [number, number]


@pytest.mark.parametrize(
    "text",
    ["It ended at 2027-01-16 08:00 UTC.", "08:00–08:10 UTC (10 minutes)", "1. Open it", "in 30 minutes"],
)
def test_times_and_counts_are_no_code(text: str) -> None:
    assert [kind for kind, _ in visible_entities(render_card(Card("Title", paragraphs=(text,))))] == ["bold"]


@pytest.mark.parametrize(("tone", "mark"), [("good", "✓ "), ("bad", "✗ "), ("plain", "")])
def test_outcome_has_a_mark(tone: Any, mark: str) -> None:
    rendered = render_card(Card("notes", tone=tone))
    assert rendered.text == f"{mark}notes"
    assert [text for _, text in visible_entities(rendered)] == ["notes"]
