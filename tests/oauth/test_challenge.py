"""WWW-Authenticate -> Challenge: header lines of real servers and of hostile ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_mcp_auth_remote.oauth.challenge import MAX_RESOURCE_METADATA_URLS, Challenge, read_challenge
from tests.exchange_script import read_sample
from tests.requirements import covers

M = "https://mcp.example/.well-known/oauth-protected-resource"


@covers("challenge-odd")
@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([f'Bearer resource_metadata="{M}", scope="a b"'], Challenge((M,), frozenset("ab"))),
        ([f"Bearer resource_metadata='{M}', scope='a b'"], Challenge((M,), frozenset("ab"))),
        ([f"Bearer resource_metadata={M}"], Challenge((M,))),
        ([f'Bearer   resource_metadata = "{M}" ,,  scope= "a"  '], Challenge((M,), frozenset("a"))),
        ([f'bearer,resource_metadata="{M}"'], Challenge((M,))),
        ([f'BEARER RESOURCE_METADATA="{M}"'], Challenge((M,))),
        ([f'Basic realm="x, y", Bearer realm="r", resource_metadata="{M}"'], Challenge((M,))),
        ([f'Negotiate abcd==, Bearer resource_metadata="{M}"'], Challenge((M,))),
        (['Basic realm="x"', f'Bearer resource_metadata="{M}"'], Challenge((M,))),
        ([f'Bearer resource_metadata="{M}"', 'Bearer scope="a"'], Challenge((M,), frozenset("a"))),
        (
            [f'DPoP algs="ES256", resource_metadata="{M}", scope="a"'],
            Challenge((M,), frozenset("a"), is_dpop_only=True),
        ),
        (['Bearer scope="a", scope="b"'], Challenge(scope=frozenset("ab"))),
        ([rf'Bearer realm="say \"hi\", you", resource_metadata="{M}"'], Challenge((M,))),
        (
            ['Bearer error="insufficient_scope", scope="w"'],
            Challenge((), frozenset("w"), "insufficient_scope"),
        ),
        (['Bearer scope=""'], Challenge()),
        (["Bearer"], Challenge()),
        ([""], Challenge()),
        ([], Challenge()),
        ([f'Basic resource_metadata="{M}"'], Challenge((M,))),
        ([f'resource_metadata="{M}"'], Challenge()),
        ([f'Bearer realm="open, resource_metadata="{M}"'], Challenge()),
        (['Bearer scope="a <@everyone> b\x1b[31m c"'], Challenge(scope=frozenset({"a", "<@everyone>", "c"}))),
    ],
    ids=[
        "as the specification writes it",
        "single quotes",
        "no quotes",
        "odd spaces and empty elements",
        "comma after the scheme",
        "upper case",
        "Basic first, commas in its realm",
        "Negotiate with a token68 first",
        "several header lines",
        "Bearer in two lines",
        "DPoP",
        "scope twice",
        "escaped quotes",
        "insufficient_scope",
        "empty scope",
        "only the scheme",
        "empty line",
        "no line",
        "only Basic",
        "no scheme",
        "unterminated quote",
        "invalid scope characters",
    ],
)
def test_quirk_9_unusual_header_lines_still_name_the_metadata_url(
    lines: list[str], expected: Challenge
) -> None:
    assert read_challenge(lines) == expected


@covers("prm-second")
def test_quirk_8_two_resource_metadata_parameters_keep_their_order() -> None:
    challenge = read_challenge([read_sample("sentry/challenge").decode()])
    base = "https://mcp.sentry.example/.well-known/oauth-protected-resource"
    assert challenge.resource_metadata == (f"{base}/gone", f"{base}/mcp")
    assert challenge.error == "invalid_token"


@covers("fetch-bounds")
def test_the_number_of_metadata_urls_of_a_challenge_is_limited() -> None:
    line = "Bearer " + ", ".join(f'resource_metadata="https://h.example/{n}"' for n in range(100))
    assert len(read_challenge([line]).resource_metadata) == MAX_RESOURCE_METADATA_URLS


@covers("no-crash")
@given(st.lists(st.text(max_size=200) | st.from_regex(r"(Bearer|DPoP) ?([a-z]+ ?= ?[\"']?.*[\"']?,?)*")))
def test_no_header_lines_raise_an_exception(lines: list[str]) -> None:
    challenge = read_challenge(lines)
    assert challenge.scope is None or all(word.isascii() and " " not in word for word in challenge.scope)


@covers("linear")
@pytest.mark.parametrize(
    "unit",
    [
        'a="',
        "a='",
        'a="\\',
        'Bearer a="\\"',
        "a ",
        "=",
        ",",
        "a=" * 40 + '"',
        "a" * 100,
        "resource_metadata=x",
    ],
)
@pytest.mark.parametrize("in_lines", [False, True])
def test_a_hostile_header_of_a_megabyte_is_read_in_linear_time(unit: str, in_lines: bool) -> None:  # noqa: FBT001
    text = "Bearer " + unit * (1_000_000 // len(unit))
    lines = [text[n : n + 1000] for n in range(0, len(text), 1000)] if in_lines else [text]
    assert len(read_challenge(lines).resource_metadata) <= MAX_RESOURCE_METADATA_URLS
