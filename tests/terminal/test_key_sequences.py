"""LineEditor makes texts from bytes, in chunks of any size."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_mcp_auth_remote.terminal.key_sequences import (
    LOST_MARK_SECONDS,
    MAX_LINE_CHARS,
    PASTE_PAUSE_SECONDS,
    TYPING_PAUSE_SECONDS,
    LineEditor,
)
from tests.requirements import covers


def feed_chunks(*chunks: bytes) -> list[str | None]:
    """Feed chunks that arrive together. Return their texts; a None at the end stands for Ctrl-D."""
    editor = LineEditor()
    texts: list[str | None] = [text for chunk in chunks for text in editor.feed(chunk)]
    if editor.is_complete:
        texts.append(editor.take_text())
    return [*texts, None] if editor.is_ended else texts


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"o\r", ["o"]),
        (b"o\n", ["o"]),
        (b"o\r\nq\r\n", ["o\nq"]),
        (b"o\r\nq", []),
        (b"\r\r", ["\n"]),
        (b"abc\x7f\x08d\r", ["ad"]),
        (b"\x7f\x7fx\r", ["x"]),
        (b"wrong\x15right\r", ["right"]),
        (b"left\x04more\r", [None]),
        (b"right\r\x04more\r", ["right", None]),
        (b"one line\rhalf of another\x04", [None]),
        (b"a\x01\x02\x00b\r", ["ab"]),
        ("käse €\r".encode(), ["käse €"]),
        (b"\xff\xfe\r", ["\ufffd\ufffd"]),
        ("a\x9b31mb\r".encode(), ["a31mb"]),
        (b"\x1b[A\x1b[1;5C\x1bOPx\x1b[3~y\r", ["xy"]),
        (b"\x1b]0;title\x07x\x1b]8;;u\x1b\\y\r", ["xy"]),
        (b"\x1bP1$r\x1b\\x\r", ["x"]),
        (b"\x1bq\r", ["q"]),
        (b"\x1b\x1b[Aq\r", ["q"]),
        (b"\x1b]never ended\rq\r", ["\nq"]),
        (b"\x1b[200~a\x1b[201~\ro\rq\r", ["a", "o\nq"]),
        (b"\x1b[200~a\x1b[201~b\rq\r", ["ab\nq"]),
        (b"\x1b[200~a\x1b[99;5uz\x1b[201~\r", ["az"]),
        (b"wrong\x1b[117;5uright\x1b[13u", ["right"]),
        (b"wrong\x1b[27;5;117~right\r", ["right"]),
        (b"wrong\x1b[117;5:1uright\x1b[117;5:3u\r", ["right"]),
        (b"wrong\x1b[117:85;69uright\x1b[57414u", ["right"]),
        (b"wrong\x1b[85;6uright\r", ["right"]),
        (b"wrong\x17right\r", ["right"]),
        (b"x\x1b[104;5u\x1b[127u\x1b[8;1uy\r", ["y"]),
        (b"\x1b[97u\x1b[97;2;65u\x1b[97;;8364:99u\x1b[97;3u\x1b[27u\r", ["aA€c"]),
        (b"a\x1b[100;5u", [None]),
        (b"a\x1b[27;5;100~", [None]),
        (b"\x1b[9999999;5u\x1b[27;5;9999999~\x1b[57399;133u\x1b[u\x1b[?1ux\r", ["x"]),
        (b"\x1b[?1;2c\x1b[I\x1b[Ox\x1b[3;1R\r", ["x"]),
        (b"\x1b[200~one\rtwo\nthree\r\nfour\x1b[201~\r", ["one\ntwo\nthree\nfour"]),
        (b"a\x1b[200~b\x7f\x15\x04\x08\tc\x1b[201~d\x7f\r", ["ab\tc"]),
        (b"\x1b[200~\x1b[31mred\x1b[0m\x1b[201~\r", ["red"]),
        (b"\x1b[200~x", []),
        (b"", []),
    ],
)
def test_bytes_are_decoded_to_texts(data: bytes, lines: list[str | None]) -> None:
    assert feed_chunks(data) == lines
    assert feed_chunks(*(bytes([byte]) for byte in data)) == lines


def test_unfinished_input_is_the_last_text() -> None:
    editor = LineEditor()
    editor.feed(b"no line end")
    assert editor.character_count == 11
    assert not editor.is_complete
    assert editor.take_text() == "no line end"
    assert editor.take_text() is None


@covers("paste-together")
def test_a_long_text_waits_longer_than_a_typed_word_for_its_next_line() -> None:
    editor = LineEditor()
    editor.feed(b"code\r")
    assert (editor.is_complete, editor.pause_seconds) == (True, TYPING_PAUSE_SECONDS)
    editor.feed(b"http://127.0.0.1:1/callback\r")
    assert (editor.is_complete, editor.pause_seconds) == (True, PASTE_PAUSE_SECONDS)
    assert editor.character_count == 32
    assert editor.take_text() == "code\nhttp://127.0.0.1:1/callback"


@covers("csi-u")
@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"x\x1b[99;5u", ["\x03"]),
        (b"x\x1b[27;5;99~", ["\x03"]),
        (b"x\x1b[122;5u\x1b[92;5u", ["\x1a", "\x1c"]),
        (b"x\x1b[99;5:3u\x1b[99;3u\x1b[99u\x1b[99;2u", []),
        (b"\x1b[200~\x1b[99;5u\x03\x1b[201~", []),
    ],
)
def test_signal_keys_that_arrive_as_sequences_are_reported(data: bytes, keys: list[str]) -> None:
    editor = LineEditor()
    assert editor.feed(data) == []
    assert editor.signal_keys == keys


def test_a_paste_whose_end_mark_was_lost_ends_with_an_enter_key() -> None:
    editor = LineEditor()
    assert editor.feed(b"\x1b[200~one\rtwo") == []
    assert editor.feed(b"\r", idle_seconds=LOST_MARK_SECONDS / 2) == []
    assert editor.feed(b"\r", idle_seconds=LOST_MARK_SECONDS) == ["one\ntwo\n"]
    assert editor.feed(b"typed\r") == []
    assert editor.take_text() == "typed"


def test_a_text_is_limited_in_length() -> None:
    editor = LineEditor()
    for _ in range(5):
        editor.feed(b"x" * MAX_LINE_CHARS)
    editor.feed(b"\ro\r")
    assert editor.take_text() == "x" * MAX_LINE_CHARS
    assert editor.take_text() is None


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"]), max_size=20), max_size=5))
def test_printable_text_is_unchanged_inside_and_outside_a_paste(lines: list[str]) -> None:
    text = "\r".join(lines)
    assert feed_chunks(f"{text}\r".encode()) == [text.replace("\r", "\n")]
    assert feed_chunks(f"\x1b[200~{text}\x1b[201~\r".encode()) == [text.replace("\r", "\n")]


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=5))
def test_chunk_boundaries_do_not_change_the_texts(data: bytes, cuts: list[int]) -> None:
    ends = sorted({0, len(data), *(min(cut, len(data)) for cut in cuts)})
    chunks = [data[begin:end] for begin, end in itertools.pairwise(ends)]
    assert feed_chunks(*chunks) == feed_chunks(data)


@given(st.binary(max_size=300))
def test_only_tab_and_line_feed_of_the_control_characters_are_kept(data: bytes) -> None:
    for line in feed_chunks(b"\x1b[200~" + data + b"\x1b[201~\r\x1b\\\r"):
        assert not [c for c in line or "" if (c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f"]
