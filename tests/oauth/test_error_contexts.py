"""A McpAuthError has no library error as its context, because that would quote the unreadable input."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest

from hermes_mcp_auth_remote.errors import MalformedResponse, PasteRefused, UnsafeUrl
from hermes_mcp_auth_remote.oauth.redirect import read_authorization_response
from hermes_mcp_auth_remote.oauth.token import read_token_response
from hermes_mcp_auth_remote.oauth.urls import safe_url
from hermes_mcp_auth_remote.oauth.wire import Response, parse_scope
from tests.oauth.parties import NOW, request
from tests.requirements import covers

WORD = "s3cret-words"


@covers("server-words")
@pytest.mark.parametrize(
    "template", ["a:{}", "[{}]", "\u2100{}", "a:99999{}", "\ud800{}", f"{'a' * 300}{{}}"]
)
@pytest.mark.parametrize(
    ("read", "kind"),
    [
        (lambda url: safe_url(url, "address"), UnsafeUrl),
        (lambda url: read_authorization_response(url, request()), PasteRefused),
    ],
    ids=["metadata", "paste"],
)
def test_an_address_that_is_none_is_quoted_nowhere(
    read: Callable[[str], object], kind: type[Exception], template: str
) -> None:
    with pytest.raises(kind) as caught:
        read(f"http://{template.format(WORD)}/callback?code={quote(WORD)}&state=1")
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


@covers("server-words")
@pytest.mark.parametrize(
    "body", ['{"access_token": "%s', "<html>%s", "access_token=%s\u00ff", "&".join(["a=%s"] + ["b=1"] * 200)]
)
def test_a_token_document_that_cannot_be_read_stays_in_no_error(body: str) -> None:
    with pytest.raises(MalformedResponse) as caught:
        read_token_response(Response(200, (), (body % WORD).encode()), NOW, "as.example")
    assert caught.value.__context__ is None
    assert WORD not in f"{caught.value!r} {vars(caught.value)}"


@covers("bounded-work")
def test_five_hundred_long_names_of_a_scope_are_all_read() -> None:
    names = frozenset(f"https://www.googleapis.com/auth/service.number{n}.readonly" for n in range(500))
    document = f'{{"access_token": "a", "scope": "{" ".join(sorted(names))}"}}'
    assert read_token_response(Response(200, (), document.encode()), NOW, "as.example").scope == names
    assert parse_scope(" ".join(names)) == names
