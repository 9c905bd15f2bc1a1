"""Device logins that are waited for: one poller each among all processes, until tokens or an end come.

A poller takes a login by writing its name into the login's record; it counts as alive while it holds its own
lock file, which the system frees with the process. So nothing is written for a poll, and whoever goes on
after a poller that died cannot know when it polled last: it waits a whole interval first. What the server
asked for (`slow_down`) stands in the record.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from hermes_mcp_auth_remote.errors import (
    LoginError,
    LoginNotFound,
    McpAuthError,
    NetworkError,
    StoreBusy,
    StoreError,
    StoreUnwritable,
)
from hermes_mcp_auth_remote.exit_hold import ExitHold
from hermes_mcp_auth_remote.login import ID_BYTES, Login, is_same_question
from hermes_mcp_auth_remote.oauth.device_polling import (
    MAX_DOUBLINGS,
    Failed,
    Pending,
    next_poll,
    poll_request,
)
from hermes_mcp_auth_remote.oauth.dpop import Prover, proven
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.service.complete_login import Ending
from hermes_mcp_auth_remote.service.dependencies import Run, World
from hermes_mcp_auth_remote.service.poll_scheduler import LOOK_SECONDS, Ended, Poller, Watch
from hermes_mcp_auth_remote.signing import new_proof_key
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Secret, Server

# A disk that fails for a moment ends no login.
STORE_RETRY_SECONDS = 5.0


@dataclass(slots=True)
class _Memory:
    """What is known of a login between two polls. `poll_at` is a time of the poller's monotonic clock."""

    version: int | None
    # The poller that polls, where that is not ours.
    other: str | None
    poll_at: float = 0.0
    failures: int = 0
    proving: tuple[Secret, Prover] | None = None


