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
_TOKENS = [
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


def load_harness(name: str) -> ModuleType:
    return import_module(f"fuzz.{name}")


def mutate_seeds(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Return seeds with a random part replaced."""
    return st.builds(
        lambda seed, start, gone, put: seed[:start] + put + seed[start + gone :],
        st.sampled_from(seeds),
        st.integers(0, max(map(len, seeds))),
        st.integers(0, 20),
        st.lists(st.sampled_from(_TOKENS) | st.binary(max_size=8), max_size=4).map(b"".join),
    )


@pytest.mark.parametrize("name", HARNESSES)
def test_seeds_raise_no_unexpected_error(name: str) -> None:
    for seed in (b"", *load_harness(name).SEEDS):
        load_harness(name).fuzz_one_input(seed)


@covers("no-crash")
@pytest.mark.parametrize("name", HARNESSES)
def test_mutated_seeds_raise_only_mcp_auth_errors(name: str) -> None:
    harness_module = load_harness(name)

    @settings(max_examples=2 * settings().max_examples, deadline=None)
    @given(mutate_seeds(harness_module.SEEDS) | st.binary(max_size=500))
    def check_example(data: bytes) -> None:
        harness_module.fuzz_one_input(data)

    check_example()


@covers("linear")
@pytest.mark.parametrize("name", HARNESSES)
@pytest.mark.parametrize("word", [b"[", b'"', b"a=", b"\\", b" ", b"&amp;", b"Bearer ,", b"${"])
def test_a_long_text_of_one_token_is_parsed_in_linear_time(name: str, word: bytes) -> None:
    # If this test hangs, a parser is quadratic: 200 KB would take an hour. The word is at the start, behind
    # a response head, and within a seed.
    harness_module = load_harness(name)
    seed = harness_module.SEEDS[0]
    for head in (b"", b"\x00\x00", seed[: len(seed) // 2]):
        harness_module.fuzz_one_input(head + word * (200_000 // len(word)))
