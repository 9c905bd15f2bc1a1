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
from tests.oauth.builders import NOW, request
from tests.requirements import covers

SECRET_TEXT = "s3cret-words"


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
def test_an_error_about_an_invalid_url_has_no_context(
    read: Callable[[str], object], kind: type[Exception], template: str
) -> None:
    with pytest.raises(kind) as caught:
        read(f"http://{template.format(SECRET_TEXT)}/callback?code={quote(SECRET_TEXT)}&state=1")
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


@covers("server-words")
@pytest.mark.parametrize(
    "body", ['{"access_token": "%s', "<html>%s", "access_token=%s\u00ff", "&".join(["a=%s"] + ["b=1"] * 200)]
)
def test_an_error_about_an_unreadable_token_response_does_not_quote_it(body: str) -> None:
    with pytest.raises(MalformedResponse) as caught:
        read_token_response(Response(200, (), (body % SECRET_TEXT).encode()), NOW, "as.example")
    assert caught.value.__context__ is None
    assert SECRET_TEXT not in f"{caught.value!r} {vars(caught.value)}"


@covers("bounded-work")
def test_a_scope_of_five_hundred_long_names_is_read_completely() -> None:
    names = frozenset(f"https://www.googleapis.com/auth/service.number{n}.readonly" for n in range(500))
    document = f'{{"access_token": "a", "scope": "{" ".join(sorted(names))}"}}'
    assert read_token_response(Response(200, (), document.encode()), NOW, "as.example").scope == names
    assert parse_scope(" ".join(names)) == names
