"""No caller waits longer than its limit, and a usable token is used even if no thread can be started."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote import exit_delay
from hermes_mcp_auth_remote.errors import McpAuthError, TimedOut
from hermes_mcp_auth_remote.login import Login, apply_event
from hermes_mcp_auth_remote.oauth.metadata import authorization_server_from_document
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.complete_login import LoginCompletion
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.service.single_flight import MAX_THREADS_PER_LANE, SingleFlight
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.threads import MAX_FILE_THREADS
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from hermes_mcp_auth_remote.values import CredentialKey, Secret, Server
from tests.playbook import answer
from tests.requirements import covers
from tests.service.fakes import DUE, ENDED, OLD, SERVER, FakeServer, T, header, seeded, service_at
from tests.service.given import eventually
from tests.store.given import KEY, NOW, credentials_of, login_of

LIMIT = 0.4


def refuse_to_start(*_: object) -> None:
    raise RuntimeError("can't start new thread")


@covers("late-tokens")
def test_a_caller_whose_token_was_refused_waits_for_two_flights_no_longer_than_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first flight started before the refusal, and fails late."""
    seeded(tmp_path)
    first, second = threading.Event(), threading.Event()
    server = FakeServer(lambda _request: answer(503))
    server.gate = first
    session = service_at(tmp_path, server, DUE, replace(TIME_LIMITS, caller_seconds=LIMIT)).session(SERVER)
    session._submit_flight(None)
    eventually(lambda: len(server.requests) == 1)
    server.gate = second
    waits: list[float] = []

    async def challenged() -> str | None:
        asyncio.get_running_loop().call_later(LIMIT * 0.75, first.set)
        return await session.handle_challenge(OLD, 401, [])

    renewed = Session._wait_for_token

    async def noted(
        self: Session, refused: Secret | None, challenge: object = None, seconds: float | None = None
    ) -> object:
        waits.append(LIMIT if seconds is None else seconds)
        return await renewed(self, refused, None, seconds)

    monkeypatch.setattr(Session, "_wait_for_token", noted)
    with pytest.raises(TimedOut):
        asyncio.run(challenged())
    second.set()
    assert waits[0] == LIMIT
    assert waits[1] <= LIMIT * 0.3


@covers("due-token")
@pytest.mark.parametrize("place", ["in memory", "in the store"])
def test_a_due_token_is_used_if_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    seeded(tmp_path)
    now = [NOW]
    service = AuthService(tmp_path, run_exchange=FakeServer().run, clock=lambda: now[0])
    if place == "in memory":
        assert header(service) == OLD
    now[0] = DUE
    with monkeypatch.context() as patch:
        patch.setattr(SingleFlight, "submit", refuse_to_start)
        assert header(service) == OLD
        now[0] = ENDED
        with pytest.raises(TimedOut, match="can start no thread"):
            header(service)


@covers("due-token")
def test_a_process_that_ends_uses_its_due_token_and_says_why_it_gets_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded(tmp_path)
    server = FakeServer()
    monkeypatch.setattr(exit_delay._process_holds, "is_ending", True)
    assert header(service_at(tmp_path, server, DUE)) == OLD
    with pytest.raises(TimedOut, match="this process is ending"):
        header(service_at(tmp_path, server, ENDED))
    assert FileStore(tmp_path).read(KEY).tokens == credentials_of(0).tokens


def claimed(store: FileStore, ending: LoginCompletion, number: int, server: Server) -> Login:
    login = login_of(f"a-login-that-nobody-{number:03d}")
    known = login.authorization_server
    revocable = authorization_server_from_document(
        {**known.document, "revocation_endpoint": f"{known.issuer}/revoke"}
    )
    key = CredentialKey(server.name, f"telegram:{number}")
    store.logins.add(replace(login, key=key, server_url=server.url, authorization_server=revocable))
    return ending.claim(store.logins.get(login.id))


@covers("late-tokens")
def test_revocations_that_hang_hold_up_no_login_of_another_server(tmp_path: Path) -> None:
    released, asked = threading.Event(), list[str]()
    evil = Server("evil", "https://evil.example/mcp")

    async def run(exchange: Exchange[T], server: Server) -> T:
        try:
            next(exchange)
        except StopIteration as end:
            result: T = end.value
            return result
        asked.append(server.name)
        await asyncio.to_thread(released.wait, 60)
        raise TimedOut("It never answered.")

    store, tokens = FileStore(tmp_path), credentials_of(1).tokens
    assert tokens is not None
    ending = LoginCompletion(Dependencies(store, run, lambda: NOW, lambda _bytes: "x"), _server_of)

    def complete(login: Login) -> None:
        try:
            asyncio.run(ending.save_granted_tokens(login, tokens, None))
        except McpAuthError as error:
            asked.append(error.code)

    store.logins.add(login_of())
    hanging: list[threading.Thread] = []
    for number in range(MAX_THREADS_PER_LANE):
        login = claimed(store, ending, number, evil)
        store.logins.change(login.id, lambda it: apply_event(it, "fail"))
        hanging.append(threading.Thread(target=complete, args=(login,), daemon=True))
        hanging[-1].start()
    try:
        eventually(lambda: asked == ["evil"] * MAX_THREADS_PER_LANE)
        honest = claimed(store, ending, 900, SERVER)
        thread = threading.Thread(target=complete, args=(honest,), daemon=True)
        thread.start()
        eventually(lambda: store.logins.get(honest.id).status == "done")
    finally:
        released.set()
        for each in hanging:
            each.join(10)


def _server_of(login: Login) -> Server:
    return Server(login.key.server_name, login.server_url)


@covers("late-tokens")
def test_a_caller_leaves_in_time_though_all_file_work_waits_for_a_lock(tmp_path: Path) -> None:
    store, server = seeded(tmp_path), FakeServer()
    server.gate.clear()
    store.logins.add(login_of())
    service = service_at(tmp_path, server, ENDED, replace(TIME_LIMITS, caller_seconds=0.05))
    lock = FileLock(tmp_path / "mcp-tokens" / "logins" / ".lock")
    assert lock.try_acquire()

    async def leave() -> None:
        waiting = [
            asyncio.ensure_future(service.save_prompt_message(login_of().id, str(number)))
            for number in range(MAX_FILE_THREADS + 2)
        ]
        try:
            with pytest.raises(TimedOut):
                await asyncio.wait_for(service.session(SERVER).header(), 10)
        finally:
            lock.release()
            await asyncio.gather(*waiting, return_exceptions=True)

    try:
        asyncio.run(leave())
    finally:
        server.gate.set()
