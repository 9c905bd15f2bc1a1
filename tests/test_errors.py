"""The documented error tree is the real one, and every error has advice."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from hermes_mcp_auth_remote import errors
from hermes_mcp_auth_remote.errors import (
    AuthorizationDenied,
    AuthorizationRequired,
    McpAuthError,
    TokenError,
)
from tests.requirements import covers


def tree(kind: type[McpAuthError]) -> Iterator[type[McpAuthError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


KINDS = [kind for kind in tree(McpAuthError) if kind.__module__ == errors.__name__]


def made(kind: type[McpAuthError], advice: str | None = None) -> McpAuthError:
    if issubclass(kind, AuthorizationRequired):
        return kind("linear")
    if issubclass(kind, TokenError | AuthorizationDenied):
        return kind("It broke.", "invalid_grant", advice)
    return kind("It broke.", advice)


@covers("error-tree")
def test_the_drawn_tree_is_the_real_one() -> None:
    parents: list[str] = []
    drawn: dict[str, str | None] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ([ |]*)(?:[|`]-- )?([A-Z]\w+)", line)
        if found:
            depth = (found.start(2) - 4) // 4
            del parents[depth:]
            drawn[found.group(2)] = parents[-1] if parents else None
            parents.append(found.group(2))
    bases = {kind.__name__: kind.__bases__[0].__name__ for kind in KINDS}
    assert drawn == {**bases, "McpAuthError": None}


@covers("error-tree")
def test_every_kind_has_a_code_of_its_own_for_programs() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


@covers("error-tree")
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_docstring_and_advice_that_is_a_sentence(kind: type[McpAuthError]) -> None:
    assert inspect.getdoc(kind)
    advice = made(kind).advice
    assert re.fullmatch(r"[A-Z].*[.]", advice)
    if kind is not AuthorizationRequired:
        assert str(made(kind)) == "It broke."
        assert made(kind, "Do this.").advice == "Do this."
        assert made(kind).advice == kind.advice


def test_a_refused_token_and_a_denied_login_carry_the_server_s_code() -> None:
    assert TokenError("x", "invalid_grant").error == "invalid_grant"
    assert AuthorizationDenied("x", "access_denied").error == "access_denied"


def test_a_required_login_names_the_server_and_the_command_and_no_url() -> None:
    error = AuthorizationRequired("linear", reason="the session is over", login_id="7", expires_at=1.0)
    assert str(error) == "linear needs a login: the session is over."
    assert error.advice == "Run `hermes-mcp-auth login linear`."
    assert (error.server_name, error.login_id, error.expires_at) == ("linear", "7", 1.0)
