"""PollScheduler alone: limits, order, and the callbacks at the end of a job."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar

import pytest

from hermes_mcp_auth_remote.service.poll_scheduler import (
    MAX_RUNNING_STEPS,
    MAX_RUNNING_STEPS_PER_SERVER,
    STORE_CHECK_SECONDS,
    Job,
    PollScheduler,
)
from tests.requirements import covers

pytestmark = pytest.mark.slow

SECONDS = 20


class RecordingJobRunner:
    """Records each step. A step waits for `gate`, and then returns `next_delay`."""

    def __init__(self, next_delay: float | None = None, *, is_blocked: bool = False) -> None:
        self.next_delay = next_delay
        self.gate = threading.Event()
        if not is_blocked:
            self.gate.set()
        self.lock = threading.Lock()
        self.running: Counter[str] = Counter()
        self.most_running: Counter[str] = Counter()
        self.most_at_once = 0
        self.steps: list[str] = []
        self.released: list[str] = []
        self.changed: set[str] = set()
        self.idles = threading.Semaphore(0)
        self.full = threading.Event()
        self.full_count = 0

    async def run_step(self, job: Job) -> float | None:
        with self.lock:
            next_delay = self.next_delay
            self.steps.append(job.job_id)
            self.running[job.quota_key] += 1
            self.most_running[job.quota_key] = max(
                self.most_running[job.quota_key], self.running[job.quota_key]
            )
            self.most_at_once = max(self.most_at_once, self.running.total())
            if self.running.total() == self.full_count:
                self.full.set()
        await asyncio.to_thread(self.gate.wait, SECONDS)
        with self.lock:
            self.running[job.quota_key] -= 1
        if job.job_id == "broken":
            raise ValueError("A step broke.")
        return next_delay

    def has_changed(self, job: Job) -> bool:
        return job.job_id in self.changed

    async def release_job(self, job: Job) -> None:
        self.released.append(job.job_id)

    async def release_resources(self) -> None:
        self.idles.release()

    def reset_in_child(self) -> None:
        pass


class OutcomeRecorder:
    """Records the error or None that each callback gets."""

    def __init__(self) -> None:
        self.errors: dict[str, BaseException | None] = {}
        self._order: list[str] = []
        self._called = threading.Semaphore(0)

    def callback_for(self, name: str) -> Callable[[BaseException | None], None]:
        def record_outcome(error: BaseException | None) -> None:
            assert name not in self.errors, "the callback was called twice"
            self.errors[name] = error
            self._order.append(name)
            self._called.release()

        return record_outcome

    def wait(self, count: int = 1) -> list[str]:
        for _ in range(count):
            assert self._called.acquire(timeout=SECONDS)
        return self._order


@covers("device-heap")
def test_running_steps_are_limited_in_total_and_per_server() -> None:
    job_runner, outcomes = RecordingJobRunner(is_blocked=True), OutcomeRecorder()
    job_runner.full_count = MAX_RUNNING_STEPS
    scheduler = PollScheduler(job_runner)
    for number in range(3 * MAX_RUNNING_STEPS):
        scheduler.subscribe(f"hanging-{number}", "hanging", outcomes.callback_for(f"hanging-{number}"))
    for number in range(MAX_RUNNING_STEPS):
        scheduler.subscribe(f"other-{number}", "other", outcomes.callback_for(f"other-{number}"))
    assert job_runner.full.wait(SECONDS)
    job_runner.gate.set()
    outcomes.wait(4 * MAX_RUNNING_STEPS)
    assert job_runner.most_at_once == MAX_RUNNING_STEPS
    assert job_runner.most_running == {
        "hanging": MAX_RUNNING_STEPS_PER_SERVER,
        "other": MAX_RUNNING_STEPS_PER_SERVER,
    }
    assert sorted(job_runner.steps) == sorted(outcomes.errors), "each job must run exactly once"


@covers("device-heap")
def test_jobs_beyond_the_limit_run_later_in_the_order_in_which_they_became_due() -> None:
    job_runner, outcomes = RecordingJobRunner(), OutcomeRecorder()
    scheduler = PollScheduler(job_runner)
    names = [f"login-{number}" for number in range(500)]
    for name in names:
        scheduler.subscribe(name, "one", outcomes.callback_for(name))
    outcomes.wait(len(names))
    assert job_runner.steps == names


def test_an_error_of_a_step_reaches_only_the_callback_of_its_job() -> None:
    outcomes = OutcomeRecorder()
    scheduler = PollScheduler(RecordingJobRunner())
    for name in ("broken", "whole"):
        scheduler.subscribe(name, "one", outcomes.callback_for(name))
    outcomes.wait(2)
    assert str(outcomes.errors["broken"]) == "A step broke."
    assert outcomes.errors["whole"] is None


def test_all_callbacks_of_a_job_are_called_and_the_job_runs_once() -> None:
    job_runner, outcomes, other_outcomes = (
        RecordingJobRunner(is_blocked=True),
        OutcomeRecorder(),
        OutcomeRecorder(),
    )
    scheduler = PollScheduler(job_runner)
    job_runner.full_count = 2
    scheduler.subscribe("login", "one", outcomes.callback_for("login"))
    scheduler.subscribe("login", "one", other_outcomes.callback_for("login"))
    # The scheduler handles calls in order. So when this step runs, both callbacks of the login are
    # registered.
    scheduler.subscribe("later", "one", outcomes.callback_for("later"))
    assert job_runner.full.wait(SECONDS)
    job_runner.gate.set()
    outcomes.wait(2)
    other_outcomes.wait()
    assert sorted(job_runner.steps) == ["later", "login"]


def test_a_callback_that_is_added_after_the_end_runs_the_job_again() -> None:
    job_runner, outcomes, other_outcomes = RecordingJobRunner(), OutcomeRecorder(), OutcomeRecorder()
    scheduler = PollScheduler(job_runner)
    scheduler.subscribe("login", "one", outcomes.callback_for("login"))
    outcomes.wait()
    scheduler.subscribe("login", "one", other_outcomes.callback_for("login"))
    assert other_outcomes.wait() == ["login"]
    assert job_runner.steps == ["login"] * 2


def test_the_last_unsubscribe_releases_the_job_and_ends_the_thread_until_the_next_job() -> None:
    job_runner, outcomes, other_outcomes = (
        RecordingJobRunner(next_delay=3600),
        OutcomeRecorder(),
        OutcomeRecorder(),
    )
    scheduler = PollScheduler(job_runner)
    callback, other_callback = outcomes.callback_for("login"), other_outcomes.callback_for("login")
    for round_ in (1, 2):
        scheduler.subscribe("login", "one", callback)
        scheduler.subscribe("login", "one", other_callback)
        scheduler.unsubscribe("login", callback)
        scheduler.unsubscribe("login", other_callback)
        assert job_runner.idles.acquire(timeout=SECONDS)
        assert job_runner.released == ["login"] * round_
    assert not outcomes.errors
    assert not other_outcomes.errors


class PausedJobRunner(RecordingJobRunner):
    """Blocks the scheduler's thread in `has_changed`, so that the calls of a test arrive together."""

    def __init__(self) -> None:
        super().__init__(next_delay=3600)
        self.is_checking = threading.Event()
        self.may_continue = threading.Event()

    def has_changed(self, job: Job) -> bool:
        self.is_checking.set()
        assert self.may_continue.wait(SECONDS)
        # The next step is the last one.
        self.next_delay = None
        return True


