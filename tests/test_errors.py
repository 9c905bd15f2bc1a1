"""The documented error tree is the real one, and every error has advice."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import re
import traceback
from collections.abc import Callable, Iterator

import pytest

from hermes_mcp_auth_remote import errors
from hermes_mcp_auth_remote.errors import (
    AuthorizationDenied,
    AuthorizationRequired,
    McpAuthError,
    TokenError,
)
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.protocol import StoreConflict, Stored, Version
from tests.requirements import covers
from tests.store.builders import build_credentials


def error_classes(kind: type[McpAuthError]) -> Iterator[type[McpAuthError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from error_classes(child)


ERROR_CLASSES = [kind for kind in error_classes(McpAuthError) if kind.__module__ == errors.__name__]


def make_error(kind: type[McpAuthError], advice: str | None = None) -> McpAuthError:
    if issubclass(kind, AuthorizationRequired):
        return kind("linear")
    if issubclass(kind, TokenError | AuthorizationDenied):
        return kind("It broke.", "invalid_grant", advice)
    return kind("It broke.", advice)


@covers("error-tree")
def test_the_documented_error_tree_is_the_real_one() -> None:
    parents: list[str] = []
    documented: dict[str, str | None] = {}
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ([ |]*)(?:[|`]-- )?([A-Z]\w+)", line)
        if match:
            depth = (match.start(2) - 4) // 4
            del parents[depth:]
            documented[match.group(2)] = parents[-1] if parents else None
            parents.append(match.group(2))
    bases = {kind.__name__: kind.__bases__[0].__name__ for kind in ERROR_CLASSES}
    assert documented == {**bases, "McpAuthError": None}


@covers("error-tree")
def test_every_error_class_has_a_unique_code() -> None:
    codes = [kind.code for kind in ERROR_CLASSES]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)


@covers("error-tree")
@pytest.mark.parametrize("kind", ERROR_CLASSES)
def test_every_error_class_has_a_docstring_and_a_sentence_of_advice(kind: type[McpAuthError]) -> None:
    assert inspect.getdoc(kind)
    advice = make_error(kind).advice
    assert re.fullmatch(r"[A-Z].*[.]", advice)
    if kind is not AuthorizationRequired:
        assert str(make_error(kind)) == "It broke."
        assert make_error(kind, "Do this.").advice == "Do this."
        assert make_error(kind).advice == kind.advice


def test_token_error_and_authorization_denied_keep_the_servers_code() -> None:
    assert TokenError("x", "invalid_grant").error == "invalid_grant"
    assert AuthorizationDenied("x", "access_denied").error == "access_denied"


def test_authorization_required_names_the_server_and_the_command_and_no_url() -> None:
    error = AuthorizationRequired("linear", reason="the session is over", login_id="7", expires_at=1.0)
    assert str(error) == "linear needs a login: the session is over."
    assert error.advice == "Run `hermes-mcp-auth login linear`."
    assert AuthorizationRequired("my notes").advice == "Run `hermes-mcp-auth login 'my notes'`."
    assert (error.server_name, error.login_id, error.expires_at) == ("linear", "7", 1.0)


@covers("advice-note")
@pytest.mark.parametrize("kind", [*ERROR_CLASSES, StoreConflict])
@pytest.mark.parametrize(
    "copy_error",
    [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))],
    ids=["copy", "deepcopy", "pickle"],
)
def test_a_copied_error_is_the_same_and_has_its_advice_once(
    kind: type[McpAuthError], copy_error: Callable[[McpAuthError], McpAuthError]
) -> None:
    error = make_error(kind)
    error.server_message = "The server's own text"
    error.add_note("a note of the caller")
    error.advice = "Do that instead."
    copied = copy_error(copy_error(error))
    assert type(copied) is kind
    assert str(copied) == str(error)
    assert vars(copied) == vars(error)
    assert copied.__notes__ == ["Do that instead.", "a note of the caller"]


@covers("advice-note")
def test_a_conflict_is_copied_without_its_credentials() -> None:
    found = Stored(build_credentials(), Version("1"))
    copied = pickle.loads(pickle.dumps(StoreConflict("It has changed.", found=found)))
    assert copied.found == Stored(Credentials(), None)
    assert copied.__notes__ == ["Try again."]


@covers("advice-note")
def test_the_traceback_of_a_task_group_shows_the_advice_once() -> None:
    error = AuthorizationRequired("linear", login_id="7")

    async def call() -> None:
        try:
            raise error
        except AuthorizationRequired as caught:
            raise caught from None

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(call())

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(main())
    text = "".join(traceback.format_exception(caught.value))
    assert text.count("Run `hermes-mcp-auth login linear`.") == 1


def test_a_note_of_the_caller_stays_when_the_advice_changes() -> None:
    error = McpAuthError("It broke.")
    assert error.__notes__ == [McpAuthError.advice]
    error.add_note("mine")
    error.advice = "First."
    error.advice = "Second."
    error.advice = "Second."
    assert error.__notes__ == ["Second.", "mine"]
