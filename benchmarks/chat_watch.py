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


class Watch:
    """The longest of each so far, in seconds: `wall` of one callback, `wait` for a timer that is due."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget what was measured."""
        self.wall = self.wait = 0.0
        self.what = ""
        self.cpu_at = time.process_time()

    def report(self) -> str:
        """Return what was measured, with the process's CPU time, as JSON."""
        used = time.process_time() - self.cpu_at
        found = {"wall": self.wall, "wait": self.wait, "used": used, "what": self.what}
        return json.dumps(found)

    def time_callbacks(self) -> None:
        """Time every callback of this process's loops from now on."""
        run = asyncio.Handle._run  # noqa: SLF001

        def timed(handle: asyncio.Handle) -> None:
            begun = time.perf_counter()
            run(handle)
            wall = time.perf_counter() - begun
            if wall > self.wall:
                self.wall = wall
                # Of a task, the name of its coroutine: no argument, which might be a secret.
                task = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]  # noqa: SLF001
                done = task.get_coro() if isinstance(task, asyncio.Task) else None
                self.what = str(getattr(done, "__qualname__", ""))

        asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]  # noqa: SLF001

    async def tick(self) -> None:
        """Wait for one short timer after the other."""
        while True:
            due = time.perf_counter() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.wait = max(self.wait, time.perf_counter() - due)

    def listen(self) -> None:
        """Do as standard input says, until it ends."""
        for line in sys.stdin:
            if line.strip() == "begin":
                self.begin()
                print("{}", flush=True)
            else:
                print(self.report(), flush=True)


async def watched(work: Coroutine[Any, Any, None]) -> None:
    """Do some work, and watch the loop meanwhile."""
    watch = Watch()
    watch.time_callbacks()
    threading.Thread(target=watch.listen, daemon=True).start()
    ticking = asyncio.create_task(watch.tick())
    try:
        await work
    finally:
        ticking.cancel()
