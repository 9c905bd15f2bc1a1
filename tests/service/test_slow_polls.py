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
from tests.loop_clock import LoopClock, loop_clock
from tests.requirements import covers
from tests.service.test_poll_scheduler import SECONDS, OutcomeRecorder, RecordingJobRunner

pytestmark = pytest.mark.slow

__all__ = ["loop_clock"]


class HangingJobRunner(RecordingJobRunner):
    """Ends the steps of the server "honest" at once, and all other steps when the gate opens."""

    async def run_step(self, job: Job) -> float | None:
        return None if job.quota_key == "honest" else await super().run_step(job)


@covers("device-heap", "late-tokens")
def test_servers_that_answer_late_do_not_block_other_servers(loop_clock: LoopClock) -> None:
    job_runner, outcomes = HangingJobRunner(is_blocked=True), OutcomeRecorder()
    job_runner.full_count = MAX_RUNNING_STEPS
    scheduler = PollScheduler(job_runner)
    for number in range(MAX_RUNNING_STEPS):
        quota_key = f"hostile-{number // MAX_RUNNING_STEPS_PER_SERVER}"
        scheduler.subscribe(f"{number}", quota_key, outcomes.callback_for(f"{number}"))
    assert job_runner.full.wait(SECONDS)
    scheduler.subscribe("mine", "honest", outcomes.callback_for("mine"))
    has_handled_calls = threading.Event()
    scheduler._call_in_thread(has_handled_calls.set)
    assert has_handled_calls.wait(SECONDS)
    assert outcomes.errors == {}
    loop_clock(SLOW_STEP_SECONDS + 1)
    assert outcomes.wait() == ["mine"]
    job_runner.gate.set()
    outcomes.wait(MAX_RUNNING_STEPS)
    assert job_runner.most_at_once == MAX_RUNNING_STEPS


def test_the_jumping_clock_advances_the_event_loop(loop_clock: LoopClock) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        loop_clock(1000)
        return loop.time() - before

    assert asyncio.run(main()) >= 1000
