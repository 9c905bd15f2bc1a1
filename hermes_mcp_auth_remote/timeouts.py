"""Every time limit that a token request meets, in one table, with the relations between them.

A token request spends something: an authorization code, a device code, or a refresh token that the server
replaces. Its response exists once. So a request that was sent is read until its connection dies, and every
other limit gives it that time. `tests/test_times.py` asserts the relations.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Time limits in seconds. Tests pass smaller ones; nothing else changes them."""

    # For one response, redirects included. A token request that was sent has `flight_seconds`.
    response_seconds: float = 20.0
    # How long a caller waits for a token, or for a code to be exchanged. The work goes on without the caller.
    caller_seconds: float = 20.0
    # No request of an exchange is sent later than this after the exchange began: the last one needs time too.
    send_seconds: float = 45.0
    # For all requests of an exchange together: whatever was sent is read until then.
    exchange_seconds: float = 90.0
    # How long a process waits for the lock under which another one refreshes: longer than a flight.
    lock_seconds: float = 100.0
    # How long a process waits for that lock if its own token is due but still good.
    due_lock_seconds: float = 1.0
    # How long a login may stay `exchanging`: one flight for the exchange, one for the lock of a refresh under
    # way. After that the process that claimed the login is gone.
    claim_seconds: float = 200.0
    # For all that is asked before a person sees a login.
    login_start_seconds: float = 60.0
    # How long a process that ends waits for what is not a token request that was sent.
    exit_seconds: float = 1.0


TIME_LIMITS = TimeLimits()

# A limit that has passed is not final: a process that was stopped finds its timers expired and the response
# in the socket. The event loop polls its sockets so many times more, with so many seconds in between.
FINAL_POLLS = 10
FINAL_POLL_SECONDS = 0.02
# What may be left to do after the last response of a flight: files to write.
STORE_SECONDS = 5.0
# A process that ends says what it waits for if that takes longer than this.
EXIT_NOTICE_DELAY_SECONDS = 0.5
