"""Tasks end although a library loses a cancellation, and their cleanup is not interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys

import pytest

from hermes_mcp_auth_remote import cancellation
from hermes_mcp_auth_remote.cancellation import end_tasks, run_until_cancelled

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _short_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "RECANCEL_SECONDS", 0.001)


async def lose_cancellations(count: int) -> None:
    """Go on after `count` cancellations, as a library may."""
    for _ in range(count):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
    await asyncio.Event().wait()


@pytest.mark.parametrize("lost_count", [0, 1, 3])
async def test_tasks_are_cancelled_until_they_end(lost_count: int) -> None:
    task = asyncio.create_task(lose_cancellations(lost_count))
    await asyncio.sleep(0)
    assert await end_tasks([task], math.inf)
    assert task.cancelled()
    assert task.cancelling() == lost_count + 1


async def test_a_task_that_never_ends_costs_only_the_given_time() -> None:
    is_over = asyncio.Event()

    async def lose_all_cancellations() -> None:
        while not is_over.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await is_over.wait()

    never = asyncio.create_task(lose_all_cancellations())
    normal = asyncio.create_task(asyncio.Event().wait())
    await asyncio.sleep(0)
    assert not await end_tasks([never, normal], 0.0)
    assert normal.cancelled()
    assert not never.done()
    is_over.set()
    await never


async def test_cancellation_that_wait_for_loses_on_python_3_11_ends_the_work() -> None:
    cancellation_counts: list[int] = []

    async def work() -> None:
        awaited_task = asyncio.create_task(asyncio.sleep(0))
        # Cancel the caller after this task has ended and before `wait_for` sees that.
        awaited_task.add_done_callback(lambda _: caller.cancel())
        try:
            await asyncio.wait_for(awaited_task, 60)
            await asyncio.Event().wait()
        finally:
            this_task = asyncio.current_task()
            assert this_task is not None
            cancellation_counts.append(this_task.cancelling())

    caller = asyncio.create_task(run_until_cancelled(work()))
    await asyncio.wait({caller}, timeout=20)
    assert caller.cancelled()
    assert cancellation_counts == [2 if sys.version_info < (3, 12) else 1]


async def test_work_is_cancelled_until_it_ends_but_the_cleanup_of_the_caller_is_not() -> None:
    is_closing, may_close, events = asyncio.Event(), asyncio.Event(), list[str]()

    async def run_and_close() -> None:
        try:
            await run_until_cancelled(lose_cancellations(2))
        finally:
            events.append("closing")
            is_closing.set()
            await may_close.wait()
            events.append("closed")

    caller = asyncio.create_task(run_and_close())
    await asyncio.sleep(0)
    caller.cancel()
    async with asyncio.timeout(20):
        await is_closing.wait()
    may_close.set()
    await asyncio.wait({caller}, timeout=20)
    assert caller.cancelled()
    assert (events, caller.cancelling()) == (["closing", "closed"], 1)


async def test_result_and_error_of_the_work_reach_the_caller() -> None:
    assert await run_until_cancelled(asyncio.sleep(0, "result")) == "result"

    async def fail() -> None:
        raise ValueError("reason")

    with pytest.raises(ValueError, match="reason"):
        await run_until_cancelled(fail())
