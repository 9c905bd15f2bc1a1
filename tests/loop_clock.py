"""An event loop clock that a test can advance, so that a timeout of 90 seconds takes no real time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

STEP_COUNT = 60


@dataclass(slots=True)
class LoopClock:
    """Advances the time of all event loops of this process, but not the system clock."""

    seconds: float = 0.0

    def __call__(self, seconds: float) -> None:
        """Advance in one step, as after SIGSTOP and SIGCONT: timers expire before sockets are read."""
        self.seconds += seconds

    async def pass_time(self, seconds: float) -> None:
        """Advance in small steps and let the running event loop iterate after each step."""
        for _ in range(STEP_COUNT):
            self.seconds += seconds / STEP_COUNT
            await asyncio.sleep(0)
            await asyncio.sleep(0)


def _clock_time(loop: asyncio.AbstractEventLoop) -> float:
    clock: LoopClock | None = getattr(loop, "_jumping", None)
    return time.monotonic() + (0.0 if clock is None else clock.seconds)


@pytest.fixture
def loop_clock(monkeypatch: pytest.MonkeyPatch) -> LoopClock:
    """Return the clock of all event loops that start in this test; earlier loops keep real time."""
    clock, real_init = LoopClock(), asyncio.BaseEventLoop.__init__

    def init_with_clock(loop: asyncio.BaseEventLoop) -> None:
        real_init(loop)
        # Never reset the clock: if a loop outlives the test, its time must not go backwards.
        loop._jumping = clock  # type: ignore[attr-defined]

    monkeypatch.setattr(asyncio.BaseEventLoop, "__init__", init_with_clock)
    asyncio.BaseEventLoop.time = _clock_time  # type: ignore[method-assign,assignment]
    return clock


async def await_with_time_passing(
    awaitable: Awaitable[object], is_ready: Callable[[], bool], loop_clock: LoopClock
) -> object:
    """Start a call, advance by 21 seconds when `is_ready` returns true, and return the call's result."""
    task = asyncio.ensure_future(awaitable)
    for _ in range(4000):
        if is_ready() or task.done():
            break
        await asyncio.sleep(0.005)
    await loop_clock.pass_time(21)
    return await task
