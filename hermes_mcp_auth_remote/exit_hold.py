"""What a process that ends waits for: token requests that were sent, until what they bring is stored.

Refreshes, code exchanges and device polls run in daemon threads, which an ending interpreter abandons. Each
of them is an ExitHold. It holds up the exit from the moment that its token request is sent, and not before.
The wait is an atexit handler: daemon threads still run then, but no thread can be started (Python 3.12).
"""

from __future__ import annotations

import atexit
import contextlib
import math
import sys
import threading
import time
from contextvars import ContextVar, Token
from typing import Self

from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.timeouts import EXIT_NOTICE_DELAY_SECONDS, STORE_SECONDS

_current_hold: ContextVar[ExitHold | None] = ContextVar("exit_hold", default=None)


class ExitHold:
    """Holds up the end of the process from `note_sent` to the end of its block. Thread-safe.

    Used once, in the task that sends the request.
    """

    __slots__ = (
        "_context_token",
        "_is_cancelled",
        "description",
        "holds_until",
        "host",
    )

    def __init__(self) -> None:
        self._is_cancelled = False
        self._context_token: Token[ExitHold | None] | None = None
        # The host that got the token request; None: nothing was sent.
        self.host: str | None = None
        # What the process waits for at its end, in words; and until when, by the monotonic clock.
        self.description = ""
        self.holds_until = -math.inf

    def __enter__(self) -> Self:
        """Make this the hold of the current task."""
        self._context_token = _current_hold.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Let the process end."""
        if self._context_token is not None:
            _current_hold.reset(self._context_token)
        _process_holds.remove(self)

    def hold_for_response(self, host: str, timeout_seconds: float) -> None:
        """Hold up the exit: a token request goes to `host`, and is read for at most `seconds`.

        Raises CancelledError if nothing may be sent any more: the process ends, or `abandon` was called.
        """
        with _process_holds.condition:
            if self._is_cancelled or (_process_holds.is_ending and self.host is None):
                # Loaded here: commands that ask nobody for anything load no event loop.
                from asyncio import CancelledError  # noqa: PLC0415

                raise CancelledError
            self.host = host
            self._hold_exit(f"{host} to answer a token request", timeout_seconds)

    def hold_for_storing(self, server_name: str, timeout_seconds: float) -> None:
        """Hold up the exit: tokens of the server `name` came and exist nowhere else until they are stored."""
        with _process_holds.condition:
            self._hold_exit(f"the tokens of {server_name} to be stored", timeout_seconds)

    def _hold_exit(self, description: str, timeout_seconds: float) -> None:
        self.description = description
        self.holds_until = time.monotonic() + timeout_seconds + STORE_SECONDS
        _process_holds.holds.add(self)

    def cancel_if_unsent(self) -> bool:
        """Make sure that nothing is sent from now on; False if it was sent already."""
        with _process_holds.condition:
            self._is_cancelled = self.host is None
            return self._is_cancelled


class _ProcessHolds:
    """The holds of this process."""

    def __init__(self) -> None:
        self.reset_in_child()
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Forget all holds in a child process: it does not have the parent's threads."""
        self.condition = threading.Condition()
        self.holds: set[ExitHold] = set()
        self.is_ending = False
        self.was_interrupted = False
        self.has_given_up = False

    def remove(self, hold: ExitHold) -> None:
        with self.condition:
            self.holds.discard(hold)
            self.condition.notify_all()


_process_holds = _ProcessHolds()


def hold_exit_for_response(host: str, timeout_seconds: float) -> None:
    """Tell the hold of the current task, if it has one; raises as `ExitHold.note_sent` does."""
    hold = _current_hold.get()
    if hold is not None:
        hold.hold_for_response(host, timeout_seconds)


def hold_exit_for_storing(server_name: str, timeout_seconds: float) -> None:
    """Tell the hold of the current task, if it has one, that the tokens of a server are being stored."""
    hold = _current_hold.get()
    if hold is not None:
        hold.hold_for_storing(server_name, timeout_seconds)


def record_interrupt() -> None:
    """Say at once what the exit waits for: the user has pressed Ctrl-C."""
    _process_holds.was_interrupted = True


def wait_for_sent_requests() -> None:
    """Send no more token requests, and wait until what those under way bring is stored.

    For the end of the process, and before it replaces itself (exec). Says on standard error what it waits
    for. Raises KeyboardInterrupt; it then waits no more, however often it is called.
    """
    with _process_holds.condition:
        _process_holds.is_ending = True
    if _process_holds.has_given_up:
        return
    said_at = time.monotonic() + (0.0 if _process_holds.was_interrupted else EXIT_NOTICE_DELAY_SECONDS)
    is_said = False
    try:
        with _process_holds.condition:
            while (left := _seconds_left()) > 0:
                now = time.monotonic()
                if not is_said and now >= said_at:
                    is_said = True
                    _print_wait_notice(left)
                # In steps: on Windows a wait without an end ignores Ctrl-C.
                _process_holds.condition.wait(min(left, 1.0 if is_said else max(said_at - now, 0.0)))
    except KeyboardInterrupt:
        _process_holds.has_given_up = True
        raise


def _seconds_left() -> float:
    now = time.monotonic()
    return max((hold.holds_until - now for hold in _process_holds.holds), default=0.0)


def _print_wait_notice(remaining_seconds: float) -> None:
    awaited, *more = sorted({hold.description for hold in _process_holds.holds})
    if more:
        awaited += f" (and {len(more)} more)"
    again = "again " if _process_holds.was_interrupted else ""
    text = f"Waiting for {awaited}, at most {math.ceil(remaining_seconds)} s; Ctrl-C {again}ends at once."
    # The terminal may be gone, and a process without one has no standard error at all.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@atexit.register
def _wait_at_exit() -> None:
    # The second Ctrl-C: the exit goes on.
    with contextlib.suppress(KeyboardInterrupt):
        wait_for_sent_requests()
