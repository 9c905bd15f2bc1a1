"""LineEditor makes lines from bytes, in chunks of any size."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_mcp_auth_remote.terminal.key_sequences import MAX_LINE_CHARS, LineEditor


def feed_chunks(*chunks: bytes) -> list[str | None]:
    editor = LineEditor()
    return [line for chunk in chunks for line in editor.feed(chunk)]


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
def test_bytes_are_decoded_to_lines(data: bytes, lines: list[str | None]) -> None:
    assert feed_chunks(data) == lines
    assert feed_chunks(*(bytes([byte]) for byte in data)) == lines


def test_unfinished_input_becomes_the_last_line() -> None:
    editor = LineEditor()
    editor.feed(b"no line end")
    assert editor.character_count == 11
    assert editor.finish() == ["no line end", None]
    assert editor.finish() == [None]


def test_a_line_is_limited_in_length() -> None:
    editor = LineEditor()
    for _ in range(5):
        editor.feed(b"x" * MAX_LINE_CHARS)
    assert editor.feed(b"\ro\r") == ["x" * MAX_LINE_CHARS, "o"]


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"]), max_size=20), max_size=5))
def test_printable_text_is_unchanged_inside_and_outside_a_paste(lines: list[str]) -> None:
    text = "\r".join(lines)
    assert feed_chunks(f"{text}\r".encode()) == text.split("\r")
    assert feed_chunks(f"\x1b[200~{text}\x1b[201~\r".encode()) == [text.replace("\r", "\n")]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_chunk_boundaries_do_not_change_the_lines(data: bytes, cuts: list[int]) -> None:
    ends = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    chunks = [data[begin:end] for begin, end in itertools.pairwise(ends)]
    assert feed_chunks(*chunks) == feed_chunks(data)


@given(st.binary(max_size=300))
def test_only_tab_and_line_feed_of_the_control_characters_are_kept(data: bytes) -> None:
    for line in feed_chunks(b"\x1b[200~" + data + b"\x1b[201~\r\x1b\\\r"):
        assert not [c for c in line or "" if (c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f"]
