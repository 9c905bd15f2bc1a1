"""Single flight: what many callers want at once is done once, whatever thread or event loop they are in.

A flight runs in a thread and an event loop of its own. So it belongs to no caller: one that is cancelled
cancels nothing, a synchronous one cannot deadlock its own loop, and an interpreter that exits waits for a
rotated refresh token to reach the disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from hermes_mcp_auth_remote.forks import begin_anew_in_children

T = TypeVar("T")

# One flight holds one connection; a gateway with a thousand users must not open a thousand at once. For each
# runway alone: a server that is slow to answer holds up nobody who waits for another one.
MAX_FLIGHTS_AT_ONCE = 16


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
        self._runways: dict[Hashable, ThreadPoolExecutor] = {}
        self._uses: Counter[Hashable] = Counter()

    def join(
        self, key: Hashable, start: Callable[[], Coroutine[object, object, T]], runway: Hashable = None
    ) -> Future[T]:
        """Return the flight of a key that is under way, else start one. Thread-safe, does not block.

        Flights of one runway, such as a server's address, wait for each other where there are too many.
        """
        with self._lock:
            flight = self._under_way.get(key)
            # One that has landed wakes its waiters before it is taken off the list.
            if flight is not None and not flight.done():
                return flight
            threads = self._runways.get(runway)
            if threads is None:
                threads = self._runways[runway] = ThreadPoolExecutor(MAX_FLIGHTS_AT_ONCE, self._name)
            started = self._under_way[key] = threads.submit(lambda: asyncio.run(start()))
            self._uses[runway] += 1
        started.add_done_callback(lambda landed: self._land(key, runway, landed))
        return started

    def _land(self, key: Hashable, runway: Hashable, landed: Future[T]) -> None:
        with self._lock:
            self._uses[runway] -= 1
            if not self._uses[runway]:
                # Idle threads of every server that was ever asked would add up.
                del self._uses[runway]
                self._runways.pop(runway).shutdown(wait=False)
            if self._under_way.get(key) is landed:
                del self._under_way[key]


async def landed(flight: Future[T]) -> T:
    """Wait for a flight from an asyncio event loop; being cancelled leaves the flight alone."""
    waiter = asyncio.wrap_future(flight)
    waiter.add_done_callback(_seen)
    return await asyncio.shield(waiter)


def _seen(waiter: asyncio.Future[T]) -> None:
    # A waiter that was cancelled asks for nothing; asyncio would report the flight's error as unseen.
    if not waiter.cancelled():
        waiter.exception()
