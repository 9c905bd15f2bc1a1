"""Single flight: what many callers want at once is done once, whatever thread or event loop they are in.

A flight runs in a thread and an event loop of its own. So it belongs to no caller: one that is cancelled
cancels nothing, a synchronous one cannot deadlock its own loop, and an interpreter that exits waits for a
rotated refresh token to reach the disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")

# One flight holds one connection; a gateway with a thousand users must not open a thousand at once.
MAX_FLIGHTS_AT_ONCE = 16


class Flights(Generic[T]):
    """The flights under way, by key."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._under_way: dict[Hashable, Future[T]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def join(self, key: Hashable, start: Callable[[], Coroutine[object, object, T]]) -> Future[T]:
        """Return the flight of a key that is under way, else start one. Thread-safe, does not block."""
        with self._lock:
            flight = self._under_way.get(key)
            if flight is None:
                if self._threads is None:
                    self._threads = ThreadPoolExecutor(MAX_FLIGHTS_AT_ONCE, self._name)
                flight = self._under_way[key] = self._threads.submit(lambda: asyncio.run(start()))
                started = flight
            else:
                return flight
        started.add_done_callback(lambda _: self._land(key))
        return started

    def _land(self, key: Hashable) -> None:
        with self._lock:
            self._under_way.pop(key, None)


async def landed(flight: Future[T]) -> T:
    """Wait for a flight from an asyncio event loop; being cancelled leaves the flight alone."""
    waiter = asyncio.wrap_future(flight)
    waiter.add_done_callback(_seen)
    return await asyncio.shield(waiter)


def _seen(waiter: asyncio.Future[T]) -> None:
    # A waiter that was cancelled asks for nothing; asyncio would report the flight's error as unseen.
    if not waiter.cancelled():
        waiter.exception()
