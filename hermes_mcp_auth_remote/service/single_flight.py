"""Single flight: what many callers want at once is done once, whatever thread or event loop they are in.

A flight runs in a thread and an event loop of its own. So it belongs to no caller: one that is cancelled
cancels nothing, and a synchronous one cannot deadlock its own loop. The threads are daemons: a flight holds
up the end of the process only by an `exit_hold.ExitHold` whose token request was sent.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Hashable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from hermes_mcp_auth_remote.deadline import Deadline
from hermes_mcp_auth_remote.errors import StoreBusy
from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from hermes_mcp_auth_remote.traceback_redaction import hide_locals

T = TypeVar("T")

# One flight holds one connection; a gateway with a thousand users must not open a thousand at once. For each
# runway alone: a server that is slow to answer holds up nobody who waits for another one.
MAX_THREADS_PER_LANE = 16


class _Lane(Generic[T]):
    """The flights of one server that wait for a thread, and how many threads there are."""

    __slots__ = ("queue", "thread_count")

    def __init__(self) -> None:
        self.queue: deque[tuple[Hashable, Future[T], Callable[[], Coroutine[object, object, T]]]] = deque()
        self.thread_count = 0


class SingleFlight(Generic[T]):
    """The flights under way, by key."""

    def __init__(self, thread_name: str) -> None:
        self._thread_name = thread_name
        self.reset_in_child()
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Forget every flight and thread, for a process that has none of them."""
        self._lock = threading.Lock()
        self._running_flights: dict[Hashable, Future[T]] = {}
        self._lanes: dict[Hashable, _Lane[T]] = {}

    def submit(
        self, key: Hashable, start: Callable[[], Coroutine[object, object, T]], lane_key: Hashable = None
    ) -> Future[T]:
        """Return the flight of a key that is under way, else start one. Thread-safe, does not block.

        Flights of one runway, such as a server's address, wait for each other where there are too many.
        Raises RuntimeError where the interpreter is ending and starts no threads any more.
        """
        with self._lock:
            flight = self._running_flights.get(key)
            # One that has landed wakes its waiters before it is taken off the list.
            if flight is not None and not flight.done():
                return flight
            lane = self._lanes.get(lane_key)
            if lane is None:
                lane = self._lanes[lane_key] = _Lane()
            if lane.thread_count < MAX_THREADS_PER_LANE:
                # It waits for our lock before it looks for work.
                thread = threading.Thread(
                    target=self._run_lane, args=(lane_key, lane), name=self._thread_name, daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:
                    # No more threads for this process; the others of this lane do the work.
                    if not lane.thread_count:
                        raise
                else:
                    lane.thread_count += 1
            flight = self._running_flights[key] = Future()
            lane.queue.append((key, flight, start))
        return flight

    def is_running(self, key: Hashable) -> bool:
        """True if a flight of this process has not ended. Thread-safe."""
        with self._lock:
            flight = self._running_flights.get(key)
        return flight is not None and not flight.done()

    def _run_lane(self, lane_key: Hashable, lane: _Lane[T]) -> None:
        """Do what waits in a lane, in the order in which it came, until there is no more."""
        while True:
            with self._lock:
                if not lane.queue:
                    lane.thread_count -= 1
                    if not lane.thread_count and self._lanes.get(lane_key) is lane:
                        del self._lanes[lane_key]
                    return
                key, flight, start = lane.queue.popleft()
            # From here on a waiter cannot cancel it.
            if flight.set_running_or_notify_cancel():
                _run_flight(flight, start)
            self._remove_flight(key, flight)
            # Keep no result, and no exception with its frames, until the next one.
            del flight, start

    def _remove_flight(self, key: Hashable, flight: Future[T]) -> None:
        with self._lock:
            if self._running_flights.get(key) is flight:
                del self._running_flights[key]


def _run_flight(flight: Future[T], start: Callable[[], Coroutine[object, object, T]]) -> None:
    try:
        result = asyncio.run(start())
    except BaseException as trouble:  # noqa: BLE001  whoever waits for it gets it
        hide_locals(trouble)
        flight.set_exception(trouble)
    else:
        flight.set_result(result)


async def join(flight: Future[T], timeout_seconds: float | None = None) -> T:
    """Wait for a flight from an asyncio event loop; being cancelled leaves the flight alone.

    Raises TimeoutError where it takes longer than `seconds`; it then goes on.
    """
    waiter = asyncio.wrap_future(flight)
    waiter.add_done_callback(_retrieve_exception)
    if timeout_seconds is None:
        return await asyncio.shield(waiter)
    async with Deadline(timeout_seconds):
        return await asyncio.shield(waiter)


def _retrieve_exception(waiter: asyncio.Future[T]) -> None:
    # A waiter that was cancelled asks for nothing; asyncio would report the flight's error as unseen.
    if not waiter.cancelled():
        waiter.exception()


LOCK_RETRY_SECONDS = 0.02


@asynccontextmanager
async def acquire_lock(
    lock: FileLock, timeout_seconds: float = TIME_LIMITS.lock_seconds
) -> AsyncGenerator[None]:
    """Hold a lock for a block; raises StoreBusy where it is not to be had within `seconds`."""
    deadline = asyncio.get_running_loop().time() + timeout_seconds
    while not lock.try_acquire():
        if asyncio.get_running_loop().time() >= deadline:
            raise StoreBusy(f"{lock.path} has been locked by another process for {timeout_seconds:g} s.")
        await asyncio.sleep(LOCK_RETRY_SECONDS)
    try:
        yield
    finally:
        lock.release()
