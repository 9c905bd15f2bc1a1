"""All time limits of a token request in one table, with the relations between them.

A token request uses up an authorization code, a device code or a rotating refresh token, and the server sends
its response only once. So this process reads the response until the connection fails, and all other limits
allow for that time. `tests/test_timeouts.py` asserts the relations.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Time limits in seconds. Tests pass smaller values, and `http.traced_exchange` passes longer ones."""

    # For one response, redirects included. After a token request was sent, `exchange_seconds` applies.
    response_seconds: float = 20.0
    # How long a caller waits for a token or a code exchange. The work goes on after this time.
    caller_seconds: float = 20.0
    # An exchange sends no request after this time, so that the last response has time to arrive.
    send_seconds: float = 45.0
    # For all requests of an exchange together: responses are read until then.
    exchange_seconds: float = 90.0
    # How long a process waits for the lock while another one refreshes: longer than an exchange.
    lock_seconds: float = 100.0
    # How long a process waits for that lock if its token is due for a refresh but still valid.
    due_lock_seconds: float = 1.0
    # How long a login may stay `exchanging`: the time of the exchange and of a wait for the lock. After that,
    # the process that claimed the login has ended.
    claim_seconds: float = 200.0
    # For all requests before the user sees a login.
    login_start_seconds: float = 60.0
    # How long an ending process waits for work other than token requests that were sent.
    exit_seconds: float = 1.0


TIME_LIMITS = TimeLimits()

# After a limit, the event loop polls its sockets this many more times, with this many seconds in between. In
# a process that was stopped, the timers have expired, but the response may be in the socket.
FINAL_POLLS = 10
FINAL_POLL_SECONDS = 0.02
# For writing files after the last response of an exchange.
STORE_SECONDS = 5.0
# An ending process prints what it waits for if the wait takes longer than this.
EXIT_NOTICE_DELAY_SECONDS = 0.5
