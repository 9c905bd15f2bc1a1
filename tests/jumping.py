"""A clock of the event loops that a test can move forward: what takes 90 seconds takes none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

STEPS = 60


@dataclass(slots=True)
class Jumping:
    """Moves the time of all event loops of this process; the clock of the system stays as it is."""

    seconds: float = 0.0

    def __call__(self, seconds: float) -> None:
        """Jump at once, as for a process that was stopped: timers expire before sockets are read."""
        self.seconds += seconds

    async def pass_time(self, seconds: float) -> None:
        """Let time go by in steps, while the running event loop goes around."""
        for _ in range(STEPS):
            self.seconds += seconds / STEPS
            await asyncio.sleep(0)
            await asyncio.sleep(0)


def _time(loop: asyncio.AbstractEventLoop) -> float:
    jumping: Jumping | None = getattr(loop, "_jumping", None)
    return time.monotonic() + (0.0 if jumping is None else jumping.seconds)


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Jumping:
    """Return the clock of all event loops that begin in this test; those of servers before it have theirs."""
    jumping, begin = Jumping(), asyncio.BaseEventLoop.__init__

    def begin_jumping(loop: asyncio.BaseEventLoop) -> None:
        begin(loop)
        # For good: a loop that outlives the test must not go back in time.
        loop._jumping = jumping  # type: ignore[attr-defined]

    monkeypatch.setattr(asyncio.BaseEventLoop, "__init__", begin_jumping)
    asyncio.BaseEventLoop.time = _time  # type: ignore[method-assign,assignment]
    return jumping


async def while_waiting(calling: Awaitable[object], ready: Callable[[], bool], jump: Jumping) -> object:
    """Start a call, let 21 seconds pass once it is `ready`, and return what comes of it."""
    task = asyncio.ensure_future(calling)
    for _ in range(4000):
        if ready() or task.done():
            break
        await asyncio.sleep(0.005)
    await jump.pass_time(21)
    return await task
