"""PollScheduler alone: limits, order, and the callbacks at the end of a job."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable

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


class Counted:
    """Records each step. A step waits for `gate`; `next_delay` is what it returns."""

    def __init__(self, again: float | None = None, *, held: bool = False) -> None:
        self.again = again
        self.gate = threading.Event()
        if not held:
            self.gate.set()
        self.lock = threading.Lock()
        self.flying: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.most_at_once = 0
        self.steps: list[str] = []
        self.let_go: list[str] = []
        self.changed: set[str] = set()
        self.idles = threading.Semaphore(0)
        self.full = threading.Event()
        self.filled_by = 0

    async def run_step(self, job: Job) -> float | None:
        with self.lock:
            again = self.again
            self.steps.append(job.job_id)
            self.flying[job.quota_key] += 1
            self.most[job.quota_key] = max(self.most[job.quota_key], self.flying[job.quota_key])
            self.most_at_once = max(self.most_at_once, self.flying.total())
            if self.flying.total() == self.filled_by:
                self.full.set()
        await asyncio.to_thread(self.gate.wait, SECONDS)
        with self.lock:
            self.flying[job.quota_key] -= 1
        if job.job_id == "broken":
            raise ValueError("A step broke.")
        return again

    def has_changed(self, job: Job) -> bool:
        return job.job_id in self.changed

    async def release_job(self, job: Job) -> None:
        self.let_go.append(job.job_id)

    async def release_resources(self) -> None:
        self.idles.release()

    def reset_in_child(self) -> None:
        pass


class Told:
    """Records the error or None that each callback gets."""

    def __init__(self) -> None:
        self.troubles: dict[str, BaseException | None] = {}
        self._order: list[str] = []
        self._said = threading.Semaphore(0)

    def of(self, name: str) -> Callable[[BaseException | None], None]:
        def ended(trouble: BaseException | None) -> None:
            assert name not in self.troubles, "the callback was called twice"
            self.troubles[name] = trouble
            self._order.append(name)
            self._said.release()

        return ended

    def wait(self, count: int = 1) -> list[str]:
        for _ in range(count):
            assert self._said.acquire(timeout=SECONDS)
        return self._order


@covers("device-heap")
def test_requests_in_flight_are_bounded_and_one_place_never_has_all_of_them() -> None:
    work, told = Counted(held=True), Told()
    work.filled_by = MAX_RUNNING_STEPS
    poller = PollScheduler(work)
    for number in range(3 * MAX_RUNNING_STEPS):
        poller.subscribe(f"hanging-{number}", "hanging", told.of(f"hanging-{number}"))
    for number in range(MAX_RUNNING_STEPS):
        poller.subscribe(f"other-{number}", "other", told.of(f"other-{number}"))
    assert work.full.wait(SECONDS)
    work.gate.set()
    told.wait(4 * MAX_RUNNING_STEPS)
    assert work.most_at_once == MAX_RUNNING_STEPS
    assert work.most == {"hanging": MAX_RUNNING_STEPS_PER_SERVER, "other": MAX_RUNNING_STEPS_PER_SERVER}
    assert sorted(work.steps) == sorted(told.troubles), "each job must run exactly once"


@covers("device-heap")
def test_what_is_due_beyond_the_bound_comes_later_in_the_order_in_which_it_fell_due() -> None:
    work, told = Counted(), Told()
    poller = PollScheduler(work)
    names = [f"login-{number}" for number in range(500)]
    for name in names:
        poller.subscribe(name, "one", told.of(name))
    told.wait(len(names))
    assert work.steps == names


def test_a_step_that_breaks_is_told_to_whoever_waits_for_it_alone() -> None:
    told = Told()
    poller = PollScheduler(Counted())
    for name in ("broken", "whole"):
        poller.subscribe(name, "one", told.of(name))
    told.wait(2)
    assert str(told.troubles["broken"]) == "A step broke."
    assert told.troubles["whole"] is None


def test_all_who_wait_for_one_thing_are_told_and_it_is_stepped_through_once() -> None:
    work, told, other = Counted(held=True), Told(), Told()
    poller = PollScheduler(work)
    work.filled_by = 2
    poller.subscribe("login", "one", told.of("login"))
    poller.subscribe("login", "one", other.of("login"))
    # The scheduler handles calls in order: when this step runs, both callbacks of the login are registered.
    poller.subscribe("later", "one", told.of("later"))
    assert work.full.wait(SECONDS)
    work.gate.set()
    told.wait(2)
    other.wait()
    assert sorted(work.steps) == ["later", "login"]


def test_a_watch_that_comes_after_the_end_is_stepped_through_and_told_too() -> None:
    work, told, other = Counted(), Told(), Told()
    poller = PollScheduler(work)
    poller.subscribe("login", "one", told.of("login"))
    told.wait()
    poller.subscribe("login", "one", other.of("login"))
    assert other.wait() == ["login"]
    assert work.steps == ["login"] * 2


def test_the_last_who_leaves_lets_it_go_and_the_thread_ends_until_it_is_needed_again() -> None:
    work, told, other = Counted(again=3600), Told(), Told()
    poller = PollScheduler(work)
    one, two = told.of("login"), other.of("login")
    for round_ in (1, 2):
        poller.subscribe("login", "one", one)
        poller.subscribe("login", "one", two)
        poller.unsubscribe("login", one)
        poller.unsubscribe("login", two)
        assert work.idles.acquire(timeout=SECONDS)
        assert work.let_go == ["login"] * round_
    assert not told.troubles
    assert not other.troubles


class Paused(Counted):
    """Blocks the scheduler's thread in `has_changed`, so that the calls of a test arrive together."""

    def __init__(self) -> None:
        super().__init__(again=3600)
        self.looks = threading.Event()
        self.goes_on = threading.Event()

    def has_changed(self, job: Job) -> bool:
        self.looks.set()
        assert self.goes_on.wait(SECONDS)
        # The next step is the last one.
        self.again = None
        return True


