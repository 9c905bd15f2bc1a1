"""Authorization responses from pastes and redirects: mangled, of another login, forged."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from hermes_mcp_auth_remote.errors import AuthorizationDenied, PasteRefused
from hermes_mcp_auth_remote.oauth.paste import MAX_PASTE_CHARS
from hermes_mcp_auth_remote.oauth.redirect import AuthorizationResponse, read_authorization_response
from hermes_mcp_auth_remote.values import Secret
from tests.oauth.parties import ISSUER, REDIRECT_URI, STATE, request, server
from tests.requirements import covers

CODE = "4/0A-c0de_that.was~minted"
URL = f"{REDIRECT_URI}?code=4%2F0A-c0de_that.was~minted&scope=a%20b&state={STATE}"
WITH_ISS = server(authorization_response_iss_parameter_supported=True)


def code_of(text: str, **members: object) -> str:
    return read_authorization_response(text, request(**members)).code.reveal()


def refused(text: str, *, accept_bare_code: bool = False, **members: object) -> str:
    """Return the text of the refusal; check that it does not repeat the paste."""
    with pytest.raises(PasteRefused) as caught:
        read_authorization_response(text, request(**members), accept_bare_code=accept_bare_code)
    told = f"{caught.value} {caught.value.advice}"
    assert CODE not in told
    assert STATE not in told
    return told


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
def test_quirk_40_what_phones_chats_and_terminals_do_to_an_address_is_undone(text: str) -> None:
    assert code_of(text) == CODE


@covers("paste-mangled")
@pytest.mark.parametrize("ending", ["*", ")", "'", ".", "!", "$$", "-", "_", "~", "]"])
@pytest.mark.parametrize(
    "wrap", ["{}", "<{}>", '"{}"', "({})", "**{}**", "[{}]", "'{}'", "_{}_", "/callback?{query}"]
)
def test_quirk_40_a_code_that_ends_in_punctuation_keeps_it(ending: str, wrap: str) -> None:
    query = f"state={STATE}&code=c0de{ending}"
    assert code_of(wrap.format(f"{REDIRECT_URI}?{query}", query=query)) == f"c0de{ending}"


@covers("paste-duplicates")
@pytest.mark.parametrize(
    "extra", ["code=other", f"state={STATE}", "state=x", "error=access_denied&error=x", "iss=a&iss=b"]
)
def test_quirk_40_two_code_parameters_or_two_of_any_are_refused(extra: str) -> None:
    assert "twice" in refused(f"{URL}&{extra}")


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
def test_quirk_41_a_wrong_old_or_foreign_paste_is_refused_and_the_next_one_works(
    text: str, expected: str
) -> None:
    waiting = request()
    with pytest.raises(PasteRefused) as caught:
        read_authorization_response(text, waiting)
    assert expected in f"{caught.value} {caught.value.advice}"
    assert read_authorization_response(URL, waiting).code == Secret(CODE)


@covers("paste-foreign")
def test_a_repeated_paste_reads_the_same_so_single_use_is_the_login_table_s() -> None:
    waiting = request()
    first, again = (read_authorization_response(URL, waiting) for _ in range(2))
    assert first == again


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
def test_quirk_39_a_wrong_iss_is_refused_without_normalising_and_its_error_not_shown(
    iss: str, parameters: str
) -> None:
    told = refused(f"{REDIRECT_URI}?{parameters}&state={STATE}&iss={quote(iss, safe='')}")
    assert "another authorization server" in told
    assert "555" not in told
    assert "denied" not in told


@covers("iss-mismatch")
def test_quirk_39_iss_is_compared_where_present_and_required_where_promised() -> None:
    right = f"{URL}&iss={quote(ISSUER, safe='')}"
    assert code_of(right) == CODE
    assert code_of(right, authorization_server=WITH_ISS) == CODE
    assert code_of(f"{URL}&iss={ISSUER}", authorization_server=WITH_ISS) == CODE
    assert "promises to say who it is" in refused(URL, authorization_server=WITH_ISS)
    denied = f"{REDIRECT_URI}?error=access_denied&state={STATE}"
    assert "promises to say who it is" in refused(denied, authorization_server=WITH_ISS)


@covers("iss-mismatch")
def test_quirk_39_a_known_bad_iss_passes_only_where_it_is_trusted_exactly() -> None:
    text = f"{URL}&iss=https%3A%2F%2Fwww.other.example"
    assert code_of(text, trusted_issuers=frozenset({"https://www.other.example", ISSUER})) == CODE
    refused(text, trusted_issuers=frozenset({"https://www.other.example/", ISSUER}))
    # Otherwise a server that the operator did not trust could impersonate the login's issuer.
    refused(text, trusted_issuers=frozenset({"https://www.other.example"}))


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
def test_quirk_25_an_error_for_this_login_ends_it_with_its_code_and_none_of_its_prose(
    query: str, error: str, advice: str
) -> None:
    with pytest.raises(AuthorizationDenied) as caught:
        read_authorization_response(f"{REDIRECT_URI}?{query}&state={STATE}", request())
    assert caught.value.error == error
    assert advice in caught.value.advice
    told = f"{caught.value} {caught.value.advice} {caught.value!r}"
    for part in (STATE, "script", "bad", "c0de"):
        assert part not in told


@covers("bare-code")
@pytest.mark.parametrize(
    "text",
    [CODE, f"<{CODE}>", f" `{CODE}`\n", f"“{CODE}”", quote(CODE, safe=""), f"{CODE[:9]}\u200b{CODE[9:]}"],
)
def test_a_bare_code_passes_only_where_it_may_and_says_that_it_is_bare(text: str) -> None:
    response = read_authorization_response(text, request(), accept_bare_code=True)
    assert response == AuthorizationResponse(
        Secret(CODE), is_bare=True, construction_key=response.construction_key
    )
    assert "alone" in refused(text)
    assert "is not enough" in refused(text, accept_bare_code=True, authorization_server=WITH_ISS)


@covers("bare-code")
def test_a_code_with_its_state_behind_a_hash_needs_no_permission_but_the_right_state() -> None:
    response = read_authorization_response(f"{CODE}#{STATE}", request())
    assert (response.code, response.is_bare) == (Secret(CODE), False)
    assert "another login" in refused(f"{CODE}#other", accept_bare_code=True)
    assert "not the address" in refused(f"{CODE}#{STATE}#x", accept_bare_code=True)
    assert "is not enough" in refused(f"{CODE}#{STATE}", authorization_server=WITH_ISS)


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
def test_typing_is_no_bare_code(text: str) -> None:
    assert "not the address" in refused(text, accept_bare_code=True)


@covers("one-door")
def test_only_the_door_makes_a_response() -> None:
    with pytest.raises(TypeError, match="only comes out of"):
        AuthorizationResponse(Secret(CODE), is_bare=False, construction_key=object())


@covers("no-secret")
def test_a_response_masks_its_code() -> None:
    assert CODE not in repr(read_authorization_response(URL, request()))


@pytest.mark.parametrize(
    "uri", ["https://hermes.example/mcp/callback", "http://127.0.0.1:8765", "http://[::1]:9/c"]
)
def test_other_redirect_uris_are_read_with_what_a_browser_makes_of_them(uri: str) -> None:
    shown = uri if uri.count("/") > 2 else f"{uri}/"
    assert code_of(f"{shown}?code={CODE}&state={STATE}", redirect_uri=uri) == CODE


def test_a_redirect_uri_away_from_this_machine_keeps_its_scheme() -> None:
    uri = "https://hermes.example/callback"
    told = refused(f"http://hermes.example/callback?code={CODE}&state={STATE}", redirect_uri=uri)
    assert "does not belong to this login" in told
