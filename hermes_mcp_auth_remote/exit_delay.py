"""Delay the exit of the process until the tokens of sent token requests are stored.

Refreshes, code exchanges and device polls run in daemon threads, which an ending interpreter abandons. Each
such thread has an ExitDelay, which delays the exit after the thread has sent its token request. An atexit
handler waits for these threads: daemon threads still run then, but no thread can be started (Python 3.12).
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

_current_hold: ContextVar[ExitDelay | None] = ContextVar("exit_delay", default=None)


class ExitDelay:
    """Delays the end of the process from `hold_for_response` to the end of its block. Thread-safe.

    Use it once, in the task that sends the request.
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
        self._context_token: Token[ExitDelay | None] | None = None
        # The host that got the token request; None: no request was sent.
        self.host: str | None = None
        # `description` says what the process waits for; the exit notice contains it. `holds_until` is the
        # latest end of the wait (`time.monotonic()`).
        self.description = ""
        self.holds_until = -math.inf

    def __enter__(self) -> Self:
        """Make this the hold of the current task."""
        self._context_token = _current_hold.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop delaying the exit."""
        if self._context_token is not None:
            _current_hold.reset(self._context_token)
        _process_holds.remove(self)

    def hold_for_response(self, host: str, timeout_seconds: float) -> None:
        """Delay the exit for a token request to `host`, whose response takes at most `timeout_seconds`.

        Call it just before the request is sent. Raises CancelledError if no request may be sent any more: the
        process is ending, or `cancel_if_unsent` was called.
        """
        with _process_holds.condition:
            if self._is_cancelled or (_process_holds.is_ending and self.host is None):
                # Imported here: commands that send no request load no event loop.
                from asyncio import CancelledError  # noqa: PLC0415

                raise CancelledError
            self.host = host
            self._hold_exit(f"{host} to answer a token request", timeout_seconds)

    def hold_for_storing(self, server_name: str, timeout_seconds: float) -> None:
        """Delay the exit until new tokens of a server are stored, for at most `timeout_seconds`."""
        with _process_holds.condition:
            self._hold_exit(f"the tokens of {server_name} to be stored", timeout_seconds)

    def _hold_exit(self, description: str, timeout_seconds: float) -> None:
        self.description = description
        self.holds_until = time.monotonic() + timeout_seconds + STORE_SECONDS
        _process_holds.holds.add(self)

    def cancel_if_unsent(self) -> bool:
        """Prevent the request from being sent, and return True; return False if it was sent already."""
        with _process_holds.condition:
            self._is_cancelled = self.host is None
            return self._is_cancelled


class _ProcessHolds:
    """The holds of this process."""

    def __init__(self) -> None:
        self.reset_in_child()
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Forget all holds in a forked child process: it does not have the parent's threads."""
        self.condition = threading.Condition()
        self.holds: set[ExitDelay] = set()
        self.is_ending = False
        self.was_interrupted = False
        self.has_given_up = False

    def remove(self, hold: ExitDelay) -> None:
        with self.condition:
            self.holds.discard(hold)
            self.condition.notify_all()


_process_holds = _ProcessHolds()


def hold_exit_for_response(host: str, timeout_seconds: float) -> None:
    """Call `ExitDelay.hold_for_response` on the hold of the current task, if there is one."""
    hold = _current_hold.get()
    if hold is not None:
        hold.hold_for_response(host, timeout_seconds)


def hold_exit_for_storing(server_name: str, timeout_seconds: float) -> None:
    """Call `ExitDelay.hold_for_storing` on the hold of the current task, if there is one."""
    hold = _current_hold.get()
    if hold is not None:
        hold.hold_for_storing(server_name, timeout_seconds)


def record_interrupt() -> None:
    """Record that the user has pressed Ctrl-C: the exit notice is then printed without a delay."""
    _process_holds.was_interrupted = True


def wait_for_sent_requests() -> None:
    """Prevent new token requests. Wait until the tokens from the requests already sent are stored.

    The wait has a time limit. Call this function at the end of the process, and before the process replaces
    itself (exec). Prints on standard error what it waits for. Raises KeyboardInterrupt on Ctrl-C; later calls
    then return at once.
    """
    with _process_holds.condition:
        _process_holds.is_ending = True
    if _process_holds.has_given_up:
        return
    notice_at = time.monotonic() + (0.0 if _process_holds.was_interrupted else EXIT_NOTICE_DELAY_SECONDS)
    is_notice_printed = False
    try:
        with _process_holds.condition:
            while (remaining_seconds := _seconds_left()) > 0:
                now = time.monotonic()
                if not is_notice_printed and now >= notice_at:
                    is_notice_printed = True
                    _print_wait_notice(remaining_seconds)
                # Wait in short steps: on Windows, an unlimited wait ignores Ctrl-C.
                _process_holds.condition.wait(
                    min(remaining_seconds, 1.0 if is_notice_printed else max(notice_at - now, 0.0))
                )
    except KeyboardInterrupt:
        _process_holds.has_given_up = True
        raise


def _seconds_left() -> float:
    now = time.monotonic()
    return max((hold.holds_until - now for hold in _process_holds.holds), default=0.0)


def _print_wait_notice(remaining_seconds: float) -> None:
    description, *others = sorted({hold.description for hold in _process_holds.holds})
    if others:
        description += f" (and {len(others)} more)"
    again = "again " if _process_holds.was_interrupted else ""
    text = f"Waiting for {description}, at most {math.ceil(remaining_seconds)} s; Ctrl-C {again}ends at once."
    # The terminal may be closed, and `sys.stderr` may be None.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@atexit.register
def _wait_at_exit() -> None:
    # A second Ctrl-C ends the wait, and the exit continues.
    with contextlib.suppress(KeyboardInterrupt):
        wait_for_sent_requests()
