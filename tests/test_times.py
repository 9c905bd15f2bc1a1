"""The table of time limits: which one must outlast which."""

from __future__ import annotations

from hermes_mcp_auth_remote.http import client
from hermes_mcp_auth_remote.service import complete_login, start_login
from hermes_mcp_auth_remote.timeouts import LAST_LOOK_SECONDS, LAST_LOOKS, LIMITS, STORE_SECONDS
from tests.requirements import covers

LAST_LOOKS_SECONDS = LAST_LOOKS * LAST_LOOK_SECONDS


@covers("late-tokens")
def test_the_numbers_that_were_agreed_on() -> None:
    assert LIMITS.caller_seconds == LIMITS.response_seconds == 20
    assert (LIMITS.send_seconds, LIMITS.flight_seconds, LIMITS.lock_seconds) == (45, 90, 100)
    assert LIMITS.due_lock_seconds == 1


@covers("late-tokens")
def test_each_limit_outlasts_what_happens_within_it() -> None:
    # The last request of an exchange has at least as long as an honest response takes.
    assert LIMITS.send_seconds + LIMITS.response_seconds < LIMITS.flight_seconds
    # A flight ends, its files included, before a process that waits for its lock gives up.
    assert LIMITS.flight_seconds + LAST_LOOKS_SECONDS + STORE_SECONDS < LIMITS.lock_seconds
    # A login's exchange may wait for the lock of another flight before it stores what it got.
    assert LIMITS.flight_seconds + LIMITS.lock_seconds + STORE_SECONDS < LIMITS.claim_seconds
    assert 2 * LIMITS.flight_seconds < LIMITS.claim_seconds
    # A due token is used long before its caller would time out.
    assert LIMITS.due_lock_seconds < LIMITS.caller_seconds / 2


@covers("late-tokens")
def test_the_table_is_the_only_place_that_says_them() -> None:
    assert LIMITS.response_seconds == client.ANSWER_SECONDS
    assert LIMITS.claim_seconds == complete_login.EXCHANGE_SECONDS
    assert LIMITS.begin_seconds == start_login.BEGIN_SECONDS
