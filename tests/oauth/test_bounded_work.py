"""A server's response of 1 MiB costs a bounded number of steps, whatever its content.

A profiler counts the function calls, in Python and in C, so that the load of the machine does not matter.
"""

from __future__ import annotations

import base64
import encodings.idna
import json
import sys
import unicodedata
from collections.abc import Callable
from itertools import repeat
from typing import Any

import pytest

from hermes_mcp_auth_remote.errors import MalformedResponse, McpAuthError, UnsafeUrl
from hermes_mcp_auth_remote.oauth import metadata as metadata_module
from hermes_mcp_auth_remote.oauth import urls
from hermes_mcp_auth_remote.oauth.authorization import authorization_request
from hermes_mcp_auth_remote.oauth.challenge import read_challenge
from hermes_mcp_auth_remote.oauth.client import read_registration_response
from hermes_mcp_auth_remote.oauth.device import read_device_authorization_response
from hermes_mcp_auth_remote.oauth.metadata import (
    MAX_ISSUERS_READ,
    read_authorization_server_response,
    read_protected_resource_response,
)
from hermes_mcp_auth_remote.oauth.redirect import matches_state, read_authorization_response
from hermes_mcp_auth_remote.oauth.token import account_from_id_token, read_token_response
from hermes_mcp_auth_remote.oauth.urls import host_of, is_safe_url, is_uri, safe_url
from hermes_mcp_auth_remote.oauth.wire import (
    MAX_BODY_BYTES,
    MAX_JSON_MARKS,
    MAX_MEMBER_CHARS,
    MAX_SCOPE_CHARS,
    Response,
    parse_scope,
    parse_seconds,
    read_json_object,
    sanitize,
    string_list,
    string_member,
)
from hermes_mcp_auth_remote.values import Secret
from tests.oauth.builders import ISSUER, NOW, REDIRECT_URI, STATE, VERIFIER, client, metadata, server
from tests.requirements import covers

URL = "https://mcp.example/mcp"
# NFKC expands it to 18 characters.
WIDE = "\ufdfa"
# A well-formed document costs a few hundred steps; this many take about 25 ms.
MAX_STEPS = 160_000


