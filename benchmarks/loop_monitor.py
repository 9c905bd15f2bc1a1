"""Measure how long an event loop is blocked: its longest callback, and the longest delay of a timer."""

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
    """Records the longest callback and the longest delay of a due timer, in seconds."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Reset the measurements."""
        self.longest_callback_seconds = self.longest_wait_seconds = 0.0
        self.longest_callback_name = ""
        self.cpu_seconds_at_reset = time.process_time()

    def report(self) -> str:
        """Return the measurements and the process's CPU time as JSON."""
        cpu_seconds = time.process_time() - self.cpu_seconds_at_reset
        measurements = {
            "wall": self.longest_callback_seconds,
            "wait": self.longest_wait_seconds,
            "used": cpu_seconds,
            "what": self.longest_callback_name,
        }
        return json.dumps(measurements)

    def time_callbacks(self) -> None:
        """Time every callback of this process's loops from now on."""
        run_handle = asyncio.Handle._run  # noqa: SLF001

        def run_timed(handle: asyncio.Handle) -> None:
            started_at = time.perf_counter()
            run_handle(handle)
            duration_seconds = time.perf_counter() - started_at
            if duration_seconds > self.longest_callback_seconds:
                self.longest_callback_seconds = duration_seconds
                # Record the name of a task's coroutine, but no argument: an argument might be a secret.
                task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]  # noqa: SLF001
                coroutine = task.get_coro() if isinstance(task, asyncio.Task) else None
                self.longest_callback_name = str(getattr(coroutine, "__qualname__", ""))

        asyncio.Handle._run = run_timed  # type: ignore[assignment, method-assign]  # noqa: SLF001

    async def measure_waits(self) -> None:
        """Wait for one short timer after the other."""
        while True:
            due = time.perf_counter() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.longest_wait_seconds = max(self.longest_wait_seconds, time.perf_counter() - due)

    def handle_commands(self) -> None:
        """Execute the commands on standard input until it ends."""
        for line in sys.stdin:
            if line.strip() == "begin":
                self.reset()
                print("{}", flush=True)
            else:
                print(self.report(), flush=True)


async def run_monitored(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine, and measure the event loop while it runs."""
    monitor = LoopMonitor()
    monitor.time_callbacks()
    threading.Thread(target=monitor.handle_commands, daemon=True).start()
    waits_task = asyncio.create_task(monitor.measure_waits())
    try:
        await coroutine
    finally:
        waits_task.cancel()
