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
from hermes_mcp_auth_remote.login import LOGIN_ID_BYTES, Login, is_same_prompt
from hermes_mcp_auth_remote.oauth.device_polling import (
    MAX_DOUBLINGS,
    PollFailure,
    PollState,
    advance_poll,
    poll_request,
)
from hermes_mcp_auth_remote.oauth.dpop import Prover, send_with_proof
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.service.complete_login import LoginCompletion
from hermes_mcp_auth_remote.service.dependencies import Dependencies, ExchangeRunner
from hermes_mcp_auth_remote.service.poll_scheduler import (
    STORE_CHECK_SECONDS,
    DoneCallback,
    Job,
    PollScheduler,
)
from hermes_mcp_auth_remote.signing import new_proof_key
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Secret, Server

# A disk that fails for a moment ends no login.
STORE_RETRY_SECONDS = 5.0


@dataclass(slots=True)
class _JobState:
    """What is known of a login between two polls. `poll_at` is a time of the poller's monotonic clock."""

    version: int | None
    # The poller that polls, where that is not ours.
    other_poller: str | None
    next_poll_at: float = 0.0
    failures: int = 0
    key_and_prover: tuple[Secret, Prover] | None = None


class DeviceLogins:
    """The device logins that somebody in this process waits for."""

    def __init__(
        self,
        deps: Dependencies,
        completion: LoginCompletion,
        server_of: Callable[[Login], Server],
        run_exchange: ExchangeRunner | None,
    ) -> None:
        self._deps = deps
        self._completion = completion
        self._server_of = server_of
        self._run_exchange = run_exchange
        self._http_clients: _PooledRunner | None = None
        self._poller_id = deps.entropy(LOGIN_ID_BYTES)
        self._poller_lock: FileLock | None = None
        self._take_over_lock = threading.Lock()
        self._scheduler = PollScheduler(self)

    async def wait_for_device(self, login: Login) -> None:
        """Return once a login is over, or waits for a device no more; meanwhile somebody polls."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        ended = _make_done_callback(loop, future)
        self.subscribe(login, ended)
        try:
            await future
        except asyncio.CancelledError:
            self._scheduler.unsubscribe(login.id, ended)
            raise

    def subscribe(self, login: Login, on_done: DoneCallback) -> None:
        """Poll a login for whoever is told of its end, from the poller's thread; costs no task."""
        self._scheduler.subscribe(login.id, login.server_url, on_done)

    def has_changed(self, job: Job) -> bool:
        """True where a login's record is another one than was read."""
        memory = _job_state_of(job)
        known = None if memory is None else memory.version
        return self._deps.store.logins.version(job.job_id) != known

    async def run_step(self, job: Job) -> float | None:
        """Poll a login where that is ours to do, and due."""
        store, memory = self._deps.store.logins, _job_state_of(job)
        try:
            version = store.version(job.job_id)
            is_seen = memory is not None and memory.version == version
            if (
                is_seen
                and memory is not None
                and memory.other_poller
                and store.is_poller_alive(memory.other_poller)
            ):
                return STORE_CHECK_SECONDS
            login = self._completion.get(job.job_id)
            if login.status == "exchanging":
                return STORE_CHECK_SECONDS
            if memory is None or login.polled_by != self._poller_id:
                taken = await run_file_work(self._take_over, login)
                login, memory = taken[0], taken[1]
            else:
                memory.version = version
            job.state = memory
            if login.status != "waiting" or login.poll_state is None:
                return None
            return (
                STORE_CHECK_SECONDS
                if memory.other_poller
                else await self._poll_when_due(login, login.poll_state, memory)
            )
        except LoginNotFound:
            return None
        except (StoreBusy, StoreUnwritable):
            return STORE_RETRY_SECONDS

    def _take_over(self, login: Login) -> tuple[Login, _JobState]:
        """Take over the polling of a login, unless another poller that lives does it."""
        store = self._deps.store.logins
        before: list[str | None] = []

        def claim_polling(current: Login) -> Login:
            before.append(current.polled_by)
            if current.status != "waiting" or current.poll_state is None:
                return current
            is_free = current.polled_by in {None, self._poller_id} or not store.is_poller_alive(
                current.polled_by or ""
            )
            return replace(current, polled_by=self._poller_id) if is_free else current

        # One at a time: a thousand that begin together would only wait for one another at the store's lock.
        with self._take_over_lock:
            if self._poller_lock is None:
                self._poller_lock = store.register_poller(self._poller_id)
            taken = store.change(login.id, claim_polling)
        memory = _JobState(
            store.version(login.id), taken.polled_by if taken.polled_by != self._poller_id else None
        )
        if taken.poll_state is not None:
            interval = taken.poll_state.interval_seconds
            # At most what a poll may have to wait: a clock that was set back must not hold it up for hours.
            wait = min(max(taken.poll_state.next_at - self._deps.clock(), 0.0), interval * 2.0**MAX_DOUBLINGS)
            if before[0] is not None:
                wait = max(wait, interval)
            memory.next_poll_at, memory.failures = time.monotonic() + wait, taken.poll_state.failures
        return taken, memory

    async def _poll_when_due(self, login: Login, poll_state: PollState, job_state: _JobState) -> float | None:
        """Poll once it is time, and do what follows."""
        clock = self._deps.clock
        wait = job_state.next_poll_at - time.monotonic()
        if wait > 0:
            return max(min(wait, login.expires_at - clock()), 0.0)
        poll_state = replace(poll_state, failures=job_state.failures)
        sign = self._deps.signer_for(self._server_of(login))
        if login.request.uses_dpop and job_state.key_and_prover is None:
            job_state.key_and_prover = self._new_key_and_prover()
        prover = None if job_state.key_and_prover is None else job_state.key_and_prover[1]
        with ExitHold():
            return await self._send_poll(
                login, poll_state, job_state, _send_poll_request(poll_request(poll_state, sign=sign), prover)
            )

    async def _send_poll(
        self,
        login: Login,
        poll_state: PollState,
        job_state: _JobState,
        exchange: Exchange[Response | NetworkError],
    ) -> float | None:
        """Send a poll, and do what follows from its answer."""
        outcome = await self._run_poll_exchange(exchange, self._server_of(login))
        now = self._deps.clock()
        after = advance_poll(poll_state, outcome, now, has_proof=job_state.key_and_prover is not None)
        if isinstance(after, PollState):
            wait = after.next_at - now
            job_state.next_poll_at, job_state.failures = time.monotonic() + wait, after.failures
            if _persistent_part(after) != _persistent_part(poll_state):
                job_state.version = await run_file_work(self._save_polling, login, after)
            return max(min(wait, login.expires_at - now), 0.0)
        if isinstance(after, PollFailure):
            await run_file_work(self._completion.fail_device_login, login, after.error)
        else:
            await self._complete_login(login, poll_state, after, job_state.key_and_prover)
        return None

    def _new_key_and_prover(self) -> tuple[Secret, Prover] | None:
        key = new_proof_key()
        prover = self._deps.prover_for(key)
        return None if prover is None else (key, prover)

    def _save_polling(self, login: Login, new_poll_state: PollState) -> int | None:
        """Write down what whoever polls next has to know."""
        store = self._deps.store.logins

        def apply_polling(current: Login) -> Login:
            if not is_same_prompt(current, login):
                return current
            request = replace(current.request, client=new_poll_state.parameters.client)
            return replace(current, poll_state=new_poll_state, request=request)

        store.change(login.id, apply_polling)
        return store.version(login.id)

    async def _complete_login(
        self,
        login: Login,
        poll_state: PollState,
        tokens: Tokens,
        key_and_prover: tuple[Secret, Prover] | None,
    ) -> None:
        login = replace(login, request=replace(login.request, client=poll_state.parameters.client))
        try:
            claimed = await run_file_work(self._completion.claim, login)
        except LoginError:
            # Cancelled, or changed over, at the last moment: what the person said last counts.
            await self._completion.revoke_unused_tokens(login, tokens)
            return
        except StoreError:
            # The device code is spent: what it brought can be stored under no login any more.
            await self._completion.revoke_unused_tokens(login, tokens)
            raise
        key = key_and_prover[0] if key_and_prover is not None and tokens.scheme == "DPoP" else None
        # What keeps it from being stored, the login's record says to whoever waits.
        with contextlib.suppress(McpAuthError):
            await self._completion.save_granted_tokens(replace(claimed, request=login.request), tokens, key)

    async def release_job(self, job: Job) -> None:
        """Leave a login to whoever polls it next, with what they have to know."""
        memory = _job_state_of(job)
        if memory is not None and not memory.other_poller:
            with contextlib.suppress(StoreError, LoginError):
                await run_file_work(self._release_polling, job.job_id, memory)

    def _release_polling(self, login_id: str, job_state: _JobState) -> None:
        next_at = self._deps.clock() + max(job_state.next_poll_at - time.monotonic(), 0.0)

        def apply_release(current: Login) -> Login:
            if current.polled_by != self._poller_id or current.poll_state is None:
                return current
            device = replace(current.poll_state, next_at=next_at, failures=job_state.failures)
            return replace(current, poll_state=device, polled_by=None)

        self._deps.store.logins.change(login_id, apply_release)

    async def release_resources(self) -> None:
        """Close what is kept open for the next poll, and poll no more."""
        if self._http_clients is not None:
            await self._http_clients.aclose()
        lock, self._poller_lock = self._poller_lock, None
        if lock is not None:
            self._deps.store.logins.unregister_poller(lock)

    def reset_in_child(self) -> None:
        """Be another poller than the parent's, which goes on."""
        lock, self._poller_lock, self._http_clients, self._take_over_lock = (
            self._poller_lock,
            None,
            None,
            threading.Lock(),
        )
        self._poller_id = self._deps.entropy(LOGIN_ID_BYTES)
        if lock is not None:
            lock.abandon()

    async def _run_poll_exchange(
        self, exchange: Exchange[Response | NetworkError], server: Server
    ) -> Response | NetworkError:
        if self._run_exchange is not None:
            return await self._run_exchange(exchange, server)
        if self._http_clients is None:
            # Loaded with the first poll.
            from hermes_mcp_auth_remote.http.pooled import HttpClientPool  # noqa: PLC0415

            self._http_clients = HttpClientPool(limits=self._deps.limits)
        return await self._http_clients(exchange, server)


class _PooledRunner(ExchangeRunner, Protocol):
    async def aclose(self) -> None: ...


def _job_state_of(job: Job) -> _JobState | None:
    return job.state if isinstance(job.state, _JobState) else None


def _make_done_callback(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> DoneCallback:
    def set_outcome(error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    def call_loop(error: BaseException | None) -> None:
        # RuntimeError: the loop is closed, and nobody waits there any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(set_outcome, error)

    return call_loop


def _send_poll_request(request: Request, prover: Prover | None) -> Exchange[Response | NetworkError]:
    try:
        return (yield from send_with_proof(request, prover))
    except NetworkError as trouble:
        return trouble


def _persistent_part(poll_state: PollState) -> tuple[float, str]:
    return poll_state.interval_seconds, poll_state.parameters.client.auth_method
