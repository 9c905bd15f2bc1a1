"""One heap of timers for all that waits in this process: whoever polls a thousand logins needs no more.

It runs in a thread and an event loop of its own, begun with the first watch and ended with the last, so that
it belongs to no caller: any thread may watch, and a loop that is kept busy delays nobody else's polls.
Requests in flight are bounded, in all and for each place. What is due beyond that waits its turn: under
overload polls come later, in the order in which they fell due, and none is lost.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import heapq
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Protocol
from weakref import WeakSet

from hermes_mcp_auth_remote.exit_hold import wait_for_sent_requests
from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from hermes_mcp_auth_remote.traceback_redaction import hide_locals, with_hidden_locals

# A thousand polls in five seconds need ten of them where an answer takes 50 ms.
MAX_RUNNING_STEPS = 64
# A server that never answers must not take the turns of all others.
MAX_RUNNING_STEPS_PER_SERVER = 32
# Other processes can tell only through the store; this is how long that goes unnoticed.
STORE_CHECK_SECONDS = 1.0
# What is in flight when the interpreter exits may be writing a file. For a poll that was sent the exit waits
# longer (`exit_hold`): it may be bringing tokens.
EXIT_WAIT_SECONDS = TIME_LIMITS.exit_seconds
# A step that takes longer than an honest answer no longer counts among those of all places.
SLOW_STEP_SECONDS = TIME_LIMITS.response_seconds

DoneCallback = Callable[[BaseException | None], None]
"""Told once, in the poller's own thread, that there is nothing more to wait for; or why that broke."""


class Job:
    """Something that is waited for. Times are those of the poller's own, monotonic clock, in seconds."""

    __slots__ = (
        "callbacks",
        "due_at",
        "is_running",
        "job_id",
        "quota_key",
        "state",
    )

    def __init__(self, job_id: str, quota_key: str) -> None:
        self.job_id = job_id
        self.quota_key = quota_key
        self.due_at = 0.0
        self.is_running = False
        self.callbacks: tuple[DoneCallback, ...] = ()
        # The work's own, between two steps.
        self.state: object = None


class JobRunner(Protocol):
    """What is done about a watch."""

    async def run_step(self, job: Job) -> float | None:
        """Do what is due; returns seconds until the next step, None where all is over."""
        ...

    def has_changed(self, job: Job) -> bool:
        """True where somebody else changed something, so that a step is due. Quick, for it is often asked."""
        ...

    async def release_job(self, job: Job) -> None:
        """Let go of a watch that nobody waits for any more."""
        ...

    async def release_resources(self) -> None:
        """Let go of everything: nothing is watched any more."""
        ...

    def reset_in_child(self) -> None:
        """Be another one than in the process that this one was forked from."""
        ...


