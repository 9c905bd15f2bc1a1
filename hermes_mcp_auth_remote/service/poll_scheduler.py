"""Run the periodic steps of many jobs, such as the polls of a thousand logins, from the timers of one loop.

The scheduler has its own thread and event loop, which start with the first job and end with the last one. So
any thread may subscribe, and a caller's busy event loop does not delay polls. The number of running steps is
limited, in total and per server. Due steps beyond the limit wait in the order of their due times: under
overload polls are late, but none is lost.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import Protocol
from weakref import WeakSet

from hermes_mcp_auth_remote.exit_delay import wait_for_sent_requests
from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.service.event_loops import check_descriptors
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from hermes_mcp_auth_remote.traceback_redaction import hide_locals, with_hidden_locals

# A thousand polls in five seconds need ten running steps if a response takes 50 ms.
MAX_RUNNING_STEPS = 64
# A server that never responds must not use up the running steps of the other servers.
MAX_RUNNING_STEPS_PER_SERVER = 32
# Changes by other processes are visible only in the store. This is the time between two checks.
STORE_CHECK_SECONDS = 1.0
# A step that runs when the interpreter exits may be writing a file. The exit waits longer for a poll that was
# sent (`exit_delay`), because its response may contain tokens.
EXIT_WAIT_SECONDS = TIME_LIMITS.exit_seconds
# A step that takes longer than the response limit no longer counts towards MAX_RUNNING_STEPS.
SLOW_STEP_SECONDS = TIME_LIMITS.response_seconds

DoneCallback = Callable[[BaseException | None], None]
"""Called once in the scheduler's thread when the job ends: with None, or with the error that ended it."""


class Job:
    """A job with periodic steps; `timer` is set until the next step is due."""

    __slots__ = (
        "callbacks",
        "is_queued_or_running",
        "job_id",
        "quota_key",
        "state",
        "timer",
    )

    def __init__(self, job_id: str, quota_key: str) -> None:
        self.job_id = job_id
        self.quota_key = quota_key
        self.timer: asyncio.TimerHandle | None = None
        self.is_queued_or_running = False
        self.callbacks: tuple[DoneCallback, ...] = ()
        # The job runner's own state between two steps.
        self.state: object = None


class JobRunner(Protocol):
    """Does the steps of jobs."""

    async def run_step(self, job: Job) -> float | None:
        """Do the due step; return the seconds until the next step, or None if the job is over."""
        ...

    def has_changed(self, job: Job) -> bool:
        """True if another process has changed the job, so that a step is due.

        The scheduler calls it every second for each job, so it must be quick.
        """
        ...

    async def release_job(self, job: Job) -> None:
        """Release a job that no caller waits for any more."""
        ...

    async def release_resources(self) -> None:
        """Release all resources; the scheduler calls it when no job is left."""
        ...

    def reset_in_child(self) -> None:
        """Reset the state in a forked child process."""
        ...


