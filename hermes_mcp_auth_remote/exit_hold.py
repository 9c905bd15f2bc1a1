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

from hermes_mcp_auth_remote.fork import begin_anew_in_children
from hermes_mcp_auth_remote.timeouts import SILENT_SECONDS, STORE_SECONDS

_current: ContextVar[ExitHold | None] = ContextVar("exit_hold", default=None)


class ExitHold:
    """Holds up the end of the process from `note_sent` to the end of its block. Thread-safe.

    Used once, in the task that sends the request.
    """

    __slots__ = ("_is_abandoned", "_token", "awaited", "host", "until")

    def __init__(self) -> None:
        self._is_abandoned = False
        self._token: Token[ExitHold | None] | None = None
        # The host that got the token request; None: nothing was sent.
        self.host: str | None = None
        # What the process waits for at its end, in words; and until when, by the monotonic clock.
        self.awaited = ""
        self.until = -math.inf

    def __enter__(self) -> Self:
        """Make this the hold of the current task."""
        self._token = _current.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Let the process end."""
        if self._token is not None:
            _current.reset(self._token)
        _process.remove(self)

    def note_sent(self, host: str, seconds: float) -> None:
        """Hold up the exit: a token request goes to `host`, and is read for at most `seconds`.

        Raises CancelledError if nothing may be sent any more: the process ends, or `abandon` was called.
        """
        with _process.changed:
            if self._is_abandoned or (_process.is_ending and self.host is None):
                # Loaded here: commands that ask nobody for anything load no event loop.
                from asyncio import CancelledError  # noqa: PLC0415

                raise CancelledError
            self.host = host
            self._hold(f"{host} to answer a token request", seconds)

    def note_storing(self, name: str, seconds: float) -> None:
        """Hold up the exit: tokens of the server `name` came and exist nowhere else until they are stored."""
        with _process.changed:
            self._hold(f"the tokens of {name} to be stored", seconds)

    def _hold(self, awaited: str, seconds: float) -> None:
        self.awaited = awaited
        self.until = time.monotonic() + seconds + STORE_SECONDS
        _process.holds.add(self)

    def abandon(self) -> bool:
        """Make sure that nothing is sent from now on; False if it was sent already."""
        with _process.changed:
            self._is_abandoned = self.host is None
            return self._is_abandoned


class _Process:
    """The holds of this process."""

    def __init__(self) -> None:
        self.forked()
        begin_anew_in_children(self)

    def forked(self) -> None:
        """Forget all holds in a child process: it does not have the parent's threads."""
        self.changed = threading.Condition()
        self.holds: set[ExitHold] = set()
        self.is_ending = False
        self.was_interrupted = False
        self.gave_up = False

    def remove(self, hold: ExitHold) -> None:
        with self.changed:
            self.holds.discard(hold)
            self.changed.notify_all()


_process = _Process()


def note_sent(host: str, seconds: float) -> None:
    """Tell the hold of the current task, if it has one; raises as `ExitHold.note_sent` does."""
    hold = _current.get()
    if hold is not None:
        hold.note_sent(host, seconds)


def note_storing(name: str, seconds: float) -> None:
    """Tell the hold of the current task, if it has one, that the tokens of a server are being stored."""
    hold = _current.get()
    if hold is not None:
        hold.note_storing(name, seconds)


def note_interrupt() -> None:
    """Say at once what the exit waits for: the user has pressed Ctrl-C."""
    _process.was_interrupted = True


def wait_for_sent_requests() -> None:
    """Send no more token requests, and wait until what those under way bring is stored.

    For the end of the process, and before it replaces itself (exec). Says on standard error what it waits
    for. Raises KeyboardInterrupt; it then waits no more, however often it is called.
    """
    with _process.changed:
        _process.is_ending = True
    if _process.gave_up:
        return
    said_at = time.monotonic() + (0.0 if _process.was_interrupted else SILENT_SECONDS)
    is_said = False
    try:
        with _process.changed:
            while (left := _seconds_left()) > 0:
                now = time.monotonic()
                if not is_said and now >= said_at:
                    is_said = True
                    _say(left)
                # In steps: on Windows a wait without an end ignores Ctrl-C.
                _process.changed.wait(min(left, 1.0 if is_said else max(said_at - now, 0.0)))
    except KeyboardInterrupt:
        _process.gave_up = True
        raise


def _seconds_left() -> float:
    now = time.monotonic()
    return max((hold.until - now for hold in _process.holds), default=0.0)


def _say(seconds: float) -> None:
    awaited, *more = sorted({hold.awaited for hold in _process.holds})
    if more:
        awaited += f" (and {len(more)} more)"
    again = "again " if _process.was_interrupted else ""
    text = f"Waiting for {awaited}, at most {math.ceil(seconds)} s; Ctrl-C {again}ends at once."
    # The terminal may be gone, and a process without one has no standard error at all.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


@atexit.register
def _wait_at_exit() -> None:
    # The second Ctrl-C: the exit goes on.
    with contextlib.suppress(KeyboardInterrupt):
        wait_for_sent_requests()