def test_a_callback_that_is_added_during_the_last_unsubscribe_is_called() -> None:
    job_runner, outcomes, other_outcomes = PausedJobRunner(), OutcomeRecorder(), OutcomeRecorder()
    scheduler = PollScheduler(job_runner)
    callback = outcomes.callback_for("login")
    scheduler.subscribe("login", "one", callback)
    assert job_runner.is_checking.wait(SECONDS)
    scheduler.unsubscribe("login", callback)
    scheduler.subscribe("login", "one", other_outcomes.callback_for("login"))
    job_runner.may_continue.set()
    assert other_outcomes.wait() == ["login"]
    assert not outcomes.errors
    assert job_runner.released == []


def test_a_step_in_flight_ends_after_the_last_unsubscribe() -> None:
    job_runner, outcomes = RecordingJobRunner(next_delay=3600, is_blocked=True), OutcomeRecorder()
    job_runner.full_count = 1
    scheduler = PollScheduler(job_runner)
    callback = outcomes.callback_for("login")
    scheduler.subscribe("login", "one", callback)
    assert job_runner.full.wait(SECONDS)
    scheduler.unsubscribe("login", callback)
    job_runner.gate.set()
    assert job_runner.idles.acquire(timeout=SECONDS)
    assert (job_runner.steps, job_runner.released) == (["login"], ["login"])


def test_a_job_that_another_process_changed_is_due_at_once() -> None:
    job_runner, outcomes = RecordingJobRunner(next_delay=3600), OutcomeRecorder()
    job_runner.full_count = 1
    scheduler = PollScheduler(job_runner)
    scheduler.subscribe("login", "one", outcomes.callback_for("login"))
    assert job_runner.full.wait(SECONDS)
    job_runner.next_delay = None
    job_runner.changed.add("login")
    outcomes.wait()
    assert job_runner.steps == ["login"] * 2
    assert STORE_CHECK_SECONDS < SECONDS


def test_unsubscribe_of_an_unknown_job_is_ignored() -> None:
    outcomes = OutcomeRecorder()
    scheduler = PollScheduler(RecordingJobRunner())
    scheduler.unsubscribe("nothing", outcomes.callback_for("nothing"))
    scheduler.subscribe("login", "one", outcomes.callback_for("login"))
    assert outcomes.wait() == ["login"]


def test_close_starts_no_more_steps_and_waits_for_those_in_flight() -> None:
    job_runner, outcomes = RecordingJobRunner(next_delay=0.0, is_blocked=True), OutcomeRecorder()
    job_runner.full_count = 1
    scheduler = PollScheduler(job_runner)
    scheduler.subscribe("login", "one", outcomes.callback_for("login"))
    assert job_runner.full.wait(SECONDS)
    # The loop runs calls in their order: the request to stop comes before the end of the step.
    assert scheduler.stop_new_steps() is not None
    job_runner.gate.set()
    scheduler.close()
    # `close` has waited for the step, and no other one has started.
    assert job_runner.idles.acquire(blocking=False)
    assert job_runner.steps == ["login"]


def test_no_work_of_the_scheduler_has_the_context_variables_of_a_caller() -> None:
    caller = ContextVar[str | None]("caller", default=None)
    callers: list[str | None] = []
    has_run, is_released = threading.Event(), threading.Event()

    class JobRunner(RecordingJobRunner):
        async def run_step(self, job: Job) -> float | None:
            # Without an `await`, the job waits for its timer when the caller unsubscribes.
            callers.append(caller.get())
            has_run.set()
            return 3600.0

        async def release_job(self, job: Job) -> None:
            callers.append(caller.get())
            is_released.set()

    scheduler, on_done = PollScheduler(JobRunner()), OutcomeRecorder().callback_for("a")
    token = caller.set("Ada")
    try:
        scheduler.subscribe("a", "server", on_done)
        assert has_run.wait(SECONDS)
        scheduler.unsubscribe("a", on_done)
        assert is_released.wait(SECONDS)
    finally:
        caller.reset(token)
    assert callers == [None, None]
