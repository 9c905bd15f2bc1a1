"""The time limits: which one must be longer than which."""

from __future__ import annotations

from hermes_mcp_auth_remote.http import client
from hermes_mcp_auth_remote.service import complete_login, start_login
from hermes_mcp_auth_remote.timeouts import FINAL_POLL_SECONDS, FINAL_POLLS, STORE_SECONDS, TIME_LIMITS
from tests.requirements import covers

FINAL_POLLS_SECONDS = FINAL_POLLS * FINAL_POLL_SECONDS


@covers("late-tokens")
def test_time_limits_have_the_documented_values() -> None:
    assert TIME_LIMITS.caller_seconds == TIME_LIMITS.response_seconds == 20
    assert (TIME_LIMITS.send_seconds, TIME_LIMITS.exchange_seconds, TIME_LIMITS.lock_seconds) == (45, 90, 100)
    assert TIME_LIMITS.due_lock_seconds == 1


@covers("late-tokens")
def test_each_limit_is_longer_than_the_steps_within_it() -> None:
    # When the last request of an exchange is sent, at least the time that a response may take is left.
    assert TIME_LIMITS.send_seconds + TIME_LIMITS.response_seconds < TIME_LIMITS.exchange_seconds
    # A single flight ends and stores its files before another process stops waiting for the lock.
    assert TIME_LIMITS.exchange_seconds + FINAL_POLLS_SECONDS + STORE_SECONDS < TIME_LIMITS.lock_seconds
    # The exchange of a login may wait for the lock of another flight before it stores the tokens.
    assert TIME_LIMITS.exchange_seconds + TIME_LIMITS.lock_seconds + STORE_SECONDS < TIME_LIMITS.claim_seconds
    assert 2 * TIME_LIMITS.exchange_seconds < TIME_LIMITS.claim_seconds
    # A due token is used long before its caller would time out.
    assert TIME_LIMITS.due_lock_seconds < TIME_LIMITS.caller_seconds / 2


@covers("late-tokens")
def test_all_modules_use_the_shared_time_limits() -> None:
    assert TIME_LIMITS.response_seconds == client.RESPONSE_SECONDS
    assert TIME_LIMITS.claim_seconds == complete_login.CLAIM_SECONDS
    assert TIME_LIMITS.login_start_seconds == start_login.LOGIN_START_SECONDS