class PollScheduler:
    """Runs the steps of jobs. Any thread may call `subscribe` and `unsubscribe`."""

    def __init__(self, job_runner: JobRunner) -> None:
        self._job_runner = job_runner
        self._reset()
        _schedulers.add(self)
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Forget all jobs in a forked child process: it does not have the scheduler's thread."""
        self._reset()
        self._job_runner.reset_in_child()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._jobs: dict[str, Job] = {}
        self._due_jobs: dict[str, deque[Job]] = {}
        self._running_counts: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Jobs whose running step takes longer than SLOW_STEP_SECONDS.
        self._slow_jobs: set[Job] = set()
        self._is_closing = False
        self._idle_event = asyncio.Event()
        # Calls that the scheduler's thread has not run yet.
        self._pending_calls = 0
        # All timers share these two objects. Otherwise they would be a sixth of a waiting login's memory.
        self._timer_context, self._on_timer = Context(), self._queue_step

    def subscribe(self, job_id: str, quota_key: str, on_done: DoneCallback) -> None:
        """Run a job's steps until it is over.

        `quota_key` names its server. The number of running steps per server is limited.
        """
        self._call_in_thread(lambda: self._add_callback(job_id, quota_key, on_done))

    def unsubscribe(self, job_id: str, on_done: DoneCallback) -> None:
        """Stop waiting for a job; a running step still completes."""
        self._call_in_thread(lambda: self._remove_callback(job_id, on_done))

    def close(self) -> None:
        """Start no more steps and wait briefly for the running ones; called when the process exits."""
        thread = self.stop_new_steps()
        if thread is not None:
            thread.join(EXIT_WAIT_SECONDS)

    def stop_new_steps(self) -> threading.Thread | None:
        """Start no more steps; return the thread that completes the running ones."""
        with self._lock:
            loop, thread = self._loop, self._thread
        if loop is not None:
            # RuntimeError: the loop has just ended by itself.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._stop)
        return thread

    def _call_in_thread(self, function: Callable[[], None]) -> None:
        with self._lock:
            if self._loop is None:
                check_descriptors()
                self._loop, self._idle_event = asyncio.new_event_loop(), asyncio.Event()
                # A daemon thread: a program can end while a login waits for its user.
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
                # A call may have come meanwhile. From here on, a call starts another thread.
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
        self._notify_if_idle()

    def _add_callback(self, job_id: str, quota_key: str, on_done: DoneCallback) -> None:
        job = self._jobs.get(job_id)
        if job is None:
            # All logins of a server share one string.
            job = self._jobs[job_id] = Job(job_id, sys.intern(quota_key))
            self._schedule(job, 0.0)
        job.callbacks = (*job.callbacks, on_done)

    def _remove_callback(self, job_id: str, on_done: DoneCallback) -> None:
        job = self._jobs.get(job_id)
        if job is None:
            return
        job.callbacks = tuple(callback for callback in job.callbacks if callback is not on_done)
        if not job.callbacks and not job.is_queued_or_running:
            self._start_task(self._release_job(job))

    @with_hidden_locals
    async def _release_job(self, job: Job) -> None:
        # Do nothing if a caller has subscribed since (the timer is still set) or the job is already removed.
        if job.callbacks or self._jobs.get(job.job_id) is not job:
            return
        self._remove_job(job)
        await self._job_runner.release_job(job)

    def _remove_job(self, job: Job) -> None:
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        if self._jobs.get(job.job_id) is job:
            del self._jobs[job.job_id]

    def _schedule(self, job: Job, delay_seconds: float) -> None:
        """Set a job's timer, in place of an earlier one."""
        if job.timer is not None:
            job.timer.cancel()
        job.timer = asyncio.get_running_loop().call_later(
            delay_seconds, self._on_timer, job, context=self._timer_context
        )

    def _queue_step(self, job: Job) -> None:
        job.timer = None
        if self._is_closing or job.is_queued_or_running or self._jobs.get(job.job_id) is not job:
            return
        self._due_jobs.setdefault(job.quota_key, deque()).append(job)
        job.is_queued_or_running = True
        self._start_queued_steps()

    def _start_queued_steps(self) -> None:
        """Start as many queued steps as the limits allow, taking the servers in turn."""
        if not self._has_free_step():
            # Without this check, a thousand jobs of a thousand servers would cost a million steps here.
            return
        waiting_keys = deque(quota_key for quota_key, queue in self._due_jobs.items() if queue)
        while waiting_keys and self._has_free_step():
            quota_key = waiting_keys.popleft()
            if self._running_counts.get(quota_key, 0) >= MAX_RUNNING_STEPS_PER_SERVER:
                continue
            queue = self._due_jobs[quota_key]
            self._running_counts[quota_key] = self._running_counts.get(quota_key, 0) + 1
            self._start_task(self._run_step(queue.popleft()))
            if queue:
                waiting_keys.append(quota_key)
            else:
                del self._due_jobs[quota_key]

    def _has_free_step(self) -> bool:
        return len(self._tasks) - len(self._slow_jobs) < MAX_RUNNING_STEPS

    def _start_task(self, work: Coroutine[object, object, None]) -> None:
        # An empty context: the context variables of a caller must not reach the steps of other jobs.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._is_closing:
            self._start_queued_steps()
        self._notify_if_idle()

    async def _run_step(self, job: Job) -> None:
        step_error: BaseException | None = None
        timer = asyncio.get_running_loop().call_later(SLOW_STEP_SECONDS, self._mark_slow, job)
        try:
            # The last caller may have unsubscribed while the job was in the queue.
            seconds = await self._job_runner.run_step(job) if job.callbacks else 0.0
        except Exception as error:  # noqa: BLE001  the callbacks get it
            hide_locals(error)
            seconds, step_error = None, error
        timer.cancel()
        self._slow_jobs.discard(job)
        job.is_queued_or_running = False
        running_count = self._running_counts.pop(job.quota_key) - 1
        if running_count:
            self._running_counts[job.quota_key] = running_count
        if seconds is None:
            self._remove_job(job)
            callbacks, job.callbacks = job.callbacks, ()
            for on_done in callbacks:
                on_done(step_error)
        elif not job.callbacks:
            await self._release_job(job)
        elif not self._is_closing:
            self._schedule(job, seconds)

    def _mark_slow(self, job: Job) -> None:
        """Let another step start in place of one whose server does not respond."""
        self._slow_jobs.add(job)
        self._start_queued_steps()

    def _check_for_changes(self) -> None:
        """Schedule the jobs that another process has changed."""
        loop = asyncio.get_running_loop()
        for job in list(self._jobs.values()):
            if not job.is_queued_or_running and self._job_runner.has_changed(job):
                self._schedule(job, 0.0)
        loop.call_later(STORE_CHECK_SECONDS, self._check_for_changes)
        self._notify_if_idle()


_schedulers: WeakSet[PollScheduler] = WeakSet()


@atexit.register
def _close_all() -> None:
    # A second Ctrl-C ends this wait, and the exit continues.
    with contextlib.suppress(KeyboardInterrupt):
        for scheduler in list(_schedulers):
            scheduler.stop_new_steps()
        wait_for_sent_requests()
        for scheduler in list(_schedulers):
            scheduler.close()
