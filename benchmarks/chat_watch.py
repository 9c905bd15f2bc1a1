"""How long an event loop is kept from its work: its longest callback, and the longest wait for a turn."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Coroutine
from typing import Any

TICK_SECONDS = 0.002


class LoopMonitor:
    """The longest of each so far, in seconds: `wall` of one callback, `wait` for a timer that is due."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what was measured."""
        self.longest_callback_seconds = self.longest_wait_seconds = 0.0
        self.longest_callback_name = ""
        self.cpu_seconds_at_reset = time.process_time()

    def report(self) -> str:
        """Return what was measured, with the process's CPU time, as JSON."""
        used = time.process_time() - self.cpu_seconds_at_reset
        found = {
            "wall": self.longest_callback_seconds,
            "wait": self.longest_wait_seconds,
            "used": used,
            "what": self.longest_callback_name,
        }
        return json.dumps(found)

    def time_callbacks(self) -> None:
        """Time every callback of this process's loops from now on."""
        run = asyncio.Handle._run  # noqa: SLF001

        def run_timed(handle: asyncio.Handle) -> None:
            begun = time.perf_counter()
            run(handle)
            wall = time.perf_counter() - begun
            if wall > self.longest_callback_seconds:
                self.longest_callback_seconds = wall
                # Of a task, the name of its coroutine: no argument, which might be a secret.
                task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]  # noqa: SLF001
                done = task.get_coro() if isinstance(task, asyncio.Task) else None
                self.longest_callback_name = str(getattr(done, "__qualname__", ""))

        asyncio.Handle._run = run_timed  # type: ignore[assignment, method-assign]  # noqa: SLF001

    async def measure_waits(self) -> None:
        """Wait for one short timer after the other."""
        while True:
            due = time.perf_counter() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.longest_wait_seconds = max(self.longest_wait_seconds, time.perf_counter() - due)

    def handle_commands(self) -> None:
        """Do as standard input says, until it ends."""
        for line in sys.stdin:
            if line.strip() == "begin":
                self.reset()
                print("{}", flush=True)
            else:
                print(self.report(), flush=True)


async def run_monitored(coroutine: Coroutine[Any, Any, None]) -> None:
    """Do some work, and watch the loop meanwhile."""
    watch = LoopMonitor()
    watch.time_callbacks()
    threading.Thread(target=watch.handle_commands, daemon=True).start()
    ticking = asyncio.create_task(watch.measure_waits())
    try:
        await coroutine
    finally:
        ticking.cancel()
