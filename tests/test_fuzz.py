"""Run all fuzz harnesses with the seeds of `make fuzz` and with examples of Hypothesis."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import HARNESSES
from tests.requirements import covers

pytestmark = pytest.mark.slow

# Inputs that break parsers: nesting, huge numbers, half a surrogate pair, NUL, words of the protocol.
_WORDS = [
    b"[" * 1000,
    b'{"' * 100,
    b"1e999",
    b"9" * 5000,
    b"NaN",
    b"\\ud800",
    b"\x00",
    b"\xff\xfe",
    b"null",
    b"true",
    b'":',
    b",",
    b"}",
    b"\n",
    b"&code=",
    b"https://[",
    b"\xe2\x80\xae",
]


def harness(name: str) -> ModuleType:
    return import_module(f"fuzz.{name}")


def mutations(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Return seeds with a random part replaced."""
    return st.builds(
        lambda seed, start, gone, put: seed[:start] + put + seed[start + gone :],
        st.sampled_from(seeds),
        st.integers(0, max(map(len, seeds))),
        st.integers(0, 20),
        st.lists(st.sampled_from(_WORDS) | st.binary(max_size=8), max_size=4).map(b"".join),
    )


@pytest.mark.parametrize("name", HARNESSES)
def test_what_fuzzing_begins_with_is_survived(name: str) -> None:
    for seed in (b"", *harness(name).SEEDS):
        harness(name).fuzz_one_input(seed)


@covers("no-crash")
@pytest.mark.parametrize("name", HARNESSES)
def test_nothing_but_our_own_errors_is_raised(name: str) -> None:
    fuzzed = harness(name)

    @settings(max_examples=150, deadline=None)
    @given(mutations(fuzzed.SEEDS) | st.binary(max_size=500))
    def survived(data: bytes) -> None:
        fuzzed.fuzz_one_input(data)

    survived()


@covers("linear")
@pytest.mark.parametrize("name", HARNESSES)
@pytest.mark.parametrize("word", [b"[", b'"', b"a=", b"\\", b" ", b"&amp;", b"Bearer ,", b"${"])
def test_a_megabyte_of_one_word_is_no_matter(name: str, word: bytes) -> None:
    # If this hangs, a parser is quadratic. The word comes first, behind a response head, and within a seed.
    fuzzed = harness(name)
    seed = fuzzed.SEEDS[0]
    for head in (b"", b"\x00\x00", seed[: len(seed) // 2]):
        fuzzed.fuzz_one_input(head + word * (1_000_000 // len(word)))
