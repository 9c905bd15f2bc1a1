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
UNAVAILABLE = MalformedResponse("as.example responded to the refresh with status 503.", "Try again later.")
INVALID_GRANT = TokenError("as.example refused the refresh: invalid_grant.", "invalid_grant")
UNAUTHORIZED = TokenError("as.example refused the refresh: status 401.", "status 401", verdict="unauthorized")
TIMED_OUT = TimedOut("as.example did not respond in time.")


def record_failures(
    *outcomes: tuple[float, McpAuthError], is_token_valid: bool, previous: RefreshFailure | None = None
) -> RefreshFailure:
    for seconds, error in outcomes:
        previous = build_refresh_failure(previous, error, NOW + seconds, is_token_valid=is_token_valid)
    assert previous is not None
    return previous


@covers("refresh-back-off")
def test_the_pause_grows_up_to_a_limit_while_the_server_responds() -> None:
    for is_alive, pauses in (
        (True, [15, 30, 60, 120, 240, 300, 300]),
        (False, [5, 10, 20, 30, 30, 30, 30]),
    ):
        failure: RefreshFailure | None = None
        for number, pause in enumerate(pauses):
            failure = build_refresh_failure(
                failure, UNAVAILABLE, NOW + 1000 * number, is_token_valid=is_alive
            )
            assert failure.pause_seconds == pause
            failed_at = NOW + 1000 * number
            assert failure.retry_at == failed_at + pause
            assert not failure.can_retry(failed_at, is_token_valid=is_alive)
            assert not failure.can_retry(failed_at + pause - 0.1, is_token_valid=is_alive)
            assert failure.can_retry(failed_at + pause, is_token_valid=is_alive)
            # A clock that was set back does not extend the pause.
            assert failure.can_retry(failed_at - 1, is_token_valid=is_alive)
            assert (failure.failures, failure.first_at) == (number + 1, NOW)


@covers("refresh-back-off")
def test_network_failures_do_not_lengthen_the_pause() -> None:
    failure = record_failures((0, TIMED_OUT), (1, TIMED_OUT), (2, TIMED_OUT), is_token_valid=False)
    assert (failure.pause_seconds, failure.is_answered, failure.failures) == (5, False, 3)
    assert record_failures((3, UNAVAILABLE), is_token_valid=False, previous=failure).pause_seconds == 5


@covers("refresh-back-off")
@pytest.mark.parametrize("error", [UNAVAILABLE, INVALID_GRANT, UNAUTHORIZED, TIMED_OUT])
def test_one_more_refresh_is_allowed_when_the_access_token_expires(error: McpAuthError) -> None:
    failure = record_failures((0, error), is_token_valid=True)
    assert not failure.can_retry(NOW + 1, is_token_valid=True)
    assert failure.can_retry(NOW + 1, is_token_valid=False)
    second = record_failures((1, error), is_token_valid=False, previous=failure)
    assert not second.can_retry(NOW + 1, is_token_valid=False)
    assert second.pause_seconds == 5


@covers("refresh-back-off")
def test_no_refresh_is_allowed_after_a_final_failure() -> None:
    failure = record_failures((0, INVALID_GRANT), is_token_valid=False)
    assert failure.is_final
    assert failure.retry_at is None
    assert not any(failure.can_retry(NOW + seconds, is_token_valid=False) for seconds in (-1, 0, 60, 1e9))


@covers("refresh-verdict")
@pytest.mark.parametrize(
    ("outcomes", "is_final"),
    [
        ([(0, UNAUTHORIZED)], False),
        ([(0, UNAUTHORIZED), (59.9, UNAUTHORIZED)], False),
        ([(0, UNAUTHORIZED), (60, UNAUTHORIZED)], True),
        ([(0, UNAUTHORIZED), (5, UNAUTHORIZED), (15, UNAUTHORIZED), (60, UNAUTHORIZED)], True),
        ([(0, UNAUTHORIZED), (60, UNAVAILABLE)], False),
        ([(0, UNAUTHORIZED), (60, UNAVAILABLE), (70, UNAUTHORIZED)], True),
        ([(0, UNAVAILABLE), (60, UNAUTHORIZED)], False),
        # The clock was set back, so the minute starts again.
        ([(100, UNAUTHORIZED), (0, UNAUTHORIZED), (59, UNAUTHORIZED)], False),
        ([(100, UNAUTHORIZED), (0, UNAUTHORIZED), (60, UNAUTHORIZED)], True),
    ],
)
def test_a_401_without_error_code_is_final_if_it_repeats_after_a_minute(
    outcomes: list[tuple[float, McpAuthError]], *, is_final: bool
) -> None:
    for is_alive in (False, True):
        assert record_failures(*outcomes, is_token_valid=is_alive).is_final is is_final


@covers("refresh-verdict")
@pytest.mark.parametrize(
    ("error", "is_answered", "is_final"),
    [
        (UNAVAILABLE, True, False),
        (INVALID_GRANT, True, True),
        (TokenError("x", "invalid_scope", verdict="client_error"), True, False),
        (RedirectRefused("x"), True, False),
        (TIMED_OUT, False, False),
        (ConfigError("x"), False, False),
        (RegistrationError("There is no key to sign with."), False, False),
    ],
)
def test_a_failure_records_whether_it_is_answered_and_final(
    error: McpAuthError, *, is_answered: bool, is_final: bool
) -> None:
    failure = record_failures((0, error), is_token_valid=True)
    assert (failure.is_answered, failure.is_final) == (is_answered, is_final)


@covers("refresh-back-off")
@pytest.mark.parametrize(
    "original",
    [
        UNAVAILABLE,
        RedirectRefused("as.example redirects.", "Do this."),
        TokenError("x", "invalid_scope", "Do.", server_message="odd", verdict="client_error"),
    ],
)
def test_a_stored_failure_gives_an_equal_error(original: McpAuthError) -> None:
    error = record_failures((0, original), is_token_valid=False).as_error()
    assert type(error) is type(original)
    assert (str(error), error.advice, error.server_message) == (
        str(original),
        original.advice,
        original.server_message,
    )
