"""Every pasted text gives the code or a refusal that repeats nothing from it, without a stall."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import quote, urlencode

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hermes_mcp_auth_remote.errors import McpAuthError, PasteRefused
from hermes_mcp_auth_remote.oauth import paste
from hermes_mcp_auth_remote.oauth.redirect import read_authorization_response
from hermes_mcp_auth_remote.values import Secret
from tests.oauth.builders import ISSUER, REDIRECT_URI, STATE, request
from tests.requirements import covers

# RFC 6749 appendix A.11: any printable ASCII. `urlencode` encodes it as a server does.
CODES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=80)
PROSE = st.lists(
    st.sampled_from(["so", "here", "it is", "I think?", "ok", "the page says", "…"]), max_size=3
).map(" ".join)


def wrap_lines(text: str, width: int) -> str:
    return "\n".join(text[n : n + width] for n in range(0, len(text), width))


MANGLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "angle brackets": "<{}>".format,
    "double quotes": '"{}"'.format,
    "typographic quotes": "“{}”".format,
    "back quotes": "`{}`".format,
    "a code block": "```\n{}\n```".format,
    "a markdown link": "[the page]({})".format,
    "bold": "**{}**".format,
    "spoiler": "||{}||".format,
    "&amp;": lambda url: url.replace("&", "&amp;"),
    "https added": lambda url: url.replace("http://", "https://", 1),
    "scheme hidden": lambda url: url.removeprefix("http://"),
    "wrapped at 80 columns": lambda url: wrap_lines(url, 80),
    "wrapped at 40 columns": lambda url: wrap_lines(url, 40),
    "zero-width spaces": "\u200b".join,
    "percent-encoded as a whole": lambda url: quote(url, safe=""),
    "bracketed paste": "\x1b[200~{}\x1b[201~".format,
    "surrounding white space": "\n\t {} \t".format,
}


@covers("paste-mangled")
@given(
    CODES, st.permutations(["code", "state", "iss", "scope"]), st.sampled_from(list(MANGLINGS)), PROSE, PROSE
)
def test_the_code_of_any_valid_address_survives_any_mangling(
    code: str, order: list[str], mangling: str, before: str, after: str
) -> None:
    if before or after:
        # In a sentence, a final full stop may belong to the code or to the sentence. So the code must not end
        # with one.
        code += "x"
    values = {"code": code, "state": STATE, "iss": ISSUER, "scope": "a b"}
    url = f"{REDIRECT_URI}?{urlencode([(name, values[name]) for name in order])}"
    text = MANGLINGS[mangling](url)
    if "wrapped" not in mangling:
        # Prose on the line of a wrapped address cannot be distinguished from the address.
        text = f"{before} {text} {after}"
    is_end_uncertain = order[-1] == "code" and (
        code[-1] in ".~" or "..." in code or "http" in code or len(after.split()) == 1
    )
    if is_end_uncertain:
        with suppress(PasteRefused):
            assert read_authorization_response(text, request()).code == Secret(code)
    else:
        assert read_authorization_response(text, request()).code == Secret(code)


@covers("no-crash", "no-secret", "paste-foreign")
@given(
    text=st.text(max_size=300)
    | st.builds(
        "{}{}".format, st.sampled_from([REDIRECT_URI + "?", "http://", "/callback?", "code=", "?"]), st.text()
    )
    | st.binary(max_size=300).map(lambda raw: raw.decode("utf-8", "surrogateescape")),
    bare=st.booleans(),
)
def test_any_text_without_the_state_is_refused_or_a_bare_code(text: str, *, bare: bool) -> None:
    assume(STATE not in text)
    try:
        response = read_authorization_response(text, request(), accept_bare_code=bare)
    except PasteRefused:
        return
    assert bare
    assert response.is_bare


@covers("no-secret")
@given(
    st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=12, max_size=43),
    st.sampled_from(
        ["error={s}", "code={s}&error={s}", "code={s}&iss={s}", "code={s}&code={s}", "code={s}%00", "{s}=1"]
    ),
    st.sampled_from([STATE, "another-state", ""]),
    st.sampled_from(
        [REDIRECT_URI, "http://127.0.0.1:1/{s}", "https://as.example/{s}", "https://{s}.example/", "", "{s} "]
    ),
)
def test_a_refusal_repeats_nothing_from_the_paste(secret: str, query: str, state: str, base_url: str) -> None:
    text = f"{base_url}?{query}&state={state}".format(s=secret)
    try:
        read_authorization_response(text, request(), accept_bare_code=False)
    except McpAuthError as error:
        # A refusal may contain a known error code. A random secret of 12 characters matches none.
        refusal = f"{error} {error.advice} {error!r} {error.args}"
        if query != "error={s}":
            assert secret not in refusal
        assert STATE not in refusal
        last = "".join(traceback.format_exception_only(error))
        assert STATE not in last


@covers("linear")
@pytest.mark.parametrize(
    "unit",
    [
        "](a",
        "((((",
        "https://",
        f"{REDIRECT_URI}?code=a ",
        "&a=b",
        "&amp;",
        "%3d",
        "\u200b",
        "\x1b[",
        "a\n",
        "[x](",
        "<",
        "\ud800",
    ],
)
def test_a_long_hostile_paste_is_refused_in_linear_time(unit: str) -> None:
    for length in (1_000_000, paste.MAX_PASTE_CHARS):
        text = (f"{REDIRECT_URI}?" + unit * (length // len(unit)))[:length]
        with pytest.raises(PasteRefused):
            read_authorization_response(text, request())
        with pytest.raises(PasteRefused):
            read_authorization_response(unit * (length // len(unit)), request(), accept_bare_code=False)


@covers("linear")
def test_the_number_of_candidates_of_a_paste_is_limited() -> None:
    address = f"{REDIRECT_URI}?code=a "
    most = 4 * 3 * 2 * (paste.MAX_ADDRESSES + 1)
    candidates = [it for readings in paste.extract_candidates(address * 500, REDIRECT_URI) for it in readings]
    assert len(candidates) <= most
