"""Authorization responses from pastes and redirects: mangled, of another login, forged."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from hermes_mcp_auth_remote.errors import AuthorizationDenied, PasteRefused
from hermes_mcp_auth_remote.oauth.paste import MAX_PASTE_CHARS
from hermes_mcp_auth_remote.oauth.redirect import AuthorizationResponse, read_authorization_response
from hermes_mcp_auth_remote.values import Secret
from tests.oauth.builders import ISSUER, REDIRECT_URI, STATE, request, server
from tests.requirements import covers

CODE = "4/0A-c0de_that.was~minted"
URL = f"{REDIRECT_URI}?code=4%2F0A-c0de_that.was~minted&scope=a%20b&state={STATE}"
ISS_SERVER = server(authorization_response_iss_parameter_supported=True)


def read_code(text: str, **members: object) -> str:
    return read_authorization_response(text, request(**members)).code.reveal()


def expect_refusal(text: str, *, accept_bare_code: bool = False, **members: object) -> str:
    """Return the text of the refusal; check that it does not repeat the paste."""
    with pytest.raises(PasteRefused) as caught:
        read_authorization_response(text, request(**members), accept_bare_code=accept_bare_code)
    refusal = f"{caught.value} {caught.value.advice}"
    assert CODE not in refusal
    assert STATE not in refusal
    return refusal


@covers("paste-mangled")
@pytest.mark.parametrize(
    "text",
    [
        URL,
        f"<{URL}>",
        f'"{URL}"',
        f"'{URL}'",
        f"“{URL}”",
        f"`{URL}`",
        f"```\n{URL}\n```",
        f"**{URL}**",
        f"_{URL}_",
        f"||{URL}||",
        f"({URL})",
        f"[{URL}]",
        f"[{URL}]({URL})",
        f"[here](<{URL}>)",
        f'<a href="{URL}">{URL}</a>',
        f"  \n\t {URL} \r\n",
        f"Here you are: {URL}, thanks!",
        f"{URL} that is what it says\nand nothing else",
        f"the address is {URL}.",
        f"网址：{URL}",
        URL.replace("&", "&amp;"),
        URL.replace("&", "&amp;amp;"),
        URL.replace("&", "&#38;"),
        URL.replace("http://", "https://"),
        URL.replace("http://", "HTTP://"),
        f"https://{URL}",
        URL.removeprefix("http://"),
        f"I see {URL.removeprefix('http://')} there",
        URL.removeprefix("http://127.0.0.1:8765"),
        URL.partition("?")[2],
        f"?{URL.partition('?')[2]}",
        URL.replace("?", "#"),
        f"{URL}#_=_",
        f"{URL}#",
        f"{URL}&session_state=1&error_description=",
        quote(URL, safe=""),
        f"see {quote(URL, safe='')} ok",
        URL.replace("?code=4", "?code%3D4")
        .replace("&", "%26")
        .replace("scope=", "scope%3D")
        .replace("state=", "state%3D"),
        f"{URL[:80]}\n{URL[80:]}",
        f"{URL[:40]}\r\n   {URL[40:80]}\r\n   {URL[80:]}\r\nthat is all I see",
        f"{URL[:80]} {URL[80:]}",
        "\u200b".join((URL[:30], URL[30:60], URL[60:])),
        f"\ufeff\u202a{URL}\u202c",
        f"\x1b[200~{URL}\x1b[201~",
        f"\x1b[4m{URL}\x1b[0m",
        f"https://as.example/authorize?x=1 took me to {URL}",
        f"{URL}\n{URL}",
    ],
)
def test_quirk_40_the_code_is_read_from_a_mangled_address(text: str) -> None:
    assert read_code(text) == CODE


@covers("paste-mangled")
@pytest.mark.parametrize("ending", ["*", ")", "'", ".", "!", "$$", "-", "_", "~", "]"])
@pytest.mark.parametrize("wrap", ["<{}>", '"{}"', "({})", "**{}**", "[{}]", "'{}'", "_{}_"])
def test_quirk_40_a_code_between_delimiters_keeps_its_final_punctuation(ending: str, wrap: str) -> None:
    assert read_code(wrap.format(f"{REDIRECT_URI}?state={STATE}&code=c0de{ending}")) == f"c0de{ending}"


# The address with the code at its end. Only in this order, nothing shows where the code ends.
CODE_LAST = f"{REDIRECT_URI}?state={STATE}&code={quote(CODE, safe='')}"


@covers("paste-mangled")
@pytest.mark.parametrize("ending", ["-", "_", "=", "%7E", "%2A", "#", "&x=1"])
def test_quirk_48_a_code_at_the_end_is_read_if_its_end_is_certain(ending: str) -> None:
    assert read_code(f"{CODE_LAST}{ending}").startswith(CODE)
    assert read_code(f"/callback?{CODE_LAST.partition('?')[2]}{ending}").startswith(CODE)


@covers("paste-uncertain")
@pytest.mark.parametrize(
    "text",
    [
        *(f"{CODE_LAST}{junk}" for junk in ("~", "201~", "|text", "*", ")", "'", ".", "!", "$$", "]", "\\")),
        *(f"{CODE_LAST}{junk}" for junk in ("...", "1;2c", "^C", "http", "http:/")),
        *(f"{CODE_LAST}{half}" for half in ("%", "%4", "...abc", "?x")),
        f"<{CODE_LAST}|the page>",
        f"{CODE_LAST} thanks",
        f"{CODE_LAST}\nthanks",
        f"{CODE_LAST[:-3]} {CODE_LAST[-3:]}",
        f"{CODE_LAST[:-3]}\r\n{CODE_LAST[-3:]}",
        f"the page: {CODE_LAST}, it said",
        f"the page: {CODE_LAST}. It said so",
        f"{CODE_LAST[:-3]}{CODE_LAST}",
        f"{CODE_LAST}\n{CODE_LAST}x",
        f"{REDIRECT_URI}?state={STATE}&code={'c' * (4096 - len(REDIRECT_URI) - len(STATE) - 13)}",
    ],
)
def test_quirk_48_a_code_whose_end_is_uncertain_is_not_sent(text: str) -> None:
    if ", it said" in text:
        assert read_code(text) == CODE
        return
    refusal = expect_refusal(text)
    assert "may be incomplete" in refusal or "different codes" in refusal
    assert "quotation marks" in refusal
    # If the user follows the advice, the code is read.
    assert read_code(f'"{CODE_LAST}"') == CODE


@covers("paste-leftovers")
@pytest.mark.parametrize("url", [URL, CODE_LAST], ids=["state last", "code last"])
@pytest.mark.parametrize(
    "mangling",
    [
        "{}[201~",
        "{}^[[201~",
        "[200~{}[201~",
        "^[[200~{}^[[201~",
        "200~{}201~",
        "00~{}01~",
        "0~{}1~",
        "~{}",
        "{}>",
        "{}[O",
        "{}\x1bOP",
        "\x1bOA{}",
        "{}\x1b]11;rgb:0000/1111/2222\x1b\\",
        "{}\x1b]11;rgb:0000/1111/2222\x07",
        "{}\x1bP1+r436f\x1b\\",
        "{}?",
        "<{}|127.0.0.1:8765/callback>",
        "{}[?1;2c",
        "x{}",
        "1;2c{}",
        "[?1;2c{}",
        "^[[?62;22;52c{}",
        "]11;rgb:0000/1111/2222\\{}",
        "{}\n$ ",
        "{}{}",
        "{} {}",
        "{}\r\n{}",
        "x{}{}",
        "{} is the whole address",
    ],
)
def test_quirk_48_leftovers_and_a_doubled_address_are_removed(url: str, mangling: str) -> None:
    assert read_code(mangling.replace("{}", url)) == CODE


@covers("paste-leftovers")
@pytest.mark.parametrize("junk", ["~", "|text", "...", "\\", "^C", "]"])
def test_quirk_48_junk_behind_the_state_is_removed(junk: str) -> None:
    assert read_code(f"{URL}{junk}") == CODE


@covers("paste-mangled")
@pytest.mark.parametrize("width", [40, 57, 80])
@pytest.mark.parametrize("wrap", ["{}", '"{}"', "{}\nthat is it", "{}\n$"])
def test_quirk_40_an_address_that_a_window_wrapped_is_joined(width: int, wrap: str) -> None:
    if width == 57:
        # If two lines have the same length, they reveal an unusual width.
        long_code = f"{CODE_LAST}-and-{'more' * 10}"
        expected = f"{CODE}-and-{'more' * 10}"
    else:
        long_code, expected = CODE_LAST, CODE
    lines = "\n".join(long_code[n : n + width] for n in range(0, len(long_code), width))
    assert read_code(wrap.format(lines)) == expected


@covers("paste-duplicates")
@pytest.mark.parametrize(
    "extra", ["code=other", f"state={STATE}", "state=x", "error=access_denied&error=x", "iss=a&iss=b"]
)
def test_quirk_40_duplicate_parameters_are_refused(extra: str) -> None:
    assert "twice" in expect_refusal(f"{URL}&{extra}")


@covers("paste-foreign")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (URL.replace(STATE, "S" * 43), "another login"),
        (URL.replace(STATE, STATE[:-1]), "another login"),
        (URL.replace(STATE, STATE.lower()), "another login"),
        (URL.replace(f"&state={STATE}", ""), "no state"),
        (URL.replace(STATE, ""), "no state"),
        (f"{REDIRECT_URI}?error=access_denied", "no state"),
        (f"{REDIRECT_URI}?error=access_denied&state=old", "another login"),
        (f"{REDIRECT_URI}?state={STATE}", "no code"),
        (f"{REDIRECT_URI}?state={STATE}&code=", "no code"),
        (REDIRECT_URI, "no code"),
        (URL.replace("8765", "8766"), "does not belong to this login"),
        (URL.replace("/callback", "/callback/other"), "does not belong to this login"),
        (URL.replace("127.0.0.1", "localhost"), "does not belong to this login"),
        (URL.replace("127.0.0.1:8765", "127.0.0.1:8765@evil.example"), "does not belong to this login"),
        (URL.replace("127.0.0.1:8765", "evil.example"), "does not belong to this login"),
        (URL.replace("127.0.0.1:8765", "evil@127.0.0.1:8765"), "does not belong to this login"),
        (f"https://evil.example/{URL}", "does not belong to this login"),
        (URL.replace(":8765", ":http"), "not an address"),
        (URL.replace("127.0.0.1:8765", "[::1"), "not an address"),
        (f"{ISSUER}/authorize?code={CODE}&state={STATE}", "address at the provider"),
        (URL.replace("?code=4%2F0A", "?code=%00%0d%0a"), "damaged"),
        (URL.replace("?code=4%2F0A", "?code=%ff"), "damaged"),
        ("", "Nothing was pasted"),
        (" \n ", "Nothing was pasted"),
        ("\u200b\ufeff", "not the address"),
        ("hello there, what do I do?", "not the address"),
        ("\x00\x01\x02\x03", "not the address"),
        ("\ud800\udfff" * 20, "not the address"),
        ("a" * (MAX_PASTE_CHARS + 1), "too long"),
        (URL + "a" * MAX_PASTE_CHARS, "too long"),
        ("file:///etc/passwd", "not the address"),
        ("javascript:alert(document.cookie)", "alone"),
    ],
)
def test_quirk_41_a_wrong_paste_is_refused_and_the_next_one_works(text: str, expected: str) -> None:
    login_request = request()
    with pytest.raises(PasteRefused) as caught:
        read_authorization_response(text, login_request)
    assert expected in f"{caught.value} {caught.value.advice}"
    assert read_authorization_response(URL, login_request).code == Secret(CODE)


@covers("paste-foreign")
def test_reading_the_same_paste_twice_gives_equal_responses() -> None:
    login_request = request()
    first, second = (read_authorization_response(URL, login_request) for _ in range(2))
    assert first == second


@covers("iss-mismatch")
@pytest.mark.parametrize(
    "iss",
    [
        "https://evil.example",
        f"{ISSUER}/",
        "https://AS.example",
        f"{ISSUER}:443",
        "",
        "https%3A%2F%2Fas.example",
    ],
)
@pytest.mark.parametrize(
    "parameters", [f"code={CODE}", "error=access_denied&error_description=Call+555-1234"]
)
def test_quirk_39_a_wrong_iss_is_refused_and_its_error_is_not_shown(iss: str, parameters: str) -> None:
    refusal = expect_refusal(f"{REDIRECT_URI}?{parameters}&state={STATE}&iss={quote(iss, safe='')}")
    assert "another authorization server" in refusal
    assert "555" not in refusal
    assert "denied" not in refusal


@covers("iss-mismatch")
@pytest.mark.parametrize("kept_chars", range(len(quote(ISSUER, safe=""))))
def test_an_address_that_is_cut_off_in_its_iss_says_so(kept_chars: int) -> None:
    """The cut may be inside a percent-encoded character."""
    refusal = expect_refusal(f"{URL}&iss={quote(ISSUER, safe='')[:kept_chars]}")
    assert "cut off" in refusal
    assert "Copy the whole address" in refusal


@covers("iss-mismatch")
def test_quirk_39_iss_is_compared_if_present_and_required_if_advertised() -> None:
    right = f"{URL}&iss={quote(ISSUER, safe='')}"
    assert read_code(right) == CODE
    assert read_code(right, authorization_server=ISS_SERVER) == CODE
    assert read_code(f"{URL}&iss={ISSUER}", authorization_server=ISS_SERVER) == CODE
    assert "does not say which server responded" in expect_refusal(URL, authorization_server=ISS_SERVER)
    denied = f"{REDIRECT_URI}?error=access_denied&state={STATE}"
    assert "does not say which server responded" in expect_refusal(denied, authorization_server=ISS_SERVER)


@covers("iss-mismatch")
def test_quirk_39_another_iss_is_accepted_only_if_exactly_trusted() -> None:
    text = f"{URL}&iss=https%3A%2F%2Fwww.other.example"
    assert read_code(text, trusted_issuers=frozenset({"https://www.other.example", ISSUER})) == CODE
    expect_refusal(text, trusted_issuers=frozenset({"https://www.other.example/", ISSUER}))
    # If the answer were accepted, a server that the operator does not trust could impersonate the login's
    # issuer.
    expect_refusal(text, trusted_issuers=frozenset({"https://www.other.example"}))


@covers("invalid-scope", "no-secret")
@pytest.mark.parametrize(
    ("query", "error", "advice"),
    [
        ("error=access_denied", "access_denied", ""),
        ("error=invalid_scope&error_description=bad", "invalid_scope", "oauth.scope"),
        ("error=invalid_target", "invalid_target", "oauth.resource"),
        ("error=server_error&code=x", "server_error", "few minutes"),
        ("error=%3Cscript%3E", "unknown error", ""),
        ("error=", "unknown error", ""),
        (f"error={STATE}", "unknown error", ""),
        (f"error=the-{CODE[6:16]}&code={CODE[6:16]}", "unknown error", ""),
    ],
)
def test_quirk_25_an_error_response_ends_the_login_without_its_description(
    query: str, error: str, advice: str
) -> None:
    with pytest.raises(AuthorizationDenied) as caught:
        read_authorization_response(f"{REDIRECT_URI}?{query}&state={STATE}", request())
    assert caught.value.error == error
    assert advice in caught.value.advice
    error_text = f"{caught.value} {caught.value.advice} {caught.value!r}"
    for part in (STATE, "script", "bad", "c0de"):
        assert part not in error_text


@covers("bare-code")
@pytest.mark.parametrize(
    "text",
    [CODE, f"<{CODE}>", f" `{CODE}`\n", f"“{CODE}”", quote(CODE, safe=""), f"{CODE[:9]}\u200b{CODE[9:]}"],
)
def test_a_bare_code_is_accepted_only_if_allowed(text: str) -> None:
    response = read_authorization_response(text, request(), accept_bare_code=True)
    assert response == AuthorizationResponse(
        Secret(CODE), is_bare=True, construction_key=response.construction_key
    )
    assert "alone" in expect_refusal(text)
    assert "is not enough" in expect_refusal(text, accept_bare_code=True, authorization_server=ISS_SERVER)


@covers("bare-code")
def test_a_code_with_its_state_after_a_hash_is_accepted() -> None:
    response = read_authorization_response(f"{CODE}#{STATE}", request())
    assert (response.code, response.is_bare) == (Secret(CODE), False)
    assert "another login" in expect_refusal(f"{CODE}#other", accept_bare_code=True)
    assert "not the address" in expect_refusal(f"{CODE}#{STATE}#x", accept_bare_code=True)
    assert "is not enough" in expect_refusal(f"{CODE}#{STATE}", authorization_server=ISS_SERVER)


@covers("bare-code")
@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "thank you very much",
        f"{CODE}&scope=a",
        "ftp://h.example/x",
        "кодкодкодкод",
        "callback?code-x-y",
    ],
)
def test_ordinary_text_is_not_a_bare_code(text: str) -> None:
    assert "not the address" in expect_refusal(text, accept_bare_code=True)


@covers("one-door")
def test_only_the_reader_can_construct_a_response() -> None:
    with pytest.raises(TypeError, match="only comes out of"):
        AuthorizationResponse(Secret(CODE), is_bare=False, construction_key=object())


@covers("no-secret")
def test_a_response_masks_its_code() -> None:
    assert CODE not in repr(read_authorization_response(URL, request()))


@pytest.mark.parametrize(
    "uri", ["https://hermes.example/mcp/callback", "http://127.0.0.1:8765", "http://[::1]:9/c"]
)
def test_redirect_uris_are_read_as_browsers_normalise_them(uri: str) -> None:
    normalised = uri if uri.count("/") > 2 else f"{uri}/"
    assert read_code(f"{normalised}?code={CODE}&state={STATE}", redirect_uri=uri) == CODE


def test_a_paste_for_a_remote_redirect_uri_must_have_its_scheme() -> None:
    uri = "https://hermes.example/callback"
    refusal = expect_refusal(f"http://hermes.example/callback?code={CODE}&state={STATE}", redirect_uri=uri)
    assert "does not belong to this login" in refusal
