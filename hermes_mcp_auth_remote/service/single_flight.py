"""Single flight: concurrent calls with the same key, from any thread or event loop, share one execution.

A flight runs in a thread and an event loop of its own. So a cancelled caller does not cancel it, and a
synchronous caller cannot deadlock its own loop. The threads are daemons: a flight delays the end of the
process only if it has sent a token request (`exit_delay.ExitDelay`).
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

from hermes_mcp_auth_remote.deadline import Deadline
from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.service.event_loops import run_in_new_loop
from hermes_mcp_auth_remote.traceback_redaction import hide_locals

T = TypeVar("T")

# Each flight holds a connection, and a gateway with a thousand users must not open a thousand at once. The
# limit is per lane, so that a slow server does not delay the flights of other servers.
MAX_THREADS_PER_LANE = 16


class _Lane(Generic[T]):
    """The queued flights of one server, and the number of its threads."""

    __slots__ = ("queue", "thread_count")

    def __init__(self) -> None:
        self.queue: deque[tuple[Hashable, Future[T], Callable[[], Coroutine[object, object, T]]]] = deque()
        self.thread_count = 0


class SingleFlight(Generic[T]):
    """The running flights, by key."""

    def __init__(self, thread_name: str) -> None:
        self._thread_name = thread_name
        self.reset_in_child()
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Forget all flights and threads in a forked child process."""
        self._lock = threading.Lock()
        self._running_flights: dict[Hashable, Future[T]] = {}
        self._lanes: dict[Hashable, _Lane[T]] = {}

    def submit(
        self, key: Hashable, start: Callable[[], Coroutine[object, object, T]], lane_key: Hashable = None
    ) -> Future[T]:
        """Return the running flight of a key, or start one. Thread-safe, does not block.

        `lane_key` is for example a server's URL. Each lane has MAX_THREADS_PER_LANE threads; further flights
        of the lane wait for a thread. Raises RuntimeError if no thread can be started.
        """
        with self._lock:
            flight = self._running_flights.get(key)
            # A flight that is done wakes its waiters before it is removed from the list.
            if flight is not None and not flight.done():
                return flight
            lane = self._lanes.get(lane_key)
            if lane is None:
                lane = self._lanes[lane_key] = _Lane()
            if lane.thread_count < MAX_THREADS_PER_LANE:
                # The thread waits for this lock before it reads the queue.
                thread = threading.Thread(
                    target=self._run_lane, args=(lane_key, lane), name=self._thread_name, daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:
                    # No thread can be started; the other threads of this lane run the flight.
                    if not lane.thread_count:
                        raise
                else:
                    lane.thread_count += 1
            flight = self._running_flights[key] = Future()
            lane.queue.append((key, flight, start))
        return flight

    def is_running(self, key: Hashable) -> bool:
        """True if this process has a flight of this key that has not ended. Thread-safe."""
        with self._lock:
            flight = self._running_flights.get(key)
        return flight is not None and not flight.done()

    def _run_lane(self, lane_key: Hashable, lane: _Lane[T]) -> None:
        """Run the queued flights of a lane in order, until the queue is empty."""
        while True:
            with self._lock:
                if not lane.queue:
                    lane.thread_count -= 1
                    if not lane.thread_count and self._lanes.get(lane_key) is lane:
                        del self._lanes[lane_key]
                    return
                key, flight, start = lane.queue.popleft()
            # From here on, a waiter cannot cancel the flight.
            if flight.set_running_or_notify_cancel():
                _run_flight(flight, start)
            self._remove_flight(key, flight)
            # Do not keep the result, or an exception with its frames, until the next flight.
            del flight, start

    def _remove_flight(self, key: Hashable, flight: Future[T]) -> None:
        with self._lock:
            if self._running_flights.get(key) is flight:
                del self._running_flights[key]


def _run_flight(flight: Future[T], start: Callable[[], Coroutine[object, object, T]]) -> None:
    try:
        result = run_in_new_loop(start)
    except BaseException as error:  # noqa: BLE001  the waiting callers get it
        hide_locals(error)
        flight.set_exception(error)
    else:
        flight.set_result(result)


async def join(flight: Future[T], timeout_seconds: float | None = None) -> T:
    """Wait for a flight from an asyncio event loop; cancelling the caller does not cancel the flight.

    Raises TimeoutError if it takes longer than `timeout_seconds` (None: no limit); the flight then goes on.
    """
    waiter = asyncio.wrap_future(flight)
    waiter.add_done_callback(_retrieve_exception)
    if timeout_seconds is None:
        return await asyncio.shield(waiter)
    async with Deadline(timeout_seconds):
        return await asyncio.shield(waiter)


def _retrieve_exception(waiter: asyncio.Future[T]) -> None:
    # If the waiter was cancelled, asyncio would log the flight's error as never retrieved.
    if not waiter.cancelled():
        waiter.exception()
