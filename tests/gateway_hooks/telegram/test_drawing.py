"""A card within Telegram's limits, by the same rules as the local Bot API."""

from __future__ import annotations

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
from tests.parts.bot_api.entities import found, placed
from tests.parts.bot_api.keyboards import read_keyboard
from tests.parts.bot_api.limits import ENTITIES
from tests.requirements import covers

HOSTILE = [
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


def seen(drawn: RenderedMessage) -> list[tuple[str, str]]:
    """Return the type and text of each entity, with those that Telegram detects itself."""
    given_ones = tuple(placed(Entity(e.type, e.offset, e.length), drawn.text) for e in drawn.entities)
    raw = drawn.text.encode("utf-16-le")
    return [
        (each.type, raw[2 * each.offset : 2 * (each.offset + each.length)].decode("utf-16-le"))
        for each in found(drawn.text, given_ones)
    ]


def test_a_card_as_text_with_entities() -> None:
    card = Card(
        "Connect 💙 notes",
        (Row("Server", "https://x.example/💙", is_quoted=True), Row("For", "you alone")),
        ("Continue only if you asked.",),
        code="WDJB-MJHT",
        after_code=("Compare it.",),
        link=Link("Open the page", "https://as.example/?a=b"),
        buttons=((Button("Cancel", encode_action("cancel", "x")), Button("Copy", copy="WDJB-MJHT")),),
    )
    drawn = render_card(card)
    assert drawn.text == (
        "Connect 💙 notes\n\nServer: https://x.example/💙\nFor: you alone\n\nContinue only if you asked.\n\n"
        "WDJB-MJHT\n\nCompare it."
    )
    assert seen(drawn) == [
        ("bold", "Connect 💙 notes"),
        ("code", "https://x.example/💙"),
        ("code", "WDJB-MJHT"),
    ]
    assert drawn.keyboard is not None
    (page,), (cancel, copy) = drawn.keyboard.inline_keyboard
    assert (page.text, page.url) == ("Open the page", "https://as.example/?a=b")
    assert cancel.callback_data == "mcp:cancel:x"
    assert copy.copy_text is not None
    assert copy.copy_text.text == "WDJB-MJHT"


@covers("telegram-plain")
@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("place", ["title", "row", "quoted", "paragraph", "code"])
def test_what_others_wrote_is_nothing_to_tap(place: str, text: str) -> None:
    said = f"before {text} after"
    cards = {
        "title": Card(said),
        "row": Card("T", (Row("A", said),)),
        "quoted": Card("T", (Row("A", said, is_quoted=True),)),
        "paragraph": Card("T", paragraphs=(said,)),
        "code": Card("T", code=said),
    }
    assert {kind for kind, _ in seen(render_card(cards[place]))} <= {"bold", "code"}


@covers("telegram-plain")
def test_more_names_than_telegram_takes_entities_are_still_no_links() -> None:
    drawn = render_card(Card("T", paragraphs=("evil.com and " * 200,)))
    assert len(drawn.entities) == ENTITIES
    assert {kind for kind, _ in seen(drawn)} == {"bold", "code"}


@covers("telegram-plain")
def test_a_command_of_ours_can_be_tapped() -> None:
    assert ("bot_command", "/connect") in seen(
        render_card(Card("Help", paragraphs=("/connect: log in to a server",)))
    )


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=300)
HARD = st.one_of(WORDS, st.sampled_from([*HOSTILE, " ", "\n", "💙" * 200, "x" * 5000, "a.b " * 900]))
URLS = st.builds(
    "{}://{}/{}".format,
    st.sampled_from(["https", "http"]),
    st.sampled_from(["a.example", "localhost"]),
    st.sampled_from(["", "x", "y" * 2000, "y" * 2048, "z" * 5000]),
)
BUTTONS = st.builds(
    Button,
    HARD,
    st.sampled_from(["", "mcp:qr:x", "x" * 64, "ü" * 33]),
    st.sampled_from(["", "x" * 256, "💙" * 129]),
)
CARDS = st.builds(
    Card,
    HARD,
    st.lists(st.builds(Row, HARD, HARD, st.booleans()), max_size=4).map(tuple),
    st.lists(HARD, max_size=3).map(tuple),
    HARD,
    st.lists(HARD, max_size=2).map(tuple),
    st.none() | st.builds(Link, WORDS.filter(str.strip), URLS),
    st.lists(st.lists(BUTTONS, max_size=3).map(tuple), max_size=3).map(tuple),
)


@covers("telegram-limits", "telegram-plain")
@settings(deadline=None)
@given(CARDS, st.sampled_from([MAX_CAPTION_UNITS, 4096]))
def test_whatever_a_card_holds_its_message_keeps_the_limits(card: Card, most: int) -> None:
    drawn = render_card(card, most)
    assert count_utf16_units(drawn.text) <= most
    assert drawn.text == drawn.text.strip()
    assert len(drawn.entities) <= ENTITIES
    # Each entity lies within the text and does not split a character.
    kinds = {kind for kind, _ in seen(drawn)} if drawn.text else set()
    in_text = card.link is not None and card.link.url in drawn.text
    assert kinds <= {"bold", "code", "bot_command"} | ({"url"} if in_text else set())
    if drawn.keyboard is not None:
        read_keyboard(drawn.keyboard.to_json())
    if card.link is not None:
        urls = [
            button.url for row in (drawn.keyboard.inline_keyboard if drawn.keyboard else ()) for button in row
        ]
        assert card.link.url in urls or in_text or drawn.separate_link == card.link


@covers("telegram-limits")
def test_what_is_cut_is_cut_visibly_and_never_in_a_character() -> None:
    assert truncate("abc", 3) == "abc"
    assert truncate("abcd", 3) == "ab…"
    assert truncate("💙💙", 3) == "💙…"
    drawn = render_card(Card("T", code="x" * 5000))
    assert count_utf16_units(drawn.text) == 4096
    assert drawn.text.endswith("x…")
    assert drawn.entities[-1] == MessageEntity(MessageEntity.CODE, 3, 4093)


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
def test_a_button_opens_what_telegram_takes(url: str, *, opens: bool) -> None:
    assert is_button_url(url) is opens
    drawn = render_card(Card("T", link=Link("Open", url)))
    assert (drawn.keyboard is not None) is opens
    if not opens:
        assert url in drawn.text
