"""A store that reports each call that blocks an event loop.

Each call that may wait returns only after the watched event loop has made another turn. So a call in that
loop cannot return: it is reported instead. A call in another event loop is reported as well, unless that loop
belongs to a flight, which has a thread of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, cast

from hermes_mcp_auth_remote.store.protocol import Store

# A slow store, such as a far database, answers these at once (`store.protocol`).
NEVER_WAITING = {"now", "glance", "glance_all", "lease_retry_seconds", "request_sent_at"}
PARTS = {"logins", "refresh_failures", "token_refusals", "notices", "people"}
FLIGHT_THREADS = ("mcp-auth-refresh", "mcp-auth-exchange", "mcp-auth-keep", "mcp-auth-call")
TURN_SECONDS = 20


class LoopWatch:
    """The calls that blocked an event loop, and those that did not."""

    def __init__(self) -> None:
        self.blocking_calls: list[str] = []
        self.names: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def wrap(self, store: Store) -> Store:
        """Return the store, with this watch over each of its calls."""
        return cast("Store", WatchedPart(store, self))

    def watch_this_loop(self) -> None:
        """Watch the running event loop."""
        self._loop = asyncio.get_running_loop()

    def run(self, name: str, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        self.names.add(name)
        thread_name = threading.current_thread().name
        if asyncio._get_running_loop() is not None:
            if not thread_name.startswith(FLIGHT_THREADS):
                self.blocking_calls.append(f"{name} in {thread_name}")
        elif self._loop is not None and not self._loop.is_closed():
            has_turned = threading.Event()
            self._loop.call_soon_threadsafe(has_turned.set)
            ends_at = time.monotonic() + TURN_SECONDS
            # A loop between two runs makes no turn.
            while self._loop.is_running() and not has_turned.wait(0.01):
                if time.monotonic() > ends_at:
                    self.blocking_calls.append(f"{name}: the loop waits for it")
                    break
        return method(*args, **options)


class WatchedPart:
    """A store, a part of it, or one of its leases."""

    def __init__(self, part: object, watch: LoopWatch) -> None:
        self._part = part
        self._watch = watch

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._part, name)
        if name in PARTS:
            return WatchedPart(value, self._watch)
        if name in NEVER_WAITING or not callable(value):
            return value

        def call(*args: Any, **options: Any) -> Any:
            result = self._watch.run(name, value, *args, **options)
            return result if name != "try_lease" or result is None else WatchedPart(result, self._watch)

        return call
