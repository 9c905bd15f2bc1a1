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

from hermes_mcp_auth_remote.fork import begin_anew_in_children
from hermes_mcp_auth_remote.http.addresses import Address
from hermes_mcp_auth_remote.threads import hand_over

# Threads for one server, and of these for one name.
MAX_PER_SERVER = 4
MAX_PER_NAME = 2
# A server may have more than one thread only while all servers together have fewer than this.
MAX_SHARED = 64
# Threads in all. What lies above MAX_SHARED is for servers that have none.
MAX_THREADS = 256
# A caller shares a look-up that is younger than this, and else asks anew: one that hangs must not stop a name
# after the network came back. glibc waits five seconds for each answer of a name server.
STALE_SECONDS = 6.0

_Outcome = list[Address] | Exception


@dataclass(slots=True, eq=False)
class _LookUp:
    """One question to the resolver, and the futures of the callers that wait for its answer."""

    server: str
    host: str
    port: int
    started_at: float = 0.0
    callers: list[asyncio.Future[_Outcome]] = field(default_factory=list[asyncio.Future[_Outcome]])


class NameLookUps:
    """The look-ups of this process. Any thread or event loop may ask; `clock` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.forked()
        begin_anew_in_children(self)

    def forked(self) -> None:
        """Forget every look-up, for a process that has none of their threads."""
        self._lock = threading.Lock()
        self._running: dict[str, list[_LookUp]] = {}
        # Look-ups without a thread yet, by server; the server whose turn it is stands first.
        self._waiting: dict[str, list[_LookUp]] = {}
        self._threads = 0

    async def addresses(self, host: str, port: int, server: str) -> list[Address]:
        """Return a host's addresses in the resolver's order; raises OSError or UnicodeError.

        Callers that ask for one host on behalf of one server share a look-up. `server` is any text that
        tells servers apart. There is no time limit: cancel the call to end it.
        """
        answer: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        with self._lock:
            look_up = self._shared_or_new(host, port, server)
            look_up.callers.append(answer)
        self._start_threads()
        try:
            outcome = await answer
        finally:
            self._leave(look_up, answer)
        if isinstance(outcome, Exception):
            raise outcome
        # A copy: other callers have the same list.
        return list(outcome)

    def _shared_or_new(self, host: str, port: int, server: str) -> _LookUp:
        for look_up in self._waiting.get(server, ()):
            if look_up.host == host:
                return look_up
        running = [each for each in self._running.get(server, ()) if each.host == host]
        if running:
            is_stale = self._clock() - running[-1].started_at >= STALE_SECONDS
            if not is_stale or len(running) >= MAX_PER_NAME or not self._has_place(server):
                return running[-1]
        new = _LookUp(server, host, port)
        self._waiting.setdefault(server, []).append(new)
        return new

    def _has_place(self, server: str) -> bool:
        own = len(self._running.get(server, ()))
        if not own:
            return self._threads < MAX_THREADS
        return own < MAX_PER_SERVER and self._threads < MAX_SHARED

    def _start_threads(self) -> None:
        """Start as many waiting look-ups as there are places, the servers in turn."""
        while (look_up := self._take_next()) is not None:
            thread = threading.Thread(target=self._ask, args=(look_up,), name="mcp-auth-name", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # The process may have no more threads, or the interpreter is ending.
                self._finish(look_up, OSError(errno.EAGAIN, "no thread for a name look-up"))

    def _take_next(self) -> _LookUp | None:
        with self._lock:
            server = next((each for each in self._waiting if self._has_place(each)), None)
            if server is None:
                return None
            queue = self._waiting.pop(server)
            look_up = queue.pop(0)
            if queue:
                # Behind the other servers.
                self._waiting[server] = queue
            self._running.setdefault(server, []).append(look_up)
            self._threads += 1
            look_up.started_at = self._clock()
            return look_up

    def _ask(self, look_up: _LookUp) -> None:
        outcome: _Outcome
        try:
            found = socket.getaddrinfo(look_up.host, look_up.port, type=socket.SOCK_STREAM)
            texts = (str(sockaddr[0]).partition("%")[0] for *_, sockaddr in found)
            outcome = list(dict.fromkeys(ip_address(text) for text in texts))
        except Exception as error:  # noqa: BLE001  the callers raise it
            outcome = error.with_traceback(None)
        self._finish(look_up, outcome)
        self._start_threads()

    def _finish(self, look_up: _LookUp, outcome: _Outcome) -> None:
        with self._lock:
            running = self._running[look_up.server]
            running.remove(look_up)
            if not running:
                del self._running[look_up.server]
            self._threads -= 1
            callers, look_up.callers = look_up.callers, []
        for caller in callers:
            hand_over(caller, outcome)

    def _leave(self, look_up: _LookUp, caller: asyncio.Future[_Outcome]) -> None:
        """Drop a caller, and a look-up that has no thread yet and no other caller."""
        with self._lock:
            if caller in look_up.callers:
                look_up.callers.remove(caller)
            queue = self._waiting.get(look_up.server, [])
            if not look_up.callers and look_up in queue:
                queue.remove(look_up)
                if not queue:
                    del self._waiting[look_up.server]


look_ups = NameLookUps()
