"""If a token response arrives after every caller has left, the service stores or revokes the tokens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import (
    StillExchanging,
    StoreBusy,
    StoreUnwritable,
    TimedOut,
)
from hermes_mcp_auth_remote.http import client
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS, TimeLimits
from hermes_mcp_auth_remote.values import CredentialKey, Server
from tests.consent_form import approve, approve_device
from tests.demo.manual_client import ManualClock
from tests.leak_check import watch_secrets
from tests.loop_clock import LoopClock, await_with_time_passing, loop_clock
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers
from tests.service.helpers import KEY, TERMINAL, read_credential_files, wait_until

pytestmark = pytest.mark.slow

__all__ = ["loop_clock"]

# Callers stop waiting after 0.05 s.
IMPATIENT = replace(TIME_LIMITS, caller_seconds=0.05)


def make_impatient_service(
    home: Path, clock: Callable[[], float], limits: TimeLimits = IMPATIENT
) -> AuthService:
    return AuthService(home, clock=clock, limits=limits)


def read_stored_header(home: Path) -> str:
    tokens = FileStore(home).read(KEY).credentials.tokens
    assert tokens is not None
    return tokens.authorization_header


async def start_and_approve(service: AuthService, server: Server) -> tuple[Login, str]:
    login = await service.start_login(server, TERMINAL)
    return login, await asyncio.to_thread(approve, login.authorization_url)


def wait_for_end(service: AuthService, login: Login) -> Login:
    wait_until(lambda: service.blocking.login(login.id).is_over)
    return service.blocking.login(login.id)


@covers("late-tokens")
def test_a_refresh_response_after_the_caller_left_is_stored_and_used(
    loop_clock: LoopClock,
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    tmp_path: Path,
) -> None:
    before = read_stored_header(tmp_path)
    clock.now += 3600
    gate = demo.authorization_server.hold("refresh", after_processing=True)
    session = AuthService(tmp_path, clock=clock).session(server)
    with pytest.raises(TimedOut, match=r"127\.0\.0\.1 got a token request for notes but did not") as late:
        asyncio.run(await_with_time_passing(session.header(), gate.arrived.is_set, loop_clock))
    assert "nothing was lost" not in late.value.advice
    gate.open()
    wait_until(lambda: read_stored_header(tmp_path) != before)
    assert asyncio.run(session.header()) == read_stored_header(tmp_path)
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("late-tokens")
def test_a_caller_that_stops_waiting_gets_a_due_token_that_is_still_usable(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    before = read_stored_header(tmp_path)
    clock.now += 3600 - 30
    gate = demo.authorization_server.hold("refresh", after_processing=True)
    session = make_impatient_service(tmp_path, clock).session(server)
    assert asyncio.run(session.header()) == before
    # After the server refused the token, the session does not return it again.
    with pytest.raises(TimedOut):
        asyncio.run(session.handle_challenge(before, 401, ["Bearer"]))
    gate.open()
    wait_until(lambda: read_stored_header(tmp_path) != before)
    clock.now += 2
    assert asyncio.run(session.header()) == read_stored_header(tmp_path)
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("late-tokens")
def test_a_cancelled_caller_loses_no_refresh(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    before = read_stored_header(tmp_path)
    clock.now += 3600
    gate = demo.authorization_server.hold("refresh", after_processing=True)
    session = AuthService(tmp_path, clock=clock).session(server)

    async def main() -> None:
        calling = asyncio.create_task(session.header())
        assert await asyncio.to_thread(gate.arrived.wait, 20)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling

    asyncio.run(main())
    gate.open()
    wait_until(lambda: read_stored_header(tmp_path) != before)
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("late-tokens")
@pytest.mark.parametrize("how", ["late", "cancelled"])
def test_a_code_response_after_the_caller_left_completes_the_login(
    loop_clock: LoopClock, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path, how: str
) -> None:
    service = AuthService(tmp_path, clock=clock)

    async def main() -> Login:
        login, answer = await start_and_approve(service, server)
        gate = demo.authorization_server.hold("token", after_processing=True)
        completion = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        assert await asyncio.to_thread(gate.arrived.wait, 20)
        if how == "cancelled":
            completion.cancel()
        else:
            await loop_clock.pass_time(21)
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else StillExchanging) as left:
            await completion
        assert "nothing was lost" not in getattr(left.value, "advice", "")
        assert service.blocking.login(login.id).status == "exchanging"
        gate.open()
        return login

    login = asyncio.run(main())
    assert wait_for_end(service, login).status == "done"
    assert asyncio.run(service.session(server).header()) == read_stored_header(tmp_path)
    assert (
        demo.authorization_server.count_requests("token"),
        demo.authorization_server.count_requests("revocation"),
    ) == (1, 0)


@covers("late-tokens", "interrupted")
def test_a_login_that_is_cancelled_before_its_code_was_sent_never_sends_it(
    server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    reached, may_continue, exchange_ended = threading.Event(), threading.Event(), threading.Event()

    async def run(exchange: Exchange[object], server: Server) -> object:
        if threading.current_thread().name != "mcp-auth-exchange":
            return await client.run_exchange(exchange, server)
        reached.set()
        await asyncio.to_thread(may_continue.wait, 20)
        try:
            return await client.run_exchange(exchange, server)
        finally:
            exchange_ended.set()

    service = AuthService(tmp_path, clock=clock, run_exchange=run)  # type: ignore[arg-type]

    async def main() -> Login:
        login, answer = await start_and_approve(service, server)
        completion = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        assert await asyncio.to_thread(reached.wait, 20)
        completion.cancel()
        with pytest.raises(asyncio.CancelledError):
            await completion
        return service.blocking.login(login.id)

    failed_login = asyncio.run(main())
    assert (failed_login.status, failed_login.failure) == (
        "failed",
        ("This login was interrupted.", "Begin a new login."),
    )
    may_continue.set()
    assert exchange_ended.wait(20)
    assert demo.authorization_server.count_requests("token") == 0


@covers("late-tokens")
@pytest.mark.parametrize("how", ["late", "in time"])
def test_granted_tokens_that_cannot_be_stored_are_revoked(
    loop_clock: LoopClock,
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    service, before = AuthService(tmp_path, clock=clock), read_credential_files(tmp_path)

    def refuse_to_save(
        store: FileStore, key: CredentialKey, credentials: Credentials, login_id: str | None = None
    ) -> None:
        raise StoreUnwritable("The disk is full.")

    async def main() -> Login:
        login, answer = await start_and_approve(service, server)
        monkeypatch.setattr(FileStore, "save_login", refuse_to_save)
        gate = demo.authorization_server.hold("token", after_processing=True)
        completion = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        assert await asyncio.to_thread(gate.arrived.wait, 20)
        if how == "late":
            await loop_clock.pass_time(21)
            with pytest.raises(StillExchanging):
                await completion
        gate.open()
        if how == "in time":
            with pytest.raises(StoreUnwritable):
                await completion
        return login

    login = asyncio.run(main())
    assert wait_for_end(service, login).failure_code == "store_unwritable"
    # First the refresh token is revoked, then the access token.
    wait_until(lambda: demo.authorization_server.count_requests("revocation") == 2)
    assert read_credential_files(tmp_path) == before
    assert asyncio.run(logged_in_service.session(server).header()) == read_stored_header(tmp_path)


@covers("due-token")
def test_a_due_token_is_used_while_another_process_holds_the_lock(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    before = read_stored_header(tmp_path)
    clock.now += 3600 - 30
    limits = replace(TIME_LIMITS, due_lock_seconds=0.05)
    session = make_impatient_service(tmp_path, clock, limits).session(server)
    lock = FileStore(tmp_path).lock(KEY)
    assert lock.try_acquire()
    try:
        assert asyncio.run(session.header()) == before
        assert demo.authorization_server.requests == []
    finally:
        lock.release()
    # A later call starts the refresh in the background.
    clock.now += 16
    assert asyncio.run(session.header()) == before
    wait_until(lambda: read_stored_header(tmp_path) != before)
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("due-token")
def test_an_expired_token_is_not_used_while_another_process_holds_the_lock(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    clock.now += 3600
    session = make_impatient_service(tmp_path, clock).session(server)
    lock = FileStore(tmp_path).lock(KEY)
    assert lock.try_acquire()
    try:
        with pytest.raises(TimedOut, match="another process"):
            asyncio.run(session.header())
        assert demo.authorization_server.requests == []
    finally:
        lock.release()
    wait_until(lambda: demo.authorization_server.count_requests("refresh") == 1)


@covers("late-tokens")
def test_no_advice_suggests_to_kill_a_process_that_may_be_refreshing(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.try_acquire()
    with pytest.raises(StoreBusy) as busy, FileLock(tmp_path / "lock").hold(0):
        pass
    lock.release()
    for text in (str(busy.value), busy.value.advice):
        assert not {"end it", "kill it", "stop it"} & {text[i : i + 7].strip() for i in range(len(text))}
    assert "Wait until the process that holds the lock ends" in busy.value.advice


@pytest.fixture(scope="module")
def device_demo() -> Iterator[Demo]:
    with serve_demo(Behaviour(with_device=True, device_interval_seconds=1)) as demo:
        watch_secrets(demo.authorization_server.minted_secrets)
        yield demo
        demo.authorization_server.clear_faults()


@covers("late-tokens", "device-poll")
@pytest.mark.parametrize("how", ["late", "no caller waits", "cannot be claimed"])
def test_a_device_poll_with_a_late_response_completes_the_login(
    loop_clock: LoopClock, device_demo: Demo, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = device_demo
    demo.authorization_server.requests.clear()
    server = Server("notes", demo.ping_url)
    service = AuthService(tmp_path)

    def refuse_to_claim(*_: object) -> Login:
        raise StoreUnwritable("The disk is full.")

    async def main() -> Login:
        login = await service.start_login(server, TERMINAL, flow="device")
        code = login.device_authorization
        assert code is not None
        await asyncio.to_thread(approve_device, code.verification_uri_complete or "")
        gate = demo.authorization_server.hold("device_poll", after_processing=True)
        waiting = asyncio.create_task(service.wait_for_login(login.id))
        assert await asyncio.to_thread(gate.arrived.wait, 20)
        if how == "no caller waits":
            waiting.cancel()
        # This is longer than any other response may take.
        loop_clock(21)
        if how == "cannot be claimed":
            monkeypatch.setattr(type(service._completion), "claim", refuse_to_claim)
        demo.authorization_server.clear_faults()
        if how == "late":
            await waiting
        elif how == "cannot be claimed":
            await asyncio.to_thread(
                wait_until, lambda: demo.authorization_server.count_requests("revocation") == 2
            )
            monkeypatch.undo()
            await waiting
        return login

    ended_login = wait_for_end(service, asyncio.run(main()))
    if how == "cannot be claimed":
        assert ended_login.status == "failed"
        assert FileStore(tmp_path).read(KEY).credentials.tokens is None
        return
    assert ended_login.status == "done"
    assert demo.authorization_server.count_requests("device_poll") == 1
    assert asyncio.run(service.session(server).header()) == read_stored_header(tmp_path)
