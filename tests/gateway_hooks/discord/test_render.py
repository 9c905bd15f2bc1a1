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


def render_body(card: Card, png: bytes | None = None) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """Return the JSON body and the files that the bot sends for a card."""

    async def render_in_loop() -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
        # The library creates views only inside an event loop.
        rendered = render_card(card, png)
        body: dict[str, Any] = {"embeds": [embed.to_dict() for embed in rendered.embeds]}
        if rendered.view is not None:
            body["components"] = rendered.view.to_components()
        return body, [(file.filename, file.fp.read()) for file in rendered.files]

    return asyncio.run(render_in_loop())


def embed_texts(body: dict[str, Any]) -> str:
    return "\n".join(f"{embed.get('title', '')}\n{embed.get('description', '')}" for embed in body["embeds"])


def buttons_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    return [button for row in body.get("components", []) for button in row["components"]]


def url_with_length(length: int) -> str:
    start = "https://as.example/authorize?x="
    return start + "a" * (length - len(start))


@covers("discord-limits")
@pytest.mark.parametrize("length", [100, 512, 513, 3000, 3001, 8192])
def test_url_of_any_length_can_be_opened(length: int) -> None:
    url = url_with_length(length)
    card = Card(
        "Connect notes",
        (Row("Server", "x" * 300, is_quoted=True),) * 6,
        ("p" * 300,) * 5,
        link=Link("Open", url),
    )
    body, files = render_body(card)
    check_message(body, files=len(files))
    links = [button["url"] for button in buttons_of(body) if button.get("url")]
    assert links == ([url] if length <= 512 else [])
    assert (f"<{url}>" in embed_texts(body)) is (512 < length <= 3000)
    assert files == ([] if length <= 3000 else [(URL_FILE_NAME, url.encode())])


TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=300)


@covers("discord-limits")
@settings(deadline=None, max_examples=200)
@given(
    title=TEXTS,
    rows=st.lists(st.builds(Row, TEXTS, TEXTS, st.booleans()), max_size=24).map(tuple),
    paragraphs=st.lists(TEXTS, max_size=5).map(tuple),
    code=st.text("ABC`-", max_size=40),
    names=st.lists(TEXTS, max_size=30, unique=True),
)
@example(title="", rows=(), paragraphs=(), code="", names=[])
def test_any_card_is_a_valid_message(
    title: str, rows: tuple[Row, ...], paragraphs: tuple[str, ...], code: str, names: list[str]
) -> None:
    buttons = arrange_in_rows(
        Button(name or "-", f"mcp:connect:{number}") for number, name in enumerate(names)
    )
    body, files = render_body(Card(title or "-", rows, paragraphs, code, buttons=buttons), b"png")
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
def test_foreign_text_has_no_markup(hostile: str) -> None:
    body, _ = render_body(
        Card(hostile, (Row("As", hostile, is_quoted=True), Row("Is", hostile)), (hostile,), hostile)
    )
    text = embed_texts(body)
    assert len(text.split("`")) == 1 + 2 + 6, "one piece of inline code, one block"
    inline = text.split("`")[1]
    assert "`" not in inline
    outside = "".join(text.replace(inline, "").split("```")[::2])
    assert "https://evil" not in outside
    for mark in ("[", "]", "<", "|", "_", "~"):
        assert outside.count(mark) == outside.count(f"\\{mark}")


def test_copy_button_is_not_rendered() -> None:
    body, _ = render_body(Card("Code", code="ABCD", buttons=((Button("Copy", copy="ABCD"),),)))
    assert buttons_of(body) == []


@covers("discord-limits")
def test_answer_modal_accepts_long_address() -> None:
    async def make_modal_dict() -> dict[str, Any]:
        return make_answer_modal("mcp:form:" + "x" * 22, ENGLISH).to_dict()

    modal = asyncio.run(make_modal_dict())
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
def test_modal_without_answer_field_gives_no_answer(components: object) -> None:
    assert read_typed_answer(components) == ""


def test_typed_answer_is_read_from_label_or_row() -> None:
    field = {"custom_id": "answer", "value": "http://127.0.0.1/"}
    assert (
        read_typed_answer([{"component": field}])
        == read_typed_answer([{"components": [field]}])
        == "http://127.0.0.1/"
    )
