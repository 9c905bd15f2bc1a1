"""Poll device logins until they end; among all processes, one poller polls each login.

A poller claims a login by writing its own id into the login's record. It counts as alive while it holds its
lock file, which the system releases when the process ends. A poll writes nothing. So a poller that takes over
from a dead one does not know the time of the last poll, and first waits a whole interval. A longer interval
that the server asked for (`slow_down`, RFC 8628 section 3.5) is stored in the record.
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
from hermes_mcp_auth_remote.exit_delay import ExitDelay
from hermes_mcp_auth_remote.login import LOGIN_ID_BYTES, Login, is_same_prompt
from hermes_mcp_auth_remote.oauth.device_polling import (
    MAX_DOUBLINGS,
    PollFailure,
    PollState,
    advance_poll,
    poll_request,
)
from hermes_mcp_auth_remote.oauth.dpop import Prover, send_with_proof
from hermes_mcp_auth_remote.oauth.token import Tokens, shift_times
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.service.complete_login import LoginCompletion
from hermes_mcp_auth_remote.service.dependencies import Dependencies, ExchangeRunner
from hermes_mcp_auth_remote.service.leases import release_lease
from hermes_mcp_auth_remote.service.poll_scheduler import (
    STORE_CHECK_SECONDS,
    DoneCallback,
    Job,
    PollScheduler,
)
from hermes_mcp_auth_remote.signing import new_proof_key
from hermes_mcp_auth_remote.store.protocol import Lease, Poller, Unknown, Version
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import Secret, Server

# A temporary disk error does not end a login.
STORE_RETRY_SECONDS = 5.0


@dataclass(slots=True)
class _JobState:
    """The state of a login between two polls. `next_poll_at` is a time of `time.monotonic()`."""

    version: Version | Unknown | None
    # The id of the other poller that polls this login; None: this process polls it.
    other_poller: str | None
    next_poll_at: float = 0.0
    failures: int = 0
    key_and_prover: tuple[Secret, Prover] | None = None


class DeviceLogins:
    """The device logins that callers in this process wait for."""

    def __init__(
        self,
        deps: Dependencies,
        completion: LoginCompletion,
        server_of: Callable[[Login], Server],
        run_exchange: ExchangeRunner | None,
    ) -> None:
        self._scheduler = PollScheduler(DevicePoller(deps, completion, server_of, run_exchange))

    async def wait_for_device(self, login: Login) -> None:
        """Return when a login is over or no longer uses the device flow; one process polls it meanwhile."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        on_done = _make_done_callback(loop, future)
        self.subscribe(login, on_done)
        try:
            await future
        except asyncio.CancelledError:
            self._scheduler.unsubscribe(login.id, on_done)
            raise

    def subscribe(self, login: Login, on_done: DoneCallback) -> None:
        """Poll a login, and call `on_done` in the poller's thread when it ends; needs no asyncio task."""
        self._scheduler.subscribe(login.id, login.server_url, on_done)


