"""The transition table of a login: every status, every event, and the error messages."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import get_args

import pytest

from hermes_mcp_auth_remote.errors import LoginAlreadyUsed, LoginCancelled, LoginError, LoginExpired
from hermes_mcp_auth_remote.login import (
    TRANSITIONS,
    Connection,
    Login,
    LoginEvent,
    LoginStatus,
    apply_event,
    is_expired,
    login_state_error,
    new_login_id,
)
from hermes_mcp_auth_remote.values import CredentialKey, Origin
from tests.oauth.builders import NOW, STATE, VERIFIER, request, server
from tests.requirements import covers

LOGIN = Login(
    id="login-1",
    key=CredentialKey("linear", "telegram:42"),
    server_url="https://mcp.example/mcp",
    request=request(),
    authorization_server=server(),
    origin=Origin("telegram", "42", user_id="42"),
    started_at=NOW,
    expires_at=NOW + 600,
)
STATUSES: tuple[LoginStatus, ...] = get_args(LoginStatus)
EVENTS: tuple[LoginEvent, ...] = get_args(LoginEvent)


@covers("login-table")
@pytest.mark.parametrize(("status", "event"), list(itertools.product(STATUSES, EVENTS)))
def test_only_transitions_in_the_table_are_possible(status: LoginStatus, event: LoginEvent) -> None:
    login = replace(LOGIN, status=status)
    if (status, event) in TRANSITIONS:
        assert apply_event(login, event) == replace(login, status=TRANSITIONS[status, event])
    else:
        with pytest.raises(LoginError):
            apply_event(login, event)


@covers("login-table")
def test_a_login_is_claimed_once_and_done_only_after_a_claim() -> None:
    claimed = apply_event(LOGIN, "claim")
    with pytest.raises(LoginAlreadyUsed):
        apply_event(claimed, "claim")
    with pytest.raises(LoginAlreadyUsed):
        apply_event(apply_event(claimed, "succeed"), "claim")
    assert [before for before, event in TRANSITIONS if TRANSITIONS[before, event] == "done"] == ["exchanging"]


@covers("login-table")
def test_a_login_that_is_over_has_no_transition() -> None:
    over = {status for status in STATUSES if replace(LOGIN, status=status).is_over}
    assert over == {"done", "failed", "expired", "cancelled"}
    assert over.isdisjoint(before for before, _ in TRANSITIONS)
    assert set(STATUSES) == {before for before, _ in TRANSITIONS} | set(TRANSITIONS.values())


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        ("expired", LoginExpired, "login_expired"),
        ("cancelled", LoginCancelled, "login_cancelled"),
        ("exchanging", LoginAlreadyUsed, "login_already_used"),
        ("done", LoginAlreadyUsed, "login_already_used"),
        ("failed", LoginError, "login"),
    ],
)
def test_each_final_status_has_its_own_error(status: LoginStatus, kind: type[LoginError], code: str) -> None:
    error = login_state_error(replace(LOGIN, status=status))
    assert type(error) is kind
    assert error.code == code


def test_a_failed_login_repeats_its_failure() -> None:
    error = login_state_error(replace(LOGIN, status="failed", failure=("It was denied.", "Ask the owner.")))
    assert (str(error), error.advice) == ("It was denied.", "Ask the owner.")


def test_only_a_waiting_login_expires() -> None:
    assert not is_expired(LOGIN, NOW + 599.9)
    assert is_expired(LOGIN, NOW + 600)
    assert not is_expired(apply_event(LOGIN, "claim"), NOW + 601)


@covers("no-secret")
def test_the_repr_of_a_login_hides_its_secrets() -> None:
    assert LOGIN.authorization_host == "as.example"
    assert LOGIN.authorization_url == LOGIN.request.url
    for secret in (STATE, VERIFIER, LOGIN.request.url):
        assert secret not in repr(LOGIN)


def test_missing_scope_of_a_connection_is_empty_by_default() -> None:
    connection = Connection(
        LOGIN.key, LOGIN.server_url, "https://as.example", None, None, None, can_refresh=False
    )
    assert connection.missing_scope == frozenset()


def test_a_login_id_never_looks_like_an_option() -> None:
    # Users copy the id after `--finish` from an error message.
    assert new_login_id(lambda _: "-abc-DEF_0123456789ab") == "0abc-DEF_0123456789ab"
    assert new_login_id(lambda _: "abc-DEF_0123456789ab") == "abc-DEF_0123456789ab"
