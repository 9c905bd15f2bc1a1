"""An event loop clock that a test can advance, so that a timeout of 90 seconds takes no real time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

STEPS = 60


@dataclass(slots=True)
class Jumping:
    """Advances the time of all event loops of this process, but not the system clock."""

    seconds: float = 0.0

    def __call__(self, seconds: float) -> None:
        """Advance in one step, as after SIGSTOP and SIGCONT: timers expire before sockets are read."""
        self.seconds += seconds

    async def pass_time(self, seconds: float) -> None:
        """Advance in small steps and let the running event loop iterate after each step."""
        for _ in range(STEPS):
            self.seconds += seconds / STEPS
            await asyncio.sleep(0)
            await asyncio.sleep(0)


def _time(loop: asyncio.AbstractEventLoop) -> float:
    jumping: Jumping | None = getattr(loop, "_jumping", None)
    return time.monotonic() + (0.0 if jumping is None else jumping.seconds)


@pytest.fixture
def jump(monkeypatch: pytest.MonkeyPatch) -> Jumping:
    """Return the clock of all event loops that start in this test; earlier loops keep real time."""
    jumping, begin = Jumping(), asyncio.BaseEventLoop.__init__

    def begin_jumping(loop: asyncio.BaseEventLoop) -> None:
        begin(loop)
        # Never reset: the time of a loop that outlives the test must not go backwards.
        loop._jumping = jumping  # type: ignore[attr-defined]

    monkeypatch.setattr(asyncio.BaseEventLoop, "__init__", begin_jumping)
    asyncio.BaseEventLoop.time = _time  # type: ignore[method-assign,assignment]
    return jumping


async def while_waiting(calling: Awaitable[object], ready: Callable[[], bool], jump: Jumping) -> object:
    """Start a call, advance by 21 seconds when `ready` returns true, and return the call's result."""
    task = asyncio.ensure_future(calling)
    for _ in range(4000):
        if ready() or task.done():
            break
        await asyncio.sleep(0.005)
    await jump.pass_time(21)
    return await task
