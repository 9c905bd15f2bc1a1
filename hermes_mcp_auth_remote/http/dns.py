"""Look up host names in threads of our own: getaddrinfo blocks, and no time limit ends it.

The threads are daemons, so that neither the end of an event loop nor the exit of the interpreter waits for
them. A caller leaves at its own deadline; the thread's place is given back when getaddrinfo returns. Places
are counted per server on whose behalf a name is asked for. So a server can use up its own places only,
whatever names its metadata holds.
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

# Threads for one server, and of these for one name.
MAX_THREADS_PER_SERVER = 4
MAX_THREADS_PER_HOST = 2
# A server may have more than one thread only while all servers together have fewer than this.
MAX_SHARED_THREADS = 64
# Threads in all. What lies above MAX_SHARED is for servers that have none.
MAX_THREADS = 256
# A caller shares a look-up that is younger than this, and else asks anew: one that hangs must not stop a name
# after the network came back. glibc waits five seconds for each answer of a name server.
STALE_LOOKUP_SECONDS = 6.0

_Outcome = list[Address] | Exception


@dataclass(slots=True, eq=False)
class _Lookup:
    """One question to the resolver, and the futures of the callers that wait for its answer."""

    quota_key: str
    host: str
    port: int
    started_at: float = 0.0
    waiters: list[asyncio.Future[_Outcome]] = field(default_factory=list[asyncio.Future[_Outcome]])


class ThreadedResolver:
    """The look-ups of this process. Any thread or event loop may ask; `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.reset_in_child()
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Forget every look-up, for a process that has none of their threads."""
        self._lock = threading.Lock()
        self._running_lookups: dict[str, list[_Lookup]] = {}
        # Look-ups without a thread yet, by server; the server whose turn it is stands first.
        self._queued_lookups: dict[str, list[_Lookup]] = {}
        self._thread_count = 0

    async def resolve(self, host: str, port: int, quota_key: str) -> list[Address]:
        """Return a host's addresses in the resolver's order; raises OSError or UnicodeError.

        Callers that ask for one host on behalf of one server share a look-up. `server` is any text that
        tells servers apart. There is no time limit: cancel the call to end it.
        """
        answer: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        with self._lock:
            look_up = self._join_or_create_lookup(host, port, quota_key)
            look_up.waiters.append(answer)
        self._start_threads()
        try:
            outcome = await answer
        finally:
            self._remove_waiter(look_up, answer)
        if isinstance(outcome, Exception):
            raise outcome
        # A copy: other callers have the same list.
        return list(outcome)

    def _join_or_create_lookup(self, host: str, port: int, quota_key: str) -> _Lookup:
        for look_up in self._queued_lookups.get(quota_key, ()):
            if look_up.host == host:
                return look_up
        running = [each for each in self._running_lookups.get(quota_key, ()) if each.host == host]
        if running:
            is_stale = self._clock() - running[-1].started_at >= STALE_LOOKUP_SECONDS
            if not is_stale or len(running) >= MAX_THREADS_PER_HOST or not self._has_free_thread(quota_key):
                return running[-1]
        new = _Lookup(quota_key, host, port)
        self._queued_lookups.setdefault(quota_key, []).append(new)
        return new

    def _has_free_thread(self, quota_key: str) -> bool:
        own = len(self._running_lookups.get(quota_key, ()))
        if not own:
            return self._thread_count < MAX_THREADS
        return own < MAX_THREADS_PER_SERVER and self._thread_count < MAX_SHARED_THREADS

    def _start_threads(self) -> None:
        """Start as many waiting look-ups as there are places, the servers in turn."""
        while (look_up := self._take_next_lookup()) is not None:
            thread = threading.Thread(
                target=self._run_lookup, args=(look_up,), name="mcp-auth-name", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:
                # The process may have no more threads, or the interpreter is ending.
                self._finish_lookup(look_up, OSError(errno.EAGAIN, "no thread for a name look-up"))

    def _take_next_lookup(self) -> _Lookup | None:
        with self._lock:
            server = next((each for each in self._queued_lookups if self._has_free_thread(each)), None)
            if server is None:
                return None
            queue = self._queued_lookups.pop(server)
            look_up = queue.pop(0)
            if queue:
                # Behind the other servers.
                self._queued_lookups[server] = queue
            self._running_lookups.setdefault(server, []).append(look_up)
            self._thread_count += 1
            look_up.started_at = self._clock()
            return look_up

    def _run_lookup(self, lookup: _Lookup) -> None:
        outcome: _Outcome
        try:
            found = socket.getaddrinfo(lookup.host, lookup.port, type=socket.SOCK_STREAM)
            texts = (str(sockaddr[0]).partition("%")[0] for *_, sockaddr in found)
            outcome = list(dict.fromkeys(ip_address(text) for text in texts))
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
            callers, lookup.waiters = lookup.waiters, []
        for caller in callers:
            set_result_threadsafe(caller, outcome)

    def _remove_waiter(self, lookup: _Lookup, waiter: asyncio.Future[_Outcome]) -> None:
        """Drop a caller, and a look-up that has no thread yet and no other caller."""
        with self._lock:
            if waiter in lookup.waiters:
                lookup.waiters.remove(waiter)
            queue = self._queued_lookups.get(lookup.quota_key, [])
            if not lookup.waiters and lookup in queue:
                queue.remove(lookup)
                if not queue:
                    del self._queued_lookups[lookup.quota_key]


threaded_resolver = ThreadedResolver()
