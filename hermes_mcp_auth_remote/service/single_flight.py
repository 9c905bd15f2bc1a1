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
from hermes_mcp_auth_remote.fork import begin_anew_in_children
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.timeouts import LIMITS
from hermes_mcp_auth_remote.traceback_redaction import hide_locals

T = TypeVar("T")

# One flight holds one connection; a gateway with a thousand users must not open a thousand at once. For each
# runway alone: a server that is slow to answer holds up nobody who waits for another one.
MAX_FLIGHTS_AT_ONCE = 16


class _Runway(Generic[T]):
    """The flights of one server that wait for a thread, and how many threads there are."""

    __slots__ = ("queue", "threads")

    def __init__(self) -> None:
        self.queue: deque[tuple[Hashable, Future[T], Callable[[], Coroutine[object, object, T]]]] = deque()
        self.threads = 0


class Flights(Generic[T]):
    """The flights under way, by key."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.forked()
        begin_anew_in_children(self)

    def forked(self) -> None:
        """Forget every flight and thread, for a process that has none of them."""
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, Future[T]] = {}
        self._runways: dict[Hashable, _Runway[T]] = {}

    def join(
        self, key: Hashable, start: Callable[[], Coroutine[object, object, T]], runway: Hashable = None
    ) -> Future[T]:
        """Return the flight of a key that is under way, else start one. Thread-safe, does not block.

        Flights of one runway, such as a server's address, wait for each other where there are too many.
        Raises RuntimeError where the interpreter is ending and starts no threads any more.
        """
        with self._lock:
            flight = self._under_way.get(key)
            # One that has landed wakes its waiters before it is taken off the list.
            if flight is not None and not flight.done():
                return flight
            lane = self._runways.get(runway)
            if lane is None:
                lane = self._runways[runway] = _Runway()
            if lane.threads < MAX_FLIGHTS_AT_ONCE:
                # It waits for our lock before it looks for work.
                thread = threading.Thread(
                    target=self._work, args=(runway, lane), name=self._name, daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:
                    # No more threads for this process; the others of this lane do the work.
                    if not lane.threads:
                        raise
                else:
                    lane.threads += 1
            flight = self._under_way[key] = Future()
            lane.queue.append((key, flight, start))
        return flight

    def is_under_way(self, key: Hashable) -> bool:
        """True if a flight of this process has not ended. Thread-safe."""
        with self._lock:
            flight = self._under_way.get(key)
        return flight is not None and not flight.done()

    def _work(self, runway: Hashable, lane: _Runway[T]) -> None:
        """Do what waits in a lane, in the order in which it came, until there is no more."""
        while True:
            with self._lock:
                if not lane.queue:
                    lane.threads -= 1
                    if not lane.threads and self._runways.get(runway) is lane:
                        del self._runways[runway]
                    return
                key, flight, start = lane.queue.popleft()
            # From here on a waiter cannot cancel it.
            if flight.set_running_or_notify_cancel():
                _fly(flight, start)
            self._land(key, flight)
            # Keep no result, and no exception with its frames, until the next one.
            del flight, start

    def _land(self, key: Hashable, flight: Future[T]) -> None:
        with self._lock:
            if self._under_way.get(key) is flight:
                del self._under_way[key]


def _fly(flight: Future[T], start: Callable[[], Coroutine[object, object, T]]) -> None:
    try:
        result = asyncio.run(start())
    except BaseException as trouble:  # noqa: BLE001  whoever waits for it gets it
        hide_locals(trouble)
        flight.set_exception(trouble)
    else:
        flight.set_result(result)


async def landed(flight: Future[T], seconds: float | None = None) -> T:
    """Wait for a flight from an asyncio event loop; being cancelled leaves the flight alone.

    Raises TimeoutError where it takes longer than `seconds`; it then goes on.
    """
    waiter = asyncio.wrap_future(flight)
    waiter.add_done_callback(_seen)
    if seconds is None:
        return await asyncio.shield(waiter)
    async with Deadline(seconds):
        return await asyncio.shield(waiter)


def _seen(waiter: asyncio.Future[T]) -> None:
    # A waiter that was cancelled asks for nothing; asyncio would report the flight's error as unseen.
    if not waiter.cancelled():
        waiter.exception()


POLL_SECONDS = 0.02


@asynccontextmanager
async def held(lock: FileLock, seconds: float = LIMITS.lock_seconds) -> AsyncGenerator[None]:
    """Hold a lock for a block; raises StoreBusy where it is not to be had within `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not lock.try_acquire():
        if asyncio.get_running_loop().time() >= deadline:
            raise StoreBusy(f"{lock.path} has been locked by another process for {seconds:g} s.")
        await asyncio.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()
