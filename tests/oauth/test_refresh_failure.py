"""Failed refreshes: the pause before the next one, and when the session is over."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import (
    ConfigError,
    MalformedResponse,
    McpAuthError,
    RedirectRefused,
    RegistrationError,
    TimedOut,
    TokenError,
)
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure, build_refresh_failure
from tests.requirements import covers

NOW = 1_800_000_000.0
DOWN = MalformedResponse("as.example answered the refresh with status 503.", "Try again later.")
DEAD = TokenError("as.example refused the refresh: invalid_grant.", "invalid_grant")
BARE = TokenError("as.example refused the refresh: status 401.", "status 401", verdict="unauthorized")
LOST = TimedOut("as.example did not answer in time.")


def failures(
    *outcomes: tuple[float, McpAuthError], is_alive: bool, before: RefreshFailure | None = None
) -> RefreshFailure:
    for seconds, trouble in outcomes:
        before = build_refresh_failure(before, trouble, NOW + seconds, is_token_valid=is_alive)
    assert before is not None
    return before


@covers("refresh-back-off")
def test_the_pause_grows_while_the_server_answers_and_is_bounded() -> None:
    for is_alive, pauses in (
        (True, [15, 30, 60, 120, 240, 300, 300]),
        (False, [5, 10, 20, 30, 30, 30, 30]),
    ):
        failure: RefreshFailure | None = None
        for number, pause in enumerate(pauses):
            failure = build_refresh_failure(failure, DOWN, NOW + 1000 * number, is_token_valid=is_alive)
            assert failure.pause_seconds == pause
            at = NOW + 1000 * number
            assert failure.retry_at == at + pause
            assert not failure.can_retry(at, is_token_valid=is_alive)
            assert not failure.can_retry(at + pause - 0.1, is_token_valid=is_alive)
            assert failure.can_retry(at + pause, is_token_valid=is_alive)
            # A clock that was set back does not extend the pause.
            assert failure.can_retry(at - 1, is_token_valid=is_alive)
            assert (failure.failures, failure.first_at) == (number + 1, NOW)


@covers("refresh-back-off")
def test_a_network_that_fails_makes_no_pause_longer() -> None:
    failure = failures((0, LOST), (1, LOST), (2, LOST), is_alive=False)
    assert (failure.pause_seconds, failure.is_answered, failure.failures) == (5, False, 3)
    assert failures((3, DOWN), is_alive=False, before=failure).pause_seconds == 5


@covers("refresh-back-off")
@pytest.mark.parametrize("error", [DOWN, DEAD, BARE, LOST])
def test_when_the_access_token_ends_one_more_refresh_is_sent(error: McpAuthError) -> None:
    failure = failures((0, error), is_alive=True)
    assert not failure.can_retry(NOW + 1, is_token_valid=True)
    assert failure.can_retry(NOW + 1, is_token_valid=False)
    again = failures((1, error), is_alive=False, before=failure)
    assert not again.can_retry(NOW + 1, is_token_valid=False)
    assert again.pause_seconds == 5


@covers("refresh-back-off")
def test_a_session_that_is_over_is_never_asked_about_again() -> None:
    failure = failures((0, DEAD), is_alive=False)
    assert failure.is_final
    assert failure.retry_at is None
    assert not any(failure.can_retry(NOW + seconds, is_token_valid=False) for seconds in (-1, 0, 60, 1e9))


@covers("refresh-verdict")
@pytest.mark.parametrize(
    ("outcomes", "is_final"),
    [
        ([(0, BARE)], False),
        ([(0, BARE), (59.9, BARE)], False),
        ([(0, BARE), (60, BARE)], True),
        ([(0, BARE), (5, BARE), (15, BARE), (60, BARE)], True),
        ([(0, BARE), (60, DOWN)], False),
        ([(0, BARE), (60, DOWN), (70, BARE)], True),
        ([(0, DOWN), (60, BARE)], False),
        # The clock was set back, so the minute starts again.
        ([(100, BARE), (0, BARE), (59, BARE)], False),
        ([(100, BARE), (0, BARE), (60, BARE)], True),
    ],
)
def test_a_401_without_a_word_is_final_if_it_comes_twice_a_minute_apart(
    outcomes: list[tuple[float, McpAuthError]], *, is_final: bool
) -> None:
    for is_alive in (False, True):
        assert failures(*outcomes, is_alive=is_alive).is_final is is_final


@covers("refresh-verdict")
@pytest.mark.parametrize(
    ("error", "is_answered", "is_final"),
    [
        (DOWN, True, False),
        (DEAD, True, True),
        (TokenError("x", "invalid_scope", verdict="client_error"), True, False),
        (RedirectRefused("x"), True, False),
        (LOST, False, False),
        (ConfigError("x"), False, False),
        (RegistrationError("There is no key to sign with."), False, False),
    ],
)
def test_what_is_told_to_other_processes(error: McpAuthError, *, is_answered: bool, is_final: bool) -> None:
    failure = failures((0, error), is_alive=True)
    assert (failure.is_answered, failure.is_final) == (is_answered, is_final)


@covers("refresh-back-off")
@pytest.mark.parametrize(
    "original",
    [
        DOWN,
        RedirectRefused("as.example redirects.", "Do this."),
        TokenError("x", "invalid_scope", "Do.", server_message="odd", verdict="client_error"),
    ],
)
def test_another_process_gets_an_error_that_says_the_same(original: McpAuthError) -> None:
    error = failures((0, original), is_alive=False).as_error()
    assert type(error) is type(original)
    assert (str(error), error.advice, error.server_message) == (
        str(original),
        original.advice,
        original.server_message,
    )
