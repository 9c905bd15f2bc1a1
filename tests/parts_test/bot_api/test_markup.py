"""`parse_mode` at the Bot API endpoint. The cases document the behaviour of Telegram's parser."""

from __future__ import annotations

import pytest

from tests.parts.bot_api.html_markup import read_html
from tests.parts.bot_api.markdown_markup import read_legacy_markdown, read_markdown_v2
from tests.parts.bot_api.values import ApiError, Entity

Spans = list[tuple[str, int, int]]


def spans(entities: tuple[Entity, ...]) -> Spans:
    ordered = sorted(entities, key=lambda entity: (entity.offset, -entity.length))
    return [(entity.type, entity.offset, entity.length) for entity in ordered]


@pytest.mark.parametrize(
    ("marked", "text", "entities"),
    [
        ("a \\. b", "a . b", []),
        ("*bold _both_*", "bold both", [("bold", 0, 9), ("italic", 5, 4)]),
        ("😀_😀_", "😀😀", [("italic", 2, 2)]),
        ("_a __b___", "a b", [("italic", 0, 3), ("underline", 2, 1)]),
        ("~a~ ||b||", "a b", [("strikethrough", 0, 1), ("spoiler", 2, 1)]),
        ("`_a*`", "_a*", [("code", 0, 3)]),
        ("```py\nx = 1```", "x = 1", [("pre", 0, 5)]),
        ("[a](https://a.example/\\)x)", "a", [("text_link", 0, 1)]),
        ("[a](localhost)", "a", []),
        ("**", "", []),
        (">a\n>b\nc", "a\nb\nc", [("blockquote", 0, 4)]),
        (">a\n>b||\nc", "a\nb\nc", [("expandable_blockquote", 0, 4)]),
    ],
)
def test_markdown_v2_becomes_text_and_entities(marked: str, text: str, entities: Spans) -> None:
    plain_text, parsed = read_markdown_v2(marked)
    assert (plain_text, spans(parsed)) == (text, entities)


@pytest.mark.parametrize(
    ("marked", "reason"),
    [
        ("a.b", "Character '.' is reserved and must be escaped with the preceding '\\'"),
        ("a > b", "Character '>' is reserved and must be escaped with the preceding '\\'"),
        ("😀 _a", "Can't find end of Italic entity at byte offset 5"),
        ("*a _b", "Can't find end of Italic entity at byte offset 3"),
        ("_a__", "Can't find end of Underline entity at byte offset 2"),
        ("```py\nx", "Can't find end of PreCode entity at byte offset 0"),
        ("`a", "Can't find end of Code entity at byte offset 0"),
        ("||a\\|", "Can't find end of Spoiler entity at byte offset 0"),
        ("[a](b", "Can't find end of a URL at byte offset 4"),
        (">*a\nb*", "Can't find end of Bold entity at byte offset 1"),
    ],
)
def test_invalid_markdown_v2_is_refused(marked: str, reason: str) -> None:
    with pytest.raises(ApiError) as refused:
        read_markdown_v2(marked)
    assert refused.value.description == f"Bad Request: can't parse entities: {reason}"


@pytest.mark.parametrize(
    ("marked", "text", "entities"),
    [
        ("<b>a <i>b</i></b>", "a b", [("bold", 0, 3), ("italic", 2, 1)]),
        ("&lt;b&gt; &amp;&quot;&#65;&#x42; &copy;", '<b> &"AB &copy;', []),
        ("<a href='https://a.example/?x=1&amp;y=2'>a</a>", "a", [("text_link", 0, 1)]),
        ('<a href="http://localhost/">a</a>', "a", []),
        ('<pre><code class="language-py">x</code></pre>', "x", [("pre", 0, 1)]),
        ('<span class="tg-spoiler">a</span>', "a", [("spoiler", 0, 1)]),
        ("<blockquote expandable>a</blockquote>", "a", [("expandable_blockquote", 0, 1)]),
    ],
)
def test_html_becomes_text_and_entities(marked: str, text: str, entities: Spans) -> None:
    plain_text, parsed = read_html(marked)
    assert (plain_text, spans(parsed)) == (text, entities)


@pytest.mark.parametrize(
    ("marked", "reason"),
    [
        ("<p>a</p>", 'Unsupported start tag "p" at byte offset 0'),
        ("é < 1", 'Unsupported start tag "" at byte offset 3'),
        ("<b>a", 'Can\'t find end tag corresponding to start tag "b"'),
        ("a</b>", "Unexpected end tag at byte offset 1"),
        ("<b>a</i>", 'Unmatched end tag at byte offset 4, expected "</b>", found "</i>"'),
        ("a<b", "Unclosed start tag at byte offset 1"),
        ("<b>a</b", "Unclosed end tag at byte offset 4"),
        ("<span>a</span>", 'Tag "span" must have class "tg-spoiler" at byte offset 0'),
    ],
)
def test_invalid_html_is_refused(marked: str, reason: str) -> None:
    with pytest.raises(ApiError) as refused:
        read_html(marked)
    assert refused.value.description == f"Bad Request: can't parse entities: {reason}"


def test_legacy_markdown_becomes_text_and_entities() -> None:
    plain_text, parsed = read_legacy_markdown("*a* _b_ `c` [d](https://a.example) \\_")
    assert (plain_text, spans(parsed)) == (
        "a b c d _",
        [("bold", 0, 1), ("italic", 2, 1), ("code", 4, 1), ("text_link", 6, 1)],
    )
    with pytest.raises(ApiError, match="Can't find end of the entity starting at byte offset 1"):
        read_legacy_markdown("a_b")
