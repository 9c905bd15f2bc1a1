"""Every response of a server gives a value or a McpAuthError, without a secret and without a stall."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.authorization import authorization_request, read_pushed_response
from hermes_mcp_auth_remote.oauth.client import (
    authenticate_client,
    client_from_document,
    read_registration_response,
)
from hermes_mcp_auth_remote.oauth.metadata import (
    read_authorization_server_response,
    read_protected_resource_response,
)
from hermes_mcp_auth_remote.oauth.token import read_token_response
from hermes_mcp_auth_remote.oauth.wire import Response, parse_scope, post_form
from hermes_mcp_auth_remote.values import Secret
from tests.exchange_script import make_response
from tests.oauth.builders import ISSUER, NOW, REDIRECT_URI, STATE, VERIFIER, client, metadata, server
from tests.requirements import covers

URL = "https://mcp.example/mcp"

# Each reader of a server's response, with a valid document that holds all members which it reads.
READERS: dict[str, tuple[Callable[[Response], object], Mapping[str, object]]] = {
    "protected resource": (
        lambda response: read_protected_resource_response(response, URL),
        {"resource": URL, "authorization_servers": [ISSUER], "scopes_supported": ["a"]},
    ),
    "authorization server": (
        lambda response: read_authorization_server_response(response, ISSUER),
        metadata(
            revocation_endpoint=f"{ISSUER}/revoke",
            scopes_supported=["a"],
            token_endpoint_auth_methods_supported=["none"],
        ),
    ),
    "registration": (
        lambda response: read_registration_response(response, server(), REDIRECT_URI),
        {
            "client_id": "c",
            "client_secret": "s",
            "client_secret_expires_at": 0,
            "token_endpoint_auth_method": "none",
            "redirect_uris": [REDIRECT_URI],
            "error": None,
            "error_description": None,
        },
    ),
    "token": (
        lambda response: read_token_response(response, NOW, "as.example"),
        {
            "access_token": "a",
            "token_type": "Bearer",
            "expires_in": 1,
            "refresh_token": "r",
            "refresh_expires_in": 1,
            "scope": "a",
            "id_token": "a.b.c",
            "authed_user": {},
            "ok": True,
            "error": None,
            "error_description": None,
        },
    ),
    "pushed request": (
        read_pushed_response,
        {"request_uri": "urn:example:1", "expires_in": 60, "error": None, "error_description": None},
    ),
}

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400)])
    | st.floats()
    | st.text()
    | st.sampled_from(
        ["\ud800", "\x00", "javascript:alert(1)", "https://", "https://[", "http://h@h", "1e999"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
STATUS = st.sampled_from([200, 201, 302, 400, 401, 403, 404, 429, 500])
NAMES = st.sampled_from(list(READERS))


@covers("no-crash")
@given(NAMES, STATUS, st.data())
def test_invalid_members_of_any_response_are_refused_or_read(
    name: str, status: int, data: st.DataObject
) -> None:
    read, document = READERS[name]
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(document)), JUNK, min_size=1))
    try:
        value = read(make_response(status, {**document, **changed}))
    except McpAuthError:
        return
    repr(value)


@covers("no-crash")
@given(
    NAMES,
    STATUS,
    st.binary() | JUNK.map(lambda junk: json.dumps(junk).encode()),
    st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/html", "", "\x00"]),
)
def test_any_body_of_any_type_is_refused_or_read(
    name: str, status: int, body: bytes, media_type: str
) -> None:
    read, _ = READERS[name]
    try:
        read(make_response(status, body, {"content-type": media_type}))
    except McpAuthError:
        return


@covers("no-crash")
@given(st.dictionaries(st.sampled_from(["client_id", "client_secret", "token_endpoint_auth_method"]), JUNK))
def test_a_client_from_any_document_can_be_sent(document: dict[str, object]) -> None:
    try:
        form, headers = authenticate_client(client_from_document(document), ISSUER, {"grant_type": "x"})
    except McpAuthError:
        return
    post_form(f"{ISSUER}/token", "token request", form, headers)


@covers("no-crash", "safe-urls")
@given(st.text(), st.text(), st.frozensets(st.text(), max_size=3))
def test_any_scope_and_resource_give_a_safe_url_or_an_error(
    tenant: str, resource: str, scope: frozenset[str]
) -> None:
    assume(not any("\ud800" <= c <= "\udfff" for c in resource))
    try:
        authorization = authorization_request(
            server(authorization_endpoint=f"{ISSUER}/authorize?tenant={tenant}"),
            client(),
            redirect_uri=REDIRECT_URI,
            state=Secret(STATE),
            code_verifier=Secret(VERIFIER),
            scope=parse_scope(" ".join(scope)),
            resource=resource,
        )
    except McpAuthError:
        return
    assert authorization.url.startswith(f"{ISSUER}/authorize?")
    assert authorization.url.isascii()


@covers("linear", "no-crash")
@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b"{" + b'"a":1,' * 160_000 + b'"b":2}',
        b'{"access_token":"' + b"a" * 1_000_000 + b'"}',
        b"a=" + b"b" * 1_000_000,
        b"a=b&" * 250_000,
        b"9" * 1_000_000,
        b" " * 1_000_000,
        b'"' + b"\\ud800" * 160_000 + b'"',
    ],
    ids=[
        "brackets",
        "nested",
        "many members",
        "long token",
        "long form",
        "many fields",
        "digits",
        "blanks",
        "halves",
    ],
)
def test_a_hostile_response_of_a_megabyte_is_read_in_linear_time(name: str, body: bytes) -> None:
    read, _ = READERS[name]
    for media_type in ("application/json", "text/plain"):
        try:
            read(make_response(200, body, {"content-type": media_type}))
        except McpAuthError:
            continue
        assert name == "token", "only a long access token is valid"
