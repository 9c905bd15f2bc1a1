"""A time limit: if its timer fires late, data that arrived in time is still read."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from hermes_mcp_auth_remote.timeouts import FINAL_POLL_SECONDS, FINAL_POLLS


class Deadline:
    """Like `asyncio.timeout`, but data that arrived before the limit is still read after it.

    In a process that was stopped (SIGSTOP, a suspended laptop), the timers expire before the event loop reads
    its sockets. So after the limit, the loop polls its sockets FINAL_POLLS more times.
    """

    __slots__ = (
        "_expires_at",
        "_loop",
        "_timeout",
        "_timer",
    )

    def __init__(self, timeout_seconds: float) -> None:
        """Set the limit to `timeout_seconds` from now. Must be called in an event loop."""
        self._loop = asyncio.get_running_loop()
        self._timeout = asyncio.timeout(None)
        self._expires_at = self._loop.time() + timeout_seconds
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        """Start the block that the limit applies to."""
        await self._timeout.__aenter__()
        self._timer = self._loop.call_at(self._expires_at, self._poll_sockets, FINAL_POLLS)
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Raise TimeoutError if the limit ended the block."""
        if self._timer is not None:
            self._timer.cancel()
        await self._timeout.__aexit__(error_type, error, traceback)

    @property
    def has_passed(self) -> bool:
        """True if the limit ended the block."""
        return self._timeout.expired()

    def reschedule(self, expires_at: float) -> None:
        """Move the limit to another time of the event loop's clock."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(expires_at, self._poll_sockets, FINAL_POLLS)

    def _poll_sockets(self, polls_left: int) -> None:
        if polls_left:
            # Each timer costs one more poll of the sockets, however late the loop is.
            self._timer = self._loop.call_later(FINAL_POLL_SECONDS, self._poll_sockets, polls_left - 1)
        else:
            self._timer = None
            self._timeout.reschedule(self._loop.time())
