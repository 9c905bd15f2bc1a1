"""Look up host names in separate threads: getaddrinfo blocks, and no timeout can end it.

The threads are daemons, so that neither the end of an event loop nor the exit of the interpreter waits for
them. A caller stops waiting at its own deadline; the thread is free when getaddrinfo returns. Threads are
counted per MCP server on whose behalf a name is looked up. Therefore a server can use up only its own
threads, whatever names its metadata contains.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address

from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.http.addresses import Address
from hermes_mcp_auth_remote.threads import set_result_threadsafe

# Threads for one server, and for one host name of that server.
MAX_THREADS_PER_SERVER = 4
MAX_THREADS_PER_HOST = 2
# If all servers together have this many threads, no server may start a second one.
MAX_SHARED_THREADS = 64
# Threads of all servers together. Only a server without a thread gets one above MAX_SHARED_THREADS.
MAX_THREADS = 256
# A caller shares a lookup that is younger than this. If a lookup is older, the caller starts another one: a
# lookup that hangs must not block a name after the network is back. glibc waits five seconds for each name
# server.
STALE_LOOKUP_SECONDS = 6.0

_Outcome = list[Address] | Exception


@dataclass(slots=True, eq=False)
class _Lookup:
    """One call of getaddrinfo, and the futures of the callers that wait for its result."""

    quota_key: str
    host: str
    port: int
    started_at: float = 0.0
    waiters: list[asyncio.Future[_Outcome]] = field(default_factory=list[asyncio.Future[_Outcome]])


class ThreadedResolver:
    """The lookups of this process, for any thread or event loop; `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.reset_in_child()
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Forget all lookups in a forked child, which does not have their threads."""
        self._lock = threading.Lock()
        self._running_lookups: dict[str, list[_Lookup]] = {}
        # Lookups that wait for a thread, by server. The first server gets the next free thread.
        self._queued_lookups: dict[str, list[_Lookup]] = {}
        self._thread_count = 0

    async def resolve(self, host: str, port: int, quota_key: str) -> list[Address]:
        """Return a host's addresses in the resolver's order; raises OSError or UnicodeError.

        Callers that look up the same host on behalf of the same server share a lookup. `quota_key` is any
        text that identifies the server. There is no timeout: cancel the call to end it.
        """
        waiter: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        with self._lock:
            lookup = self._join_or_create_lookup(host, port, quota_key)
            lookup.waiters.append(waiter)
        self._start_threads()
        try:
            outcome = await waiter
        finally:
            self._remove_waiter(lookup, waiter)
        if isinstance(outcome, Exception):
            raise outcome
        # Return a copy: other callers get the same list.
        return list(outcome)

    def _join_or_create_lookup(self, host: str, port: int, quota_key: str) -> _Lookup:
        for queued in self._queued_lookups.get(quota_key, ()):
            if queued.host == host:
                return queued
        running = [lookup for lookup in self._running_lookups.get(quota_key, ()) if lookup.host == host]
        if running:
            is_stale = self._clock() - running[-1].started_at >= STALE_LOOKUP_SECONDS
            if not is_stale or len(running) >= MAX_THREADS_PER_HOST or not self._has_free_thread(quota_key):
                return running[-1]
        created = _Lookup(quota_key, host, port)
        self._queued_lookups.setdefault(quota_key, []).append(created)
        return created

    def _has_free_thread(self, quota_key: str) -> bool:
        server_threads = len(self._running_lookups.get(quota_key, ()))
        if not server_threads:
            return self._thread_count < MAX_THREADS
        return server_threads < MAX_THREADS_PER_SERVER and self._thread_count < MAX_SHARED_THREADS

    def _start_threads(self) -> None:
        """Start queued lookups, the servers in turn, until there are no more free threads."""
        while (lookup := self._take_next_lookup()) is not None:
            thread = threading.Thread(
                target=self._run_lookup, args=(lookup,), name="mcp-auth-dns", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                # The process may start no more threads, or the interpreter is shutting down.
                self._finish_lookup(lookup, OSError(errno.EAGAIN, "no thread for a name look-up"))

    def _take_next_lookup(self) -> _Lookup | None:
        with self._lock:
            quota_key = next((key for key in self._queued_lookups if self._has_free_thread(key)), None)
            if quota_key is None:
                return None
            queue = self._queued_lookups.pop(quota_key)
            lookup = queue.pop(0)
            if queue:
                # Move this server behind the others.
                self._queued_lookups[quota_key] = queue
            self._running_lookups.setdefault(quota_key, []).append(lookup)
            self._thread_count += 1
            lookup.started_at = self._clock()
            return lookup

    def _run_lookup(self, lookup: _Lookup) -> None:
        outcome: _Outcome
        try:
            results = socket.getaddrinfo(lookup.host, lookup.port, type=socket.SOCK_STREAM)
            literals = (str(sockaddr[0]).partition("%")[0] for *_, sockaddr in results)
            outcome = list(dict.fromkeys(ip_address(literal) for literal in literals))
        except Exception as error:  # noqa: BLE001  the callers raise it
            outcome = error.with_traceback(None)
        self._finish_lookup(lookup, outcome)
        self._start_threads()

    def _finish_lookup(self, lookup: _Lookup, outcome: _Outcome) -> None:
        with self._lock:
            running = self._running_lookups[lookup.quota_key]
            running.remove(lookup)
            if not running:
                del self._running_lookups[lookup.quota_key]
            self._thread_count -= 1
            waiters, lookup.waiters = lookup.waiters, []
        for waiter in waiters:
            set_result_threadsafe(waiter, outcome)

    def _remove_waiter(self, lookup: _Lookup, waiter: asyncio.Future[_Outcome]) -> None:
        """Remove a caller. If its lookup is still queued and has no other caller, remove the lookup too."""
        with self._lock:
            if waiter in lookup.waiters:
                lookup.waiters.remove(waiter)
            queue = self._queued_lookups.get(lookup.quota_key, [])
            if not lookup.waiters and lookup in queue:
                queue.remove(lookup)
                if not queue:
                    del self._queued_lookups[lookup.quota_key]


threaded_resolver = ThreadedResolver()
