"""One heap of timers for all that waits in this process: whoever polls a thousand logins needs no more.

It runs in a thread and an event loop of its own, begun with the first watch and ended with the last, so that
it belongs to no caller: any thread may watch, and a loop that is kept busy delays nobody else's polls.
Requests in flight are bounded, in all and for each place. What is due beyond that waits its turn: under
overload polls come later, in the order in which they fell due, and none is lost.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import heapq
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Protocol
from weakref import WeakSet

from hermes_mcp_auth_remote.exit_hold import wait_for_sent_requests
from hermes_mcp_auth_remote.fork import begin_anew_in_children
from hermes_mcp_auth_remote.timeouts import LIMITS
from hermes_mcp_auth_remote.traceback_redaction import hide_locals, hides_locals

# A thousand polls in five seconds need ten of them where an answer takes 50 ms.
AT_ONCE = 64
# A server that never answers must not take the turns of all others.
AT_ONCE_FOR_ONE_PLACE = 32
# Other processes can tell only through the store; this is how long that goes unnoticed.
LOOK_SECONDS = 1.0
# What is in flight when the interpreter exits may be writing a file. For a poll that was sent the exit waits
# longer (`exit_hold`): it may be bringing tokens.
LAST_SECONDS = LIMITS.exit_seconds
# A step that takes longer than an honest answer no longer counts among those of all places.
LATE_SECONDS = LIMITS.response_seconds

Ended = Callable[[BaseException | None], None]
"""Told once, in the poller's own thread, that there is nothing more to wait for; or why that broke."""


class Watch:
    """Something that is waited for. Times are those of the poller's own, monotonic clock, in seconds."""

    __slots__ = ("due_at", "ended", "flying", "memory", "name", "place")

    def __init__(self, name: str, place: str) -> None:
        self.name = name
        self.place = place
        self.due_at = 0.0
        self.flying = False
        self.ended: tuple[Ended, ...] = ()
        # The work's own, between two steps.
        self.memory: object = None


class Work(Protocol):
    """What is done about a watch."""

    async def step(self, watch: Watch) -> float | None:
        """Do what is due; returns seconds until the next step, None where all is over."""
        ...

    def is_changed(self, watch: Watch) -> bool:
        """True where somebody else changed something, so that a step is due. Quick, for it is often asked."""
        ...

    async def dropped(self, watch: Watch) -> None:
        """Let go of a watch that nobody waits for any more."""
        ...

    async def idle(self) -> None:
        """Let go of everything: nothing is watched any more."""
        ...

    def forked(self) -> None:
        """Be another one than in the process that this one was forked from."""
        ...


