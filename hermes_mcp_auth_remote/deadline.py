"""A time limit that polls the sockets once more before it gives up."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from hermes_mcp_auth_remote.timeouts import LAST_LOOK_SECONDS, LAST_LOOKS


class Deadline:
    """As `asyncio.timeout`, except that data which arrived before the limit is still read after it.

    Timers are monotonic. In a process that was stopped (SIGSTOP, a suspended laptop) they expire before the
    event loop reads what its sockets hold. So after the limit the loop goes around a few times more.
    """

    __slots__ = ("_at", "_handle", "_loop", "_scope")

    def __init__(self, seconds: float) -> None:
        """Set a limit of so many seconds from now. Must be called in an event loop."""
        self._loop = asyncio.get_running_loop()
        self._scope = asyncio.timeout(None)
        self._at = self._loop.time() + seconds
        self._handle: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        """Start the block that the limit is for."""
        await self._scope.__aenter__()
        self._handle = self._loop.call_at(self._at, self._look, LAST_LOOKS)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Raise TimeoutError if the limit ended the block."""
        if self._handle is not None:
            self._handle.cancel()
        await self._scope.__aexit__(kind, error, traceback)

    @property
    def has_passed(self) -> bool:
        """True if the limit ended the block."""
        return self._scope.expired()

    def move_to(self, at: float) -> None:
        """Move the limit to another time of the event loop's clock."""
        if self._handle is not None:
            self._handle.cancel()
        self._handle = self._loop.call_at(at, self._look, LAST_LOOKS)

    def _look(self, left: int) -> None:
        if left:
            # Each timer costs one more poll of the sockets, however late the loop is.
            self._handle = self._loop.call_later(LAST_LOOK_SECONDS, self._look, left - 1)
        else:
            self._handle = None
            self._scope.reschedule(self._loop.time())
