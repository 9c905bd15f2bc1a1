"""End tasks also if a library loses a cancellation.

`asyncio.wait_for` of Python 3.11 ignores a cancellation that arrives when its work has just ended, and its
caller goes on. So these functions cancel a task again until the task has ended.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# The delay before a task that goes on after a cancellation is cancelled again.
RECANCEL_SECONDS = 1.0


async def end_tasks(tasks: Collection[asyncio.Task[Any]], timeout_seconds: float) -> bool:
    """Cancel tasks, again and again, until all have ended; return False if the time is over before.

    Each cancellation also interrupts the cleanup code of a task.
    """
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + timeout_seconds
    running_tasks = {task for task in tasks if not task.done()}
    while running_tasks:
        for task in running_tasks:
            task.cancel()
        remaining_seconds = max(ends_at - loop.time(), 0.0)
        _, running_tasks = await asyncio.wait(running_tasks, timeout=min(RECANCEL_SECONDS, remaining_seconds))
        if running_tasks and loop.time() >= ends_at:
            return False
    return True


async def run_until_cancelled(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` in a task of its own. If the caller is cancelled, cancel `work` until it has ended.

    Run only work that needs no cleanup in this way. The caller can clean up afterwards, undisturbed.
    """
    task = asyncio.create_task(work)
    try:
        await asyncio.wait({task})
    except asyncio.CancelledError:
        await end_tasks([task], math.inf)
        if not task.cancelled():
            # The caller has been cancelled, so no code will ask for this error.
            task.exception()
        raise
    return task.result()