def count_steps(work: Callable[[], object]) -> int:
    """Count the function calls of `work`; ignore the McpAuthError that it may raise."""
    count = 0

    def count_call(frame: object, event: str, arg: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    before = sys.getprofile()
    sys.setprofile(count_call)
    try:
        work()
    except McpAuthError:
        pass
    finally:
        sys.setprofile(before)
    return count


def fill_document(document: dict[str, Any], name: str, unit: object) -> dict[str, Any]:
    """Return a document of just under 1 MiB. Its member `name` repeats `unit` as often as possible."""
    size = len(json.dumps(unit, ensure_ascii=False).encode()) + 2
    return {**document, name: [unit] * ((MAX_BODY_BYTES - 2000) // size)}


def json_response(document: dict[str, Any], status: int = 200) -> Response:
    body = json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert len(body) <= MAX_BODY_BYTES
    return Response(status, (("content-type", "application/json"),), body)


def form_response(body: bytes) -> Response:
    return Response(200, (("content-type", "application/x-www-form-urlencoded"),), body)


AUTHORIZATION_REQUEST = authorization_request(
    server(), client(), redirect_uri=REDIRECT_URI, state=Secret(STATE), code_verifier=Secret(VERIFIER)
)
RESOURCE: dict[str, Any] = {"resource": URL, "authorization_servers": [ISSUER]}
TOKEN: dict[str, Any] = {"access_token": "a", "token_type": "Bearer"}
CLIENT: dict[str, Any] = {"client_id": "c", "redirect_uris": [REDIRECT_URI]}
DEVICE: dict[str, Any] = {"device_code": "d", "user_code": "u", "verification_uri": f"{ISSUER}/device"}
MANY_SCOPES = " ".join(f"{number:x}" for number in range(160_000))
MEGABYTE = "%" * (MAX_BODY_BYTES - 2000)


def resource_reader(document: dict[str, Any]) -> Callable[[], object]:
    resource_response = json_response(document)
    return lambda: read_protected_resource_response(resource_response, URL)


def issuer_reader(document: dict[str, Any]) -> Callable[[], object]:
    metadata_response = json_response(document)
    return lambda: read_authorization_server_response(metadata_response, ISSUER)


def token_reader(token_response: Response) -> Callable[[], object]:
    return lambda: read_token_response(token_response, NOW, "as.example", secrets=(Secret("%"), Secret("%%")))


def registration_reader(document: dict[str, Any]) -> Callable[[], object]:
    registration_response = json_response(document)
    return lambda: read_registration_response(registration_response, server(), REDIRECT_URI)


def device_reader(document: dict[str, Any]) -> Callable[[], object]:
    device_response = json_response(document)
    return lambda: read_device_authorization_response(device_response, ISSUER)


def paste_reader(text: str) -> Callable[[], object]:
    def read() -> None:
        matches_state(text, AUTHORIZATION_REQUEST)
        read_authorization_response(text[:16_384], AUTHORIZATION_REQUEST, accept_bare_code=True)

    return read


def challenge_reader(*lines: str) -> Callable[[], object]:
    return lambda: read_challenge(lines)


def make_id_token(claims: object) -> str:
    return f"a.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()}.c"


HOSTILE: dict[str, Callable[[], object]] = {
    "issuers of wide letters": resource_reader(
        fill_document(RESOURCE, "authorization_servers", f"https://{WIDE * 8000}.x")
    ),
    "issuers of wide labels": resource_reader(
        fill_document(RESOURCE, "authorization_servers", "https://" + f"{WIDE * 63}." * 4 + "x")
    ),
    "issuers of wide user information": resource_reader(
        fill_document(RESOURCE, "authorization_servers", f"https://{WIDE * 8000}@x")
    ),
    "international issuers": resource_reader(
        fill_document(RESOURCE, "authorization_servers", "https://bücher.example")
    ),
    "long international issuers": resource_reader(
        fill_document(RESOURCE, "authorization_servers", "https://" + ".".join(["ü" * 20] * 11) + ".x")
    ),
    "short issuers": resource_reader(fill_document(RESOURCE, "authorization_servers", "a")),
    "issuers that are numbers": resource_reader(fill_document(RESOURCE, "authorization_servers", 1)),
    "issuers with long paths": resource_reader(
        fill_document(RESOURCE, "authorization_servers", "https://x/" + "ü" * 8000)
    ),
    "a resource of wide letters": resource_reader({**RESOURCE, "resource": f"https://{WIDE * 300_000}"}),
    "scopes of a resource": resource_reader(fill_document(RESOURCE, "scopes_supported", "a")),
    "scopes of an issuer": issuer_reader(fill_document(metadata(), "scopes_supported", "ab")),
    "methods of an issuer": issuer_reader(fill_document(metadata(), "code_challenge_methods_supported", "")),
    "an endpoint of wide letters": issuer_reader(
        {**metadata(), "token_endpoint": f"https://{WIDE * 300_000}"}
    ),
    "another issuer of wide letters": issuer_reader({**metadata(), "issuer": f"https://{WIDE * 300_000}"}),
    "members": issuer_reader({**metadata(), **{f"{number:x}": 1 for number in range(80_000)}}),
    "objects in objects": issuer_reader(fill_document(metadata(), "x", {"a": {}})),
    "a granted scope": token_reader(json_response({**TOKEN, "scope": MANY_SCOPES})),
    "a granted scope with commas": token_reader(
        json_response({**TOKEN, "scope": MANY_SCOPES.replace(" ", ",")})
    ),
    "a form with escapes": token_reader(form_response(b"access_token=a&scope=" + b"%41" * 340_000)),
    "a form with fields": token_reader(form_response(b"access_token=a&" + b"a=b&" * 250_000)),
    "an access token": token_reader(json_response({**TOKEN, "access_token": "a" * (MAX_BODY_BYTES - 2000)})),
    "an ID token of objects": token_reader(
        json_response({**TOKEN, "id_token": make_id_token({"a": [{}] * 150_000})})
    ),
    "an ID token's name": token_reader(
        json_response({**TOKEN, "id_token": make_id_token({"name": "\0" * 120_000})})
    ),
    "a lifetime": token_reader(json_response({**TOKEN, "expires_in": "1" * (MAX_BODY_BYTES - 2000)})),
    "an error's description": token_reader(json_response({"error": "x", "error_description": MEGABYTE}, 400)),
    "an error": token_reader(json_response({"error": MEGABYTE}, 400)),
    "redirect URIs": registration_reader({**CLIENT, "redirect_uris": [REDIRECT_URI, *["a:b"] * 130_000]}),
    "redirect URIs of wide letters": registration_reader(
        {**CLIENT, "redirect_uris": [REDIRECT_URI, *[f"https://{WIDE * 10_000}"] * 30]}
    ),
    "redirect URIs behind a line feed": registration_reader(
        {**CLIENT, "redirect_uris": [REDIRECT_URI, *[f"https:/\n/{WIDE * 10_000}"] * 30]}
    ),
    "a client id": registration_reader({**CLIENT, "client_id": MEGABYTE}),
    "a device code": device_reader({**DEVICE, "device_code": MEGABYTE}),
    "a user code": device_reader({**DEVICE, "user_code": MEGABYTE}),
    "a verification address": device_reader({**DEVICE, "verification_uri": f"https://{WIDE * 300_000}"}),
    "a whole verification address": device_reader(
        {**DEVICE, "verification_uri_complete": "https://" + f"{WIDE}." * 200_000}
    ),
    "a challenge of lines": challenge_reader(*["a"] * 100_000),
    "a challenge of words": challenge_reader("Bearer " + "a " * 500_000),
    "a challenge of scopes": challenge_reader("Bearer " + "scope=a," * 100_000),
    "a challenge of addresses": challenge_reader(
        "Bearer " + ",".join(f"resource_metadata=a{number}" for number in range(50_000))
    ),
    "a challenge of quotes": challenge_reader("Bearer " + 'a="' * 300_000),
    "a challenge of junk": challenge_reader("Bearer " + '" ' * 500_000),
    "a paste of wide letters": paste_reader(f"https://{WIDE * 300_000}"),
    "a paste of addresses": paste_reader(f"{REDIRECT_URI}?code=x " * 20_000),
    "a paste of wide addresses": paste_reader(f"https://{WIDE * 1500} " * 600),
    "a paste of escapes": paste_reader(f"{REDIRECT_URI}?{'%3d' * 300_000}"),
    "a paste of fields": paste_reader(f"{REDIRECT_URI}?{'a=%41&' * 100_000}"),
    "a paste of lines": paste_reader(f"https://x/{'a' * 30}\n" * 20_000),
}


@covers("bounded-work")
@pytest.mark.parametrize("name", HOSTILE)
def test_one_mebibyte_costs_a_bounded_number_of_steps(name: str) -> None:
    assert count_steps(HOSTILE[name]) < MAX_STEPS


@covers("bounded-work")
@pytest.mark.parametrize("name", HOSTILE)
def test_host_normalisation_is_bounded_by_the_length_of_dns_names(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    normalised, encoded = 0, 0
    normalize, nameprep = unicodedata.normalize, encodings.idna.nameprep

    def noting_normalize(form: Any, text: str) -> str:
        nonlocal normalised
        normalised += len(text)
        return normalize(form, text)

    def noting_nameprep(label: str) -> str:
        nonlocal encoded
        encoded += len(label)
        prepared: str = nameprep(label)
        return prepared

    monkeypatch.setattr(unicodedata, "normalize", noting_normalize)
    monkeypatch.setattr(urls, "normalize", noting_normalize)
    monkeypatch.setattr(encodings.idna, "nameprep", noting_nameprep)
    urls.urlsplit.cache_clear()  # type: ignore[attr-defined]
    count_steps(HOSTILE[name])
    # Each issuer that is read, and each candidate of a paste, is normalised at most three times.
    assert normalised <= 20_000
    assert encoded <= 20_000


@covers("bounded-work")
def test_only_the_first_issuers_of_a_long_list_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    checked_urls: list[str] = []

    def noting(text: str) -> bool:
        checked_urls.append(text)
        return is_safe_url(text)

    monkeypatch.setattr(metadata_module, "is_safe_url", noting)
    issuers = [f"https://bücher{number}.example" for number in range(9_000)]
    protected_resource = read_protected_resource_response(
        json_response({**RESOURCE, "authorization_servers": issuers}), URL
    )
    assert checked_urls == issuers[:MAX_ISSUERS_READ]
    assert protected_resource.authorization_servers == tuple(issuers[:MAX_ISSUERS_READ])


@covers("bounded-work")
def test_a_document_with_too_many_values_is_refused_before_it_is_parsed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    honest = b'{"a": [' + b",".join([b"1"] * (MAX_JSON_MARKS - 2)) + b"]}"
    assert len(read_json_object(honest, "document")) == 1

    def parse(text: object) -> object:
        raise AssertionError

    monkeypatch.setattr(json, "loads", parse)
    with pytest.raises(MalformedResponse, match="holds more values than any honest one"):
        read_json_object(b'{"a": [' + b",".join([b"1"] * MAX_JSON_MARKS) + b"]}", "document")


@covers("bounded-work")
@pytest.mark.parametrize(
    "host",
    [
        "a" * 64 + ".example",
        ".".join(["a" * 50] * 6),
        "ü" * 64 + ".example",
        ".".join(["ü" * 20] * 13),
        f"{WIDE * 4}.example",
        "a。" + "b" * 64,
    ],
)
def test_a_host_that_is_too_long_for_dns_is_refused_before_it_is_encoded(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encodings.idna, "nameprep", pytest.fail)
    url = f"https://{host}/"
    with pytest.raises(UnsafeUrl):
        safe_url(url, "address")
    assert host_of(url) == ""
    assert not is_uri(f"https://{'a' * 600}/") or not host_of(f"https://{'a' * 600}/")


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        (".".join(["a" * 49] * 5) + ".x.y", ".".join(["a" * 49] * 5) + ".x.y"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("ＡＢ。example", "ab.example"),
        ("[2001:db8::1]", "2001:db8::1"),
    ],
)
def test_a_host_of_valid_length_is_accepted(host: str, ascii_host: str) -> None:
    assert host_of(safe_url(f"https://{host}/", "address")) == ascii_host


@covers("bounded-work")
@pytest.mark.parametrize("line", ["", "a", "Bearer", 'Bearer scope="a"', ","])
def test_reading_an_infinite_number_of_challenge_lines_ends(line: str) -> None:
    assert read_challenge(repeat(line)).resource_metadata == ()


def test_a_challenge_is_read_completely_up_to_its_limits() -> None:
    lines = ["Negotiate", *[f'Bearer scope="a b", resource_metadata="https://x/{n}"' for n in range(9)]]
    challenge = read_challenge([*lines, 'DPoP scope="c", error="e"'])
    assert challenge.scope == frozenset({"a", "b", "c"})
    assert challenge.resource_metadata == tuple(f"https://x/{n}" for n in range(4))
    assert (challenge.error, challenge.is_dpop_only) == ("e", False)


@covers("bounded-work")
def test_a_long_scope_is_truncated_between_two_names() -> None:
    names = [f"scope:{number:05}" for number in range(10_000)]
    parsed = parse_scope(" ".join(names))
    assert parsed == set(names[: len(parsed)])
    assert MAX_SCOPE_CHARS - 30 < len(" ".join(parsed)) <= MAX_SCOPE_CHARS
    assert parse_scope("a" * (MAX_SCOPE_CHARS + 1)) == frozenset()
    assert parse_scope("a" * MAX_SCOPE_CHARS) == {"a" * MAX_SCOPE_CHARS}


@covers("bounded-work")
def test_too_long_members_and_excess_list_items_are_ignored() -> None:
    longest = "x" * MAX_MEMBER_CHARS
    assert string_member({"a": longest}, "a") == longest
    assert string_member({"a": longest + "x"}, "a") is None
    assert string_list({"a": ["b", longest + "x", "c"]}, "a") == ("b", "c")
    assert string_list({"a": [1, "b", "c", "d"]}, "a", 3) == ("b", "c")
    assert parse_seconds("3600") == 3600
    assert parse_seconds("1" * 65) is None
    assert account_from_id_token(make_id_token({"email": "ada@example.com"})) == "ada@example.com"
    assert (
        account_from_id_token(make_id_token({"email": "ada@example.com", "x": "y" * MAX_MEMBER_CHARS}))
        is None
    )


@covers("no-secret")
@pytest.mark.parametrize("offset", range(16_375, 16_390))
def test_a_secret_at_the_truncation_point_is_not_shown(offset: int) -> None:
    # Removed white space and short masks bring the point of truncation into the shown part.
    secret = Secret("a-secret")
    text = "a-secret" * 100
    text += " " * (offset - len(text)) + "a-secret" * 100
    assert "a-s" not in sanitize(text, secret)
    assert sanitize("x" + text, secret).startswith("x****")
