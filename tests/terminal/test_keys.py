"""LineEditor makes lines from bytes, in chunks of any size."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_mcp_auth_remote.terminal.key_sequences import MAX_LINE_CHARS, LineEditor


def typed(*pieces: bytes) -> list[str | None]:
    typing = LineEditor()
    return [line for piece in pieces for line in typing.feed(piece)]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"o\r", ["o"]),
        (b"o\n", ["o"]),
        (b"o\r\nq\r\n", ["o", "q"]),
        (b"\r\r", ["", ""]),
        (b"abc\x7f\x08d\r", ["ad"]),
        (b"\x7f\x7fx\r", ["x"]),
        (b"wrong\x15right\r", ["right"]),
        (b"left\x04more\r", [None]),
        (b"a\x01\x02\x00b\r", ["ab"]),
        ("käse €\r".encode(), ["käse €"]),
        (b"\xff\xfe\r", ["\ufffd\ufffd"]),
        ("a\x9b31mb\r".encode(), ["a31mb"]),
        (b"\x1b[A\x1b[1;5C\x1bOPx\x1b[3~y\r", ["xy"]),
        (b"\x1b]0;title\x07x\x1b]8;;u\x1b\\y\r", ["xy"]),
        (b"\x1bP1$r\x1b\\x\r", ["x"]),
        (b"\x1bq\r", ["q"]),
        (b"\x1b\x1b[Aq\r", ["q"]),
        (b"\x1b]never ended\rq\r", ["", "q"]),
        (b"\x1b[200~one\rtwo\nthree\r\nfour\x1b[201~\r", ["one\ntwo\nthree\nfour"]),
        (b"a\x1b[200~b\x7f\x15\x04\x08\tc\x1b[201~d\x7f\r", ["ab\tc"]),
        (b"\x1b[200~\x1b[31mred\x1b[0m\x1b[201~\r", ["red"]),
        (b"\x1b[200~x", []),
        (b"", []),
    ],
)
def test_what_is_typed_becomes(data: bytes, lines: list[str | None]) -> None:
    assert typed(data) == lines
    assert typed(*(bytes([byte]) for byte in data)) == lines


def test_what_is_left_at_the_end_is_a_line() -> None:
    typing = LineEditor()
    typing.feed(b"no line end")
    assert typing.character_count == 11
    assert typing.finish() == ["no line end", None]
    assert typing.finish() == [None]


def test_a_line_without_end_takes_no_more_memory_than_its_limit() -> None:
    typing = LineEditor()
    for _ in range(5):
        typing.feed(b"x" * MAX_LINE_CHARS)
    assert typing.feed(b"\ro\r") == ["x" * MAX_LINE_CHARS, "o"]


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"]), max_size=20), max_size=5))
def test_printable_text_goes_through_untouched_inside_and_outside_a_paste(lines: list[str]) -> None:
    text = "\r".join(lines)
    assert typed(f"{text}\r".encode()) == text.split("\r")
    assert typed(f"\x1b[200~{text}\x1b[201~\r".encode()) == [text.replace("\r", "\n")]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_where_the_bytes_are_cut_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    ends = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    pieces = [data[begin:end] for begin, end in itertools.pairwise(ends)]
    assert typed(*pieces) == typed(data)


@given(st.binary(max_size=300))
def test_no_control_character_but_tab_and_line_feed_gets_through(data: bytes) -> None:
    for line in typed(b"\x1b[200~" + data + b"\x1b[201~\r\x1b\\\r"):
        assert not [c for c in line or "" if (c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f"]