class PollScheduler:
    """Watches by name. `watch` and `unwatch` may be called from any thread."""

    def __init__(self, job_runner: JobRunner) -> None:
        self._job_runner = job_runner
        self._reset()
        _schedulers.add(self)
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Forget every watch, in a process that has not the thread of them."""
        self._reset()
        self._job_runner.reset_in_child()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._jobs: dict[str, Job] = {}
        self._heap: list[tuple[float, int, Job]] = []
        self._sequence_numbers = count()
        self._due_jobs: dict[str, deque[Job]] = {}
        self._running_counts: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Those in flight that take longer than an honest answer would.
        self._slow_jobs: set[Job] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._idle_event = asyncio.Event()
        # Calls on their way into the thread.
        self._pending_calls = 0

    def subscribe(self, job_id: str, quota_key: str, on_done: DoneCallback) -> None:
        """Step through something until it is over. `place` is where its requests go, a bound for itself."""
        self._call_in_thread(lambda: self._add_callback(job_id, quota_key, on_done))

    def unsubscribe(self, job_id: str, on_done: DoneCallback) -> None:
        """Wait no longer for it; a step in flight comes to its end all the same."""
        self._call_in_thread(lambda: self._remove_callback(job_id, on_done))

    def close(self) -> None:
        """Begin no step any more, and give those in flight a little time; for a process that exits."""
        thread = self.stop_new_steps()
        if thread is not None:
            thread.join(EXIT_WAIT_SECONDS)

    def stop_new_steps(self) -> threading.Thread | None:
        """Begin no step any more; returns the thread that brings those in flight to their end."""
        with self._lock:
            loop, thread = self._loop, self._thread
        if loop is not None:
            # RuntimeError: it has just ended by itself.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._stop)
        return thread

    def _call_in_thread(self, function: Callable[[], None]) -> None:
        with self._lock:
            if self._loop is None:
                self._loop, self._idle_event = asyncio.new_event_loop(), asyncio.Event()
                # Timers of an earlier loop.
                self._timer = None
                self._heap.clear()
                # A daemon: nothing that only waits for a person keeps a program from ending.
                self._thread = threading.Thread(
                    target=self._run_loop, args=(self._loop,), name="mcp-auth-poll", daemon=True
                )
                self._thread.start()
            self._pending_calls += 1
            self._loop.call_soon_threadsafe(self._run_call, function)

    def _run_call(self, function: Callable[[], None]) -> None:
        with self._lock:
            self._pending_calls -= 1
        function()

    @with_hidden_locals
    def _run_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(self._wait_until_idle(loop))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    async def _wait_until_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(STORE_CHECK_SECONDS, self._check_for_changes)
        while True:
            await self._idle_event.wait()
            self._idle_event.clear()
            if not self._is_idle():
                continue
            await self._job_runner.release_resources()
            with self._lock:
                # Somebody may have called meanwhile; from here on, whoever calls begins another thread.
                if self._is_closing or (self._is_idle() and not self._pending_calls):
                    self._loop = self._thread = None
                    return

    def _is_idle(self) -> bool:
        return not self._tasks and (self._is_closing or not self._jobs)

    def _notify_if_idle(self) -> None:
        if self._is_idle():
            self._idle_event.set()

    def _stop(self) -> None:
        self._is_closing = True
        self._due_jobs.clear()
        self._heap.clear()
        self._notify_if_idle()

    def _add_callback(self, job_id: str, quota_key: str, on_done: DoneCallback) -> None:
        watch = self._jobs.get(job_id)
        if watch is None:
            watch = self._jobs[job_id] = Job(job_id, quota_key)
            self._schedule(watch, 0.0)
        watch.callbacks = (*watch.callbacks, on_done)

    def _remove_callback(self, job_id: str, on_done: DoneCallback) -> None:
        watch = self._jobs.get(job_id)
        if watch is None:
            return
        watch.callbacks = tuple(each for each in watch.callbacks if each is not on_done)
        if not watch.callbacks and not watch.is_running:
            self._start_task(self._release_job(watch))

    @with_hidden_locals
    async def _release_job(self, job: Job) -> None:
        # Somebody came since the last one left, and its timer is set still; or it was let go of before.
        if job.callbacks or self._jobs.get(job.job_id) is not job:
            return
        self._remove_job(job)
        await self._job_runner.release_job(job)

    def _remove_job(self, job: Job) -> None:
        if self._jobs.get(job.job_id) is job:
            del self._jobs[job.job_id]

    def _schedule(self, job: Job, delay_seconds: float) -> None:
        """Set a watch's timer; one that was set before no longer counts."""
        job.due_at = asyncio.get_running_loop().time() + delay_seconds
        heapq.heappush(self._heap, (job.due_at, next(self._sequence_numbers), job))
        if self._heap[0][2] is job:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._heap and not self._is_closing:
            self._timer = asyncio.get_running_loop().call_at(self._heap[0][0], self._queue_due_jobs)

    def _queue_due_jobs(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._heap and self._heap[0][0] <= now:
            due_at, _, watch = heapq.heappop(self._heap)
            if watch.due_at == due_at and not watch.is_running and self._jobs.get(watch.job_id) is watch:
                self._due_jobs.setdefault(watch.quota_key, deque()).append(watch)
                # In the queue; whatever else is in the heap for it is old.
                watch.is_running = True
        self._set_timer()
        self._start_queued_steps()

    def _start_queued_steps(self) -> None:
        """Begin as many steps as there is room for, the places in turn."""
        waiting = deque(place for place, queue in self._due_jobs.items() if queue)
        while waiting and len(self._tasks) - len(self._slow_jobs) < MAX_RUNNING_STEPS:
            place = waiting.popleft()
            if self._running_counts.get(place, 0) >= MAX_RUNNING_STEPS_PER_SERVER:
                continue
            queue = self._due_jobs[place]
            self._running_counts[place] = self._running_counts.get(place, 0) + 1
            self._start_task(self._run_step(queue.popleft()))
            if queue:
                waiting.append(place)
            else:
                del self._due_jobs[place]

    def _start_task(self, awaitable: Awaitable[None]) -> None:
        task = asyncio.ensure_future(awaitable)
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._is_closing:
            self._start_queued_steps()
        self._notify_if_idle()

    async def _run_step(self, job: Job) -> None:
        trouble: BaseException | None = None
        timer = asyncio.get_running_loop().call_later(SLOW_STEP_SECONDS, self._mark_slow, job)
        try:
            # Whoever waited may have gone while it was in the queue.
            seconds = await self._job_runner.run_step(job) if job.callbacks else 0.0
        except Exception as error:  # noqa: BLE001  whoever waits for it is told
            hide_locals(error)
            seconds, trouble = None, error
        timer.cancel()
        self._slow_jobs.discard(job)
        job.is_running = False
        flying = self._running_counts.pop(job.quota_key) - 1
        if flying:
            self._running_counts[job.quota_key] = flying
        if seconds is None:
            self._remove_job(job)
            told, job.callbacks = job.callbacks, ()
            for ended in told:
                ended(trouble)
        elif not job.callbacks:
            await self._release_job(job)
        elif not self._is_closing:
            self._schedule(job, seconds)

    def _mark_slow(self, job: Job) -> None:
        """Let another place have the turn of a step that its server does not answer."""
        self._slow_jobs.add(job)
        self._start_queued_steps()

    def _check_for_changes(self) -> None:
        """Notice what was changed by somebody else."""
        loop = asyncio.get_running_loop()
        for watch in list(self._jobs.values()):
            if not watch.is_running and self._job_runner.has_changed(watch):
                self._schedule(watch, 0.0)
        loop.call_later(STORE_CHECK_SECONDS, self._check_for_changes)
        self._notify_if_idle()


_schedulers: WeakSet[PollScheduler] = WeakSet()


@atexit.register
def _close_all() -> None:
    # The second Ctrl-C: the exit goes on.
    with contextlib.suppress(KeyboardInterrupt):
        for poller in list(_schedulers):
            poller.stop_new_steps()
        wait_for_sent_requests()
        for poller in list(_schedulers):
            poller.close()