def test_whoever_comes_as_the_last_one_leaves_is_told_too() -> None:
    work, told, other = Paused(), Told(), Told()
    poller = PollScheduler(work)
    one = told.of("login")
    poller.subscribe("login", "one", one)
    assert work.looks.wait(SECONDS)
    poller.unsubscribe("login", one)
    poller.subscribe("login", "one", other.of("login"))
    work.goes_on.set()
    assert other.wait() == ["login"]
    assert not told.troubles
    assert work.let_go == []


def test_leaving_what_is_in_flight_lets_it_come_to_its_end() -> None:
    work, told = Counted(again=3600, held=True), Told()
    work.filled_by = 1
    poller = PollScheduler(work)
    ended = told.of("login")
    poller.subscribe("login", "one", ended)
    assert work.full.wait(SECONDS)
    poller.unsubscribe("login", ended)
    work.gate.set()
    assert work.idles.acquire(timeout=SECONDS)
    assert (work.steps, work.let_go) == (["login"], ["login"])


def test_what_somebody_else_changed_is_due_at_once() -> None:
    work, told = Counted(again=3600), Told()
    work.filled_by = 1
    poller = PollScheduler(work)
    poller.subscribe("login", "one", told.of("login"))
    assert work.full.wait(SECONDS)
    work.again = None
    work.changed.add("login")
    told.wait()
    assert work.steps == ["login"] * 2
    assert STORE_CHECK_SECONDS < SECONDS


def test_leaving_what_nobody_knows_is_nothing() -> None:
    told = Told()
    poller = PollScheduler(Counted())
    poller.unsubscribe("nothing", told.of("nothing"))
    poller.subscribe("login", "one", told.of("login"))
    assert told.wait() == ["login"]


def test_a_poller_that_is_closed_begins_no_more_steps_and_waits_for_those_in_flight() -> None:
    work, told = Counted(again=0.0, held=True), Told()
    work.filled_by = 1
    poller = PollScheduler(work)
    poller.subscribe("login", "one", told.of("login"))
    assert work.full.wait(SECONDS)
    threading.Timer(0, work.gate.set).start()
    poller.close()
    assert work.idles.acquire(timeout=SECONDS)
    assert len(work.steps) <= 2