class Poller:
    """Watches by name. `watch` and `unwatch` may be called from any thread."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._start_afresh()
        _of_this_process.add(self)
        begin_anew_in_children(self)

    def forked(self) -> None:
        """Forget every watch, in a process that has not the thread of them."""
        self._start_afresh()
        self._work.forked()

    def _start_afresh(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._watches: dict[str, Watch] = {}
        self._heap: list[tuple[float, int, Watch]] = []
        self._order = count()
        self._due: dict[str, deque[Watch]] = {}
        self._flying: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        # Those in flight that take longer than an honest answer would.
        self._late: set[Watch] = set()
        self._alarm: asyncio.TimerHandle | None = None
        self._ending = False
        self._quiet = asyncio.Event()
        # Calls on their way into the thread.
        self._called = 0

    def watch(self, name: str, place: str, ended: Ended) -> None:
        """Step through something until it is over. `place` is where its requests go, a bound for itself."""
        self._call(lambda: self._add(name, place, ended))

    def unwatch(self, name: str, ended: Ended) -> None:
        """Wait no longer for it; a step in flight comes to its end all the same."""
        self._call(lambda: self._remove(name, ended))

    def close(self) -> None:
        """Begin no step any more, and give those in flight a little time; for a process that exits."""
        thread = self.begin_no_more()
        if thread is not None:
            thread.join(LAST_SECONDS)

    def begin_no_more(self) -> threading.Thread | None:
        """Begin no step any more; returns the thread that brings those in flight to their end."""
        with self._lock:
            loop, thread = self._loop, self._thread
        if loop is not None:
            # RuntimeError: it has just ended by itself.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._end)
        return thread

    def _call(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._loop is None:
                self._loop, self._quiet = asyncio.new_event_loop(), asyncio.Event()
                # Timers of an earlier loop.
                self._alarm = None
                self._heap.clear()
                # A daemon: nothing that only waits for a person keeps a program from ending.
                self._thread = threading.Thread(
                    target=self._run, args=(self._loop,), name="mcp-auth-poll", daemon=True
                )
                self._thread.start()
            self._called += 1
            self._loop.call_soon_threadsafe(self._do, work)

    def _do(self, work: Callable[[], None]) -> None:
        with self._lock:
            self._called -= 1
        work()

    @hides_locals
    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        loop.run_until_complete(self._until_idle(loop))
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    async def _until_idle(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(LOOK_SECONDS, self._look)
        while True:
            await self._quiet.wait()
            self._quiet.clear()
            if not self._is_idle():
                continue
            await self._work.idle()
            with self._lock:
                # Somebody may have called meanwhile; from here on, whoever calls begins another thread.
                if self._ending or (self._is_idle() and not self._called):
                    self._loop = self._thread = None
                    return

    def _is_idle(self) -> bool:
        return not self._tasks and (self._ending or not self._watches)

    def _say_where_idle(self) -> None:
        if self._is_idle():
            self._quiet.set()

    def _end(self) -> None:
        self._ending = True
        self._due.clear()
        self._heap.clear()
        self._say_where_idle()

    def _add(self, name: str, place: str, ended: Ended) -> None:
        watch = self._watches.get(name)
        if watch is None:
            watch = self._watches[name] = Watch(name, place)
            self._at(watch, 0.0)
        watch.ended = (*watch.ended, ended)

    def _remove(self, name: str, ended: Ended) -> None:
        watch = self._watches.get(name)
        if watch is None:
            return
        watch.ended = tuple(each for each in watch.ended if each is not ended)
        if not watch.ended and not watch.flying:
            self._start(self._let_go(watch))

    @hides_locals
    async def _let_go(self, watch: Watch) -> None:
        # Somebody came since the last one left, and its timer is set still; or it was let go of before.
        if watch.ended or self._watches.get(watch.name) is not watch:
            return
        self._forget(watch)
        await self._work.dropped(watch)

    def _forget(self, watch: Watch) -> None:
        if self._watches.get(watch.name) is watch:
            del self._watches[watch.name]

    def _at(self, watch: Watch, seconds: float) -> None:
        """Set a watch's timer; one that was set before no longer counts."""
        watch.due_at = asyncio.get_running_loop().time() + seconds
        heapq.heappush(self._heap, (watch.due_at, next(self._order), watch))
        if self._heap[0][2] is watch:
            self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None
        if self._heap and not self._ending:
            self._alarm = asyncio.get_running_loop().call_at(self._heap[0][0], self._ring)

    def _ring(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._heap and self._heap[0][0] <= now:
            due_at, _, watch = heapq.heappop(self._heap)
            if watch.due_at == due_at and not watch.flying and self._watches.get(watch.name) is watch:
                self._due.setdefault(watch.place, deque()).append(watch)
                # In the queue; whatever else is in the heap for it is old.
                watch.flying = True
        self._set_alarm()
        self._take_off()

    def _take_off(self) -> None:
        """Begin as many steps as there is room for, the places in turn."""
        waiting = deque(place for place, queue in self._due.items() if queue)
        while waiting and len(self._tasks) - len(self._late) < AT_ONCE:
            place = waiting.popleft()
            if self._flying.get(place, 0) >= AT_ONCE_FOR_ONE_PLACE:
                continue
            queue = self._due[place]
            self._flying[place] = self._flying.get(place, 0) + 1
            self._start(self._step(queue.popleft()))
            if queue:
                waiting.append(place)
            else:
                del self._due[place]

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not self._ending:
            self._take_off()
        self._say_where_idle()

    async def _step(self, watch: Watch) -> None:
        trouble: BaseException | None = None
        timer = asyncio.get_running_loop().call_later(LATE_SECONDS, self._note_late, watch)
        try:
            # Whoever waited may have gone while it was in the queue.
            seconds = await self._work.step(watch) if watch.ended else 0.0
        except Exception as error:  # noqa: BLE001  whoever waits for it is told
            hide_locals(error)
            seconds, trouble = None, error
        timer.cancel()
        self._late.discard(watch)
        watch.flying = False
        flying = self._flying.pop(watch.place) - 1
        if flying:
            self._flying[watch.place] = flying
        if seconds is None:
            self._forget(watch)
            told, watch.ended = watch.ended, ()
            for ended in told:
                ended(trouble)
        elif not watch.ended:
            await self._let_go(watch)
        elif not self._ending:
            self._at(watch, seconds)

    def _note_late(self, watch: Watch) -> None:
        """Let another place have the turn of a step that its server does not answer."""
        self._late.add(watch)
        self._take_off()

    def _look(self) -> None:
        """Notice what was changed by somebody else."""
        loop = asyncio.get_running_loop()
        for watch in list(self._watches.values()):
            if not watch.flying and self._work.is_changed(watch):
                self._at(watch, 0.0)
        loop.call_later(LOOK_SECONDS, self._look)
        self._say_where_idle()


_of_this_process: WeakSet[Poller] = WeakSet()


@atexit.register
def _close_all() -> None:
    # The second Ctrl-C: the exit goes on.
    with contextlib.suppress(KeyboardInterrupt):
        for poller in list(_of_this_process):
            poller.begin_no_more()
        wait_for_sent_requests()
        for poller in list(_of_this_process):
            poller.close()
