"""Polls that a server does not answer do not block the polls of other servers."""

from __future__ import annotations

import asyncio
import threading

import pytest

from hermes_mcp_auth_remote.service.poll_scheduler import (
    MAX_RUNNING_STEPS,
    MAX_RUNNING_STEPS_PER_SERVER,
    SLOW_STEP_SECONDS,
    Job,
    PollScheduler,
)
from tests.jumping import Jumping, jump
from tests.requirements import covers
from tests.service.test_polling import SECONDS, Counted, Told

pytestmark = pytest.mark.slow

__all__ = ["jump"]


class Hanging(Counted):
    """Ends the steps of the server "honest" at once, and all other steps when the gate opens."""

    async def run_step(self, job: Job) -> float | None:
        return None if job.quota_key == "honest" else await super().run_step(job)


@covers("device-heap", "late-tokens")
def test_servers_that_answer_late_leave_their_turns_to_others(jump: Jumping) -> None:
    work, told = Hanging(held=True), Told()
    work.filled_by = MAX_RUNNING_STEPS
    poller = PollScheduler(work)
    for number in range(MAX_RUNNING_STEPS):
        place = f"hostile-{number // MAX_RUNNING_STEPS_PER_SERVER}"
        poller.subscribe(f"{number}", place, told.of(f"{number}"))
    assert work.full.wait(SECONDS)
    poller.subscribe("mine", "honest", told.of("mine"))
    turn = threading.Event()
    poller._call_in_thread(turn.set)
    assert turn.wait(SECONDS)
    assert told.troubles == {}
    jump(SLOW_STEP_SECONDS + 1)
    assert told.wait() == ["mine"]
    work.gate.set()
    told.wait(MAX_RUNNING_STEPS)
    assert work.most_at_once == MAX_RUNNING_STEPS


def test_the_jumping_clock_is_a_clock(jump: Jumping) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        jump(1000)
        return loop.time() - before

    assert asyncio.run(main()) >= 1000