class DevicePoller:
    """Polls device logins: each login is a job of the scheduler, and each poll is a step of the job."""

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
        self._poller_lease: Lease | None = None
        self._take_over_lock = threading.Lock()

    def has_changed(self, job: Job) -> bool:
        """True if a login's record has changed since it was read."""
        job_state = _job_state_of(job)
        known_version = None if job_state is None else job_state.version
        return self._deps.store.logins.glance(job.job_id) != known_version

    async def run_step(self, job: Job) -> float | None:
        """Poll a login if this process polls it and a poll is due."""
        try:
            step = await run_file_work(self._read_login, job.job_id, _job_state_of(job))
            if step is None:
                return STORE_CHECK_SECONDS
            login, job_state = step
            job.state = job_state
            if login.status != "waiting" or login.poll_state is None:
                return None
            return (
                STORE_CHECK_SECONDS
                if job_state.other_poller
                else await self._poll_when_due(login, login.poll_state, job_state)
            )
        except LoginNotFound:
            return None
        except (StoreBusy, StoreUnwritable):
            return STORE_RETRY_SECONDS

    def _read_login(self, login_id: str, job_state: _JobState | None) -> tuple[Login, _JobState] | None:
        """Read a login, and take over its polling unless another live poller polls it; called in a thread.

        Returns None if another process polls the login or exchanges its code.
        """
        store = self._deps.store
        version = store.logins.glance(login_id)
        other_poller = None if job_state is None or job_state.version != version else job_state.other_poller
        if other_poller and store.is_leased(Poller(other_poller)):
            return None
        login = self._completion.get(login_id)
        if login.status == "exchanging":
            return None
        if job_state is None or login.polled_by != self._poller_id:
            return self._take_over(login)
        job_state.version = version
        return login, job_state

    def _take_over(self, login: Login) -> tuple[Login, _JobState]:
        """Take over the polling of a login, unless another live poller polls it."""
        store = self._deps.store
        polled_by, free_pollers = store.logins.get(login.id).polled_by, {None, self._poller_id}
        if polled_by not in free_pollers and not store.is_leased(Poller(polled_by or "")):
            free_pollers.add(polled_by)

        def claim_polling(current: Login) -> Login:
            if current.status != "waiting" or current.poll_state is None:
                return current
            is_free = current.polled_by in free_pollers
            return replace(current, polled_by=self._poller_id) if is_free else current

        # Take over one login at a time: a thousand concurrent calls would only wait for each other at the
        # store's lock.
        with self._take_over_lock:
            if self._poller_lease is None:
                self._poller_lease = store.try_lease(Poller(self._poller_id))
            if self._poller_lease is None:
                raise StoreBusy("Another poller has the id of this one.")
            before, updated, version = store.logins.change(login.id, claim_polling)
        job_state = _JobState(version, updated.polled_by if updated.polled_by != self._poller_id else None)
        if updated.poll_state is not None:
            interval = updated.poll_state.interval_seconds
            # Limit the wait: if the clock was set back, the poll must not be hours late.
            wait = min(
                max(updated.poll_state.next_at - self._deps.clock(), 0.0), interval * 2.0**MAX_DOUBLINGS
            )
            if before.polled_by is not None:
                wait = max(wait, interval)
            job_state.next_poll_at, job_state.failures = time.monotonic() + wait, updated.poll_state.failures
        return updated, job_state

    async def _poll_when_due(self, login: Login, poll_state: PollState, job_state: _JobState) -> float | None:
        """Poll if it is time; return the seconds until the next step, or None if the login is over."""
        wait, seconds_left = job_state.next_poll_at - time.monotonic(), self._seconds_left(login)
        # A login whose time is over gets one last poll.
        if wait > 0 and seconds_left > 0:
            return min(wait, seconds_left)
        poll_state = replace(poll_state, failures=job_state.failures)
        sign = self._deps.signer_for(self._server_of(login))
        if login.request.uses_dpop and job_state.key_and_prover is None:
            job_state.key_and_prover = self._new_key_and_prover()
        prover = None if job_state.key_and_prover is None else job_state.key_and_prover[1]
        with ExitDelay():
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
        """Send a poll and apply the response; return as `_poll_when_due` does."""
        outcome = await self._run_poll_exchange(exchange, self._server_of(login))
        now = self._deps.login_time(login)
        result = advance_poll(poll_state, outcome, now, has_proof=job_state.key_and_prover is not None)
        if isinstance(result, PollState):
            wait = result.next_at - now
            job_state.next_poll_at, job_state.failures = time.monotonic() + wait, result.failures
            if _persistent_part(result) != _persistent_part(poll_state):
                job_state.version = await run_file_work(self._save_polling, login, result)
            return max(min(wait, self._seconds_left(login)), 0.0)
        if isinstance(result, PollFailure):
            await run_file_work(self._completion.fail_device_login, login, result.error)
        else:
            tokens = shift_times(result, self._deps.clock() - now)
            await self._complete_login(login, poll_state, tokens, job_state.key_and_prover)
        return None

    def _seconds_left(self, login: Login) -> float:
        return login.expires_at - self._deps.login_time(login)

    def _new_key_and_prover(self) -> tuple[Secret, Prover] | None:
        key = new_proof_key()
        prover = self._deps.prover_for(key)
        return None if prover is None else (key, prover)

    def _save_polling(self, login: Login, new_poll_state: PollState) -> Version:
        """Store the poll state for the process that polls next; return the record's version."""

        def apply_polling(current: Login) -> Login:
            if not is_same_prompt(current, login):
                return current
            request = replace(current.request, client=new_poll_state.parameters.client)
            return replace(current, poll_state=new_poll_state, request=request)

        return self._deps.store.logins.change(login.id, apply_polling).version

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
            # The user has cancelled or switched the login meanwhile; the user's last decision counts.
            await self._completion.revoke_unused_tokens(login, tokens)
            return
        except StoreError:
            # The device code is used up, and no login can store its tokens any more.
            await self._completion.revoke_unused_tokens(login, tokens)
            raise
        key = key_and_prover[0] if key_and_prover is not None and tokens.scheme == "DPoP" else None
        # If storing fails, the callers that wait read the error from the login's record.
        with contextlib.suppress(McpAuthError):
            await self._completion.save_granted_tokens(replace(claimed, request=login.request), tokens, key)

    async def release_job(self, job: Job) -> None:
        """Store the poll state of a login and stop polling it, so that another process can poll it."""
        job_state = _job_state_of(job)
        if job_state is not None and not job_state.other_poller:
            with contextlib.suppress(StoreError, LoginError):
                await run_file_work(self._release_polling, job.job_id, job_state)

    def _release_polling(self, login_id: str, job_state: _JobState) -> None:
        next_at = self._deps.clock() + max(job_state.next_poll_at - time.monotonic(), 0.0)

        def apply_release(current: Login) -> Login:
            if current.polled_by != self._poller_id or current.poll_state is None:
                return current
            poll_state = replace(current.poll_state, next_at=next_at, failures=job_state.failures)
            return replace(current, poll_state=poll_state, polled_by=None)

        self._deps.store.logins.change(login_id, apply_release)

    async def release_resources(self) -> None:
        """Close the pooled connections and give up this process's poller lock."""
        if self._http_clients is not None:
            await self._http_clients.aclose()
        lease, self._poller_lease = self._poller_lease, None
        if lease is not None:
            await run_file_work(release_lease, lease)

    def reset_in_child(self) -> None:
        """Use a new poller id in a forked child; the parent's poller goes on."""
        # The child does not hold the parent's lease.
        self._poller_lease, self._http_clients, self._take_over_lock = None, None, threading.Lock()
        self._poller_id = self._deps.entropy(LOGIN_ID_BYTES)

    async def _run_poll_exchange(
        self, exchange: Exchange[Response | NetworkError], server: Server
    ) -> Response | NetworkError:
        if self._run_exchange is not None:
            return await self._run_exchange(exchange, server)
        if self._http_clients is None:
            # Imported with the first poll.
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
        # RuntimeError: the loop is closed, so no caller waits there.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(set_outcome, error)

    return call_loop


def _send_poll_request(request: Request, prover: Prover | None) -> Exchange[Response | NetworkError]:
    try:
        return (yield from send_with_proof(request, prover))
    except NetworkError as error:
        return error


def _persistent_part(poll_state: PollState) -> tuple[float, str]:
    return poll_state.interval_seconds, poll_state.parameters.client.auth_method
