"""A card as Discord shows it, within its limits. Text of other users stays text."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway_hooks.dialog.cards import Button, Card, Link, Row, arrange_in_rows
from gateway_hooks.dialog.messages import ENGLISH
from gateway_hooks.discord.render import URL_FILE_NAME, make_answer_modal, read_typed_answer, render_card
from tests.parts.discord_api.components import check_modal
from tests.parts.discord_api.limits import check_message
from tests.requirements import covers


def body_of(card: Card, png: bytes | None = None) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """Return the JSON body and the files that the bot sends for a card."""

    async def draw() -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
        # The library creates views only inside an event loop.
        shown = render_card(card, png)
        body: dict[str, Any] = {"embeds": [embed.to_dict() for embed in shown.embeds]}
        if shown.view is not None:
            body["components"] = shown.view.to_components()
        return body, [(file.filename, file.fp.read()) for file in shown.files]

    return asyncio.run(draw())


def text_of(body: dict[str, Any]) -> str:
    return "\n".join(f"{one.get('title', '')}\n{one.get('description', '')}" for one in body["embeds"])


def buttons_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [button for row in body.get("components", []) for button in row["components"]]


def url_of(length: int) -> str:
    start = "https://as.example/authorize?x="
    return start + "a" * (length - len(start))


@covers("discord-limits")
@pytest.mark.parametrize("length", [100, 512, 513, 3000, 3001, 8192])
def test_an_address_of_any_length_can_be_opened(length: int) -> None:
    url = url_of(length)
    card = Card(
        "Connect notes",
        (Row("Server", "x" * 300, is_quoted=True),) * 6,
        ("p" * 300,) * 5,
        link=Link("Open", url),
    )
    body, files = body_of(card)
    check_message(body, files=len(files))
    links = [button["url"] for button in buttons_of(body) if button.get("url")]
    assert links == ([url] if length <= 512 else [])
    assert (f"<{url}>" in text_of(body)) is (512 < length <= 3000)
    assert files == ([] if length <= 3000 else [(URL_FILE_NAME, url.encode())])


texts = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=300)


@covers("discord-limits")
@settings(deadline=None, max_examples=200)
@given(
    title=texts,
    rows=st.lists(st.builds(Row, texts, texts, st.booleans()), max_size=24).map(tuple),
    paragraphs=st.lists(texts, max_size=5).map(tuple),
    code=st.text("ABC`-", max_size=40),
    names=st.lists(texts, max_size=30, unique=True),
)
@example(title="", rows=(), paragraphs=(), code="", names=[])
def test_no_card_is_refused(
    title: str, rows: tuple[Row, ...], paragraphs: tuple[str, ...], code: str, names: list[str]
) -> None:
    buttons = arrange_in_rows(
        Button(name or "-", f"mcp:connect:{number}") for number, name in enumerate(names)
    )
    body, files = body_of(Card(title or "-", rows, paragraphs, code, buttons=buttons), b"png")
    check_message(body, files=len(files))


@covers("discord-quoted")
@pytest.mark.parametrize(
    "hostile",
    [
        "[Log in](https://evil.example)",
        "https://evil.example",
        "<https://evil.example>",
        "<@80351110224678912> @everyone",
        "`` ` ``` `` [x](https://evil.example)",
        "**bold** __under__ ~~struck~~ ||hidden||",
    ],
)
def test_what_others_wrote_is_text(hostile: str) -> None:
    body, _ = body_of(
        Card(hostile, (Row("As", hostile, is_quoted=True), Row("Is", hostile)), (hostile,), hostile)
    )
    text = text_of(body)
    assert len(text.split("`")) == 1 + 2 + 6, "one piece of inline code, one block"
    inline = text.split("`")[1]
    assert "`" not in inline
    outside = "".join(text.replace(inline, "").split("```")[::2])
    assert "https://evil" not in outside
    for mark in ("[", "]", "<", "|", "_", "~"):
        assert outside.count(mark) == outside.count(f"\\{mark}")


def test_a_button_that_only_copies_is_not_drawn() -> None:
    body, _ = body_of(Card("Code", code="ABCD", buttons=((Button("Copy", copy="ABCD"),),)))
    assert buttons_of(body) == []


@covers("discord-limits")
def test_the_window_for_an_answer_has_room_for_a_long_address() -> None:
    async def made() -> dict[str, Any]:
        return make_answer_modal("mcp:form:" + "x" * 22, ENGLISH).to_dict()

    modal = asyncio.run(made())
    check_modal(modal)
    assert modal["title"] == ENGLISH.form_title
    assert modal["components"][0]["component"]["max_length"] == 4000


@pytest.mark.parametrize(
    "components",
    [
        None,
        [],
        {},
        "x",
        [[]],
        [{"component": None}],
        [{"components": [{"custom_id": "answer"}]}],
        [{"component": {"custom_id": "answer", "value": 7}}],
        [{"component": {"custom_id": "other", "value": "x"}}],
    ],
)
def test_a_window_with_nothing_of_ours_in_it_brings_nothing(components: object) -> None:
    assert read_typed_answer(components) == ""


def test_what_is_typed_is_found_in_a_label_or_in_a_row() -> None:
    field = {"custom_id": "answer", "value": "http://127.0.0.1/"}
    assert (
        read_typed_answer([{"component": field}])
        == read_typed_answer([{"components": [field]}])
        == "http://127.0.0.1/"
    )
