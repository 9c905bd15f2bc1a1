"""A token response that arrives after every caller has left: the service stores or revokes the tokens."""

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
from tests.browserless import approve, approve_device
from tests.demo.player import MovedClock
from tests.jumping import Jumping, jump, while_waiting
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers
from tests.service.given import KEY, TERMINAL, eventually, kept
from tests.tripwire import guard

pytestmark = pytest.mark.slow

__all__ = ["jump"]

# Callers stop waiting after 0.05 s.
IMPATIENT = replace(TIME_LIMITS, caller_seconds=0.05)


def impatient(home: Path, clock: Callable[[], float], limits: TimeLimits = IMPATIENT) -> AuthService:
    return AuthService(home, clock=clock, limits=limits)


def stored_header(home: Path) -> str:
    tokens = FileStore(home).read(KEY).tokens
    assert tokens is not None
    return tokens.authorization_header


async def asked(service: AuthService, server: Server) -> tuple[Login, str]:
    login = await service.start_login(server, TERMINAL)
    return login, await asyncio.to_thread(approve, login.authorization_url)


def ended(service: AuthService, login: Login) -> Login:
    eventually(lambda: service.login(login.id).is_over)
    return service.login(login.id)


@covers("late-tokens")
def test_a_refresh_that_is_answered_after_its_caller_left_is_stored_and_used(
    jump: Jumping, session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    before = stored_header(tmp_path)
    clock.now += 3600
    gate = demo.authorization_server.hold("refresh", after_processing=True)
    session = AuthService(tmp_path, clock=clock).session(server)
    with pytest.raises(TimedOut, match=r"127\.0\.0\.1 got a token request for notes but did not") as late:
        asyncio.run(while_waiting(session.header(), gate.arrived.is_set, jump))
    assert "nothing was lost" not in late.value.advice
    gate.open()
    eventually(lambda: stored_header(tmp_path) != before)
    assert asyncio.run(session.header()) == stored_header(tmp_path)
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("late-tokens")
def test_a_caller_that_waits_no_longer_goes_on_with_a_token_that_is_due_but_good(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    before = stored_header(tmp_path)
    clock.now += 3600 - 30
    gate = demo.authorization_server.hold("refresh", after_processing=True)
    session = impatient(tmp_path, clock).session(server)
    assert asyncio.run(session.header()) == before
    # After the server refused the token, the session does not return it again.
    with pytest.raises(TimedOut):
        asyncio.run(session.handle_challenge(before, 401, ["Bearer"]))
    gate.open()
    eventually(lambda: stored_header(tmp_path) != before)
    clock.now += 2
    assert asyncio.run(session.header()) == stored_header(tmp_path)
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("late-tokens")
def test_a_caller_that_is_cancelled_loses_no_refresh(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    before = stored_header(tmp_path)
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
    eventually(lambda: stored_header(tmp_path) != before)
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("late-tokens")
@pytest.mark.parametrize("how", ["late", "cancelled"])
def test_a_code_that_is_answered_after_its_caller_left_is_a_login(
    jump: Jumping, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path, how: str
) -> None:
    service = AuthService(tmp_path, clock=clock)

    async def main() -> Login:
        login, answer = await asked(service, server)
        gate = demo.authorization_server.hold("token", after_processing=True)
        finishing = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        assert await asyncio.to_thread(gate.arrived.wait, 20)
        if how == "cancelled":
            finishing.cancel()
        else:
            await jump.pass_time(21)
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else StillExchanging) as left:
            await finishing
        assert "nothing was lost" not in getattr(left.value, "advice", "")
        assert service.login(login.id).status == "exchanging"
        gate.open()
        return login

    login = asyncio.run(main())
    assert ended(service, login).status == "done"
    assert asyncio.run(service.session(server).header()) == stored_header(tmp_path)
    assert (
        demo.authorization_server.count_requests("token"),
        demo.authorization_server.count_requests("revocation"),
    ) == (1, 0)


@covers("late-tokens", "interrupted")
def test_a_login_that_is_cancelled_before_its_code_was_sent_never_sends_it(
    server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    reached, go, over = threading.Event(), threading.Event(), threading.Event()

    async def run(exchange: Exchange[object], server: Server) -> object:
        if threading.current_thread().name != "mcp-auth-exchange":
            return await client.run_exchange(exchange, server)
        reached.set()
        await asyncio.to_thread(go.wait, 20)
        try:
            return await client.run_exchange(exchange, server)
        finally:
            over.set()

    service = AuthService(tmp_path, clock=clock, run_exchange=run)  # type: ignore[arg-type]

    async def main() -> Login:
        login, answer = await asked(service, server)
        finishing = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        assert await asyncio.to_thread(reached.wait, 20)
        finishing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await finishing
        return service.login(login.id)

    now = asyncio.run(main())
    assert (now.status, now.failure) == ("failed", ("This login was interrupted.", "Begin a new login."))
    go.set()
    assert over.wait(20)
    assert demo.authorization_server.count_requests("token") == 0


@covers("late-tokens")
@pytest.mark.parametrize("how", ["late", "in time"])
def test_what_a_code_brought_and_cannot_be_stored_is_revoked(
    jump: Jumping,
    session_kept: AuthService,
    server: Server,
    demo: Demo,
    clock: MovedClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    service, before = AuthService(tmp_path, clock=clock), kept(tmp_path)

    def full(
        store: FileStore, key: CredentialKey, credentials: Credentials, login_id: str | None = None
    ) -> None:
        raise StoreUnwritable("The disk is full.")

    async def main() -> Login:
        login, answer = await asked(service, server)
        monkeypatch.setattr(FileStore, "save_login", full)
        gate = demo.authorization_server.hold("token", after_processing=True)
        finishing = asyncio.create_task(service.complete_login(login.id, answer, TERMINAL))
        assert await asyncio.to_thread(gate.arrived.wait, 20)
        if how == "late":
            await jump.pass_time(21)
            with pytest.raises(StillExchanging):
                await finishing
        gate.open()
        if how == "in time":
            with pytest.raises(StoreUnwritable):
                await finishing
        return login

    login = asyncio.run(main())
    assert ended(service, login).failure_code == "store_unwritable"
    # The refresh token, then the access token.
    eventually(lambda: demo.authorization_server.count_requests("revocation") == 2)
    assert kept(tmp_path) == before
    assert asyncio.run(session_kept.session(server).header()) == stored_header(tmp_path)


@covers("due-token")
def test_a_token_that_is_due_but_good_is_used_while_the_lock_is_taken(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    before = stored_header(tmp_path)
    clock.now += 3600 - 30
    limits = replace(TIME_LIMITS, due_lock_seconds=0.05)
    session = impatient(tmp_path, clock, limits).session(server)
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
    eventually(lambda: stored_header(tmp_path) != before)
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("due-token")
def test_a_token_that_has_ended_is_not_used_while_the_lock_is_taken(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    clock.now += 3600
    session = impatient(tmp_path, clock).session(server)
    lock = FileStore(tmp_path).lock(KEY)
    assert lock.try_acquire()
    try:
        with pytest.raises(TimedOut, match="another process"):
            asyncio.run(session.header())
        assert demo.authorization_server.requests == []
    finally:
        lock.release()
    eventually(lambda: demo.authorization_server.count_requests("refresh") == 1)


@covers("late-tokens")
def test_no_advice_ends_a_process_that_may_be_refreshing(tmp_path: Path) -> None:
    held = FileLock(tmp_path / "lock")
    assert held.try_acquire()
    with pytest.raises(StoreBusy) as busy, FileLock(tmp_path / "lock").hold(0):
        pass
    held.release()
    for text in (str(busy.value), busy.value.advice):
        assert not {"end it", "kill it", "stop it"} & {text[i : i + 7].strip() for i in range(len(text))}
    assert "Wait until the process that holds the lock ends" in busy.value.advice


@pytest.fixture(scope="module")
def with_device() -> Iterator[Demo]:
    with serve_demo(Behaviour(with_device=True, device_interval_seconds=1)) as demo:
        guard(demo.authorization_server.minted_secrets)
        yield demo
        demo.authorization_server.clear_faults()


@covers("late-tokens", "device-poll")
@pytest.mark.parametrize("how", ["late", "no caller waits", "cannot be claimed"])
def test_a_device_poll_whose_tokens_come_late_is_a_login(
    jump: Jumping, with_device: Demo, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = with_device
    demo.authorization_server.requests.clear()
    server = Server("notes", demo.ping_url)
    service = AuthService(tmp_path)

    def busy(*_: object) -> Login:
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
        # Longer than any other response may take.
        jump(21)
        if how == "cannot be claimed":
            monkeypatch.setattr(type(service._logins), "claim", busy)
        demo.authorization_server.clear_faults()
        if how == "late":
            await waiting
        elif how == "cannot be claimed":
            await asyncio.to_thread(
                eventually, lambda: demo.authorization_server.count_requests("revocation") == 2
            )
            monkeypatch.undo()
            await waiting
        return login

    over = ended(service, asyncio.run(main()))
    if how == "cannot be claimed":
        assert over.status == "failed"
        assert FileStore(tmp_path).read(KEY).tokens is None
        return
    assert over.status == "done"
    assert demo.authorization_server.count_requests("device_poll") == 1
    assert asyncio.run(service.session(server).header()) == stored_header(tmp_path)