class Devices:
    """The device logins that somebody in this process waits for."""

    def __init__(
        self, world: World, ending: Ending, server_of: Callable[[Login], Server], run: Run | None
    ) -> None:
        self._world = world
        self._ending = ending
        self._server_of = server_of
        self._run = run
        self._kept: _Kept | None = None
        self._id = world.entropy(ID_BYTES)
        self._lock: FileLock | None = None
        self._taking = threading.Lock()
        self._poller = Poller(self)

    async def waited(self, login: Login) -> None:
        """Return once a login is over, or waits for a device no more; meanwhile somebody polls."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        ended = _telling(loop, future)
        self.watch(login, ended)
        try:
            await future
        except asyncio.CancelledError:
            self._poller.unwatch(login.id, ended)
            raise

    def watch(self, login: Login, ended: Ended) -> None:
        """Poll a login for whoever is told of its end, from the poller's thread; costs no task."""
        self._poller.watch(login.id, login.server_url, ended)

    def is_changed(self, watch: Watch) -> bool:
        """True where a login's record is another one than was read."""
        memory = _memory_of(watch)
        known = None if memory is None else memory.version
        return self._world.store.logins.version(watch.name) != known

    async def step(self, watch: Watch) -> float | None:
        """Poll a login where that is ours to do, and due."""
        store, memory = self._world.store.logins, _memory_of(watch)
        try:
            version = store.version(watch.name)
            is_seen = memory is not None and memory.version == version
            if is_seen and memory is not None and memory.other and store.is_polling(memory.other):
                return LOOK_SECONDS
            login = self._ending.get(watch.name)
            if login.status == "exchanging":
                return LOOK_SECONDS
            if memory is None or login.polled_by != self._id:
                taken = await run_file_work(self._taken, login)
                login, memory = taken[0], taken[1]
            else:
                memory.version = version
            watch.memory = memory
            if login.status != "waiting" or login.device is None:
                return None
            return LOOK_SECONDS if memory.other else await self._polled(login, login.device, memory)
        except LoginNotFound:
            return None
        except (StoreBusy, StoreUnwritable):
            return STORE_RETRY_SECONDS

    def _taken(self, login: Login) -> tuple[Login, _Memory]:
        """Take over the polling of a login, unless another poller that lives does it."""
        store = self._world.store.logins
        before: list[str | None] = []

        def take(it: Login) -> Login:
            before.append(it.polled_by)
            if it.status != "waiting" or it.device is None:
                return it
            is_free = it.polled_by in {None, self._id} or not store.is_polling(it.polled_by or "")
            return replace(it, polled_by=self._id) if is_free else it

        # One at a time: a thousand that begin together would only wait for one another at the store's lock.
        with self._taking:
            if self._lock is None:
                self._lock = store.poller(self._id)
            taken = store.change(login.id, take)
        memory = _Memory(store.version(login.id), taken.polled_by if taken.polled_by != self._id else None)
        if taken.device is not None:
            interval = taken.device.interval_seconds
            # At most what a poll may have to wait: a clock that was set back must not hold it up for hours.
            wait = min(max(taken.device.next_at - self._world.clock(), 0.0), interval * 2.0**MAX_DOUBLINGS)
            if before[0] is not None:
                wait = max(wait, interval)
            memory.poll_at, memory.failures = time.monotonic() + wait, taken.device.failures
        return taken, memory

    async def _polled(self, login: Login, pending: Pending, memory: _Memory) -> float | None:
        """Poll once it is time, and do what follows."""
        clock = self._world.clock
        wait = memory.poll_at - time.monotonic()
        if wait > 0:
            return max(min(wait, login.expires_at - clock()), 0.0)
        pending = replace(pending, failures=memory.failures)
        sign = self._world.signer(self._server_of(login))
        if login.request.dpop and memory.proving is None:
            memory.proving = self._proving()
        prover = None if memory.proving is None else memory.proving[1]
        with ExitHold():
            return await self._judged(
                login, pending, memory, _asked(poll_request(pending, sign=sign), prover)
            )

    async def _judged(
        self, login: Login, pending: Pending, memory: _Memory, asking: Exchange[Response | NetworkError]
    ) -> float | None:
        """Send a poll, and do what follows from its answer."""
        outcome = await self._runs(asking, self._server_of(login))
        now = self._world.clock()
        after = next_poll(pending, outcome, now, proven=memory.proving is not None)
        if isinstance(after, Pending):
            wait = after.next_at - now
            memory.poll_at, memory.failures = time.monotonic() + wait, after.failures
            if _lasting(after) != _lasting(pending):
                memory.version = await run_file_work(self._kept_for_later, login, after)
            return max(min(wait, login.expires_at - now), 0.0)
        if isinstance(after, Failed):
            await run_file_work(self._ending.refuse, login, after.error)
        else:
            await self._complete(login, pending, after, memory.proving)
        return None

    def _proving(self) -> tuple[Secret, Prover] | None:
        key = new_proof_key()
        prover = self._world.prover(key)
        return None if prover is None else (key, prover)

    def _kept_for_later(self, login: Login, after: Pending) -> int | None:
        """Write down what whoever polls next has to know."""
        store = self._world.store.logins

        def change(it: Login) -> Login:
            if not is_same_question(it, login):
                return it
            request = replace(it.request, client=after.request.client)
            return replace(it, device=after, request=request)

        store.change(login.id, change)
        return store.version(login.id)

    async def _complete(
        self, login: Login, pending: Pending, tokens: Tokens, proving: tuple[Secret, Prover] | None
    ) -> None:
        login = replace(login, request=replace(login.request, client=pending.request.client))
        try:
            claimed = await run_file_work(self._ending.claim, login)
        except LoginError:
            # Cancelled, or changed over, at the last moment: what the person said last counts.
            await self._ending.revoke(login, tokens)
            return
        except StoreError:
            # The device code is spent: what it brought can be stored under no login any more.
            await self._ending.revoke(login, tokens)
            raise
        key = proving[0] if proving is not None and tokens.scheme == "DPoP" else None
        # What keeps it from being stored, the login's record says to whoever waits.
        with contextlib.suppress(McpAuthError):
            await self._ending.complete(replace(claimed, request=login.request), tokens, key)

    async def dropped(self, watch: Watch) -> None:
        """Leave a login to whoever polls it next, with what they have to know."""
        memory = _memory_of(watch)
        if memory is not None and not memory.other:
            with contextlib.suppress(StoreError, LoginError):
                await run_file_work(self._left, watch.name, memory)

    def _left(self, login_id: str, memory: _Memory) -> None:
        next_at = self._world.clock() + max(memory.poll_at - time.monotonic(), 0.0)

        def change(it: Login) -> Login:
            if it.polled_by != self._id or it.device is None:
                return it
            device = replace(it.device, next_at=next_at, failures=memory.failures)
            return replace(it, device=device, polled_by=None)

        self._world.store.logins.change(login_id, change)

    async def idle(self) -> None:
        """Close what is kept open for the next poll, and poll no more."""
        if self._kept is not None:
            await self._kept.aclose()
        lock, self._lock = self._lock, None
        if lock is not None:
            self._world.store.logins.end_poller(lock)

    def forked(self) -> None:
        """Be another poller than the parent's, which goes on."""
        lock, self._lock, self._kept, self._taking = self._lock, None, None, threading.Lock()
        self._id = self._world.entropy(ID_BYTES)
        if lock is not None:
            lock.abandon()

    async def _runs(
        self, exchange: Exchange[Response | NetworkError], server: Server
    ) -> Response | NetworkError:
        if self._run is not None:
            return await self._run(exchange, server)
        if self._kept is None:
            # Loaded with the first poll.
            from hermes_mcp_auth_remote.http.pooled import KeptConnections  # noqa: PLC0415

            self._kept = KeptConnections(limits=self._world.limits)
        return await self._kept(exchange, server)


class _Kept(Run, Protocol):
    async def aclose(self) -> None: ...


def _memory_of(watch: Watch) -> _Memory | None:
    return watch.memory if isinstance(watch.memory, _Memory) else None


def _telling(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> Ended:
    def settle(trouble: BaseException | None) -> None:
        if future.done():
            return
        if trouble is None:
            future.set_result(None)
        else:
            future.set_exception(trouble)

    def ended(trouble: BaseException | None) -> None:
        # RuntimeError: the loop is closed, and nobody waits there any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, trouble)

    return ended


def _asked(request: Request, prover: Prover | None) -> Exchange[Response | NetworkError]:
    try:
        return (yield from proven(request, prover))
    except NetworkError as trouble:
        return trouble


def _lasting(pending: Pending) -> tuple[float, str]:
    return pending.interval_seconds, pending.request.client.method
