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
from hermes_mcp_auth_remote.service.refresh import TokenSource
from hermes_mcp_auth_remote.service.single_flight import MAX_THREADS_PER_LANE, SingleFlight
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.threads import MAX_FILE_THREADS
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from hermes_mcp_auth_remote.values import CredentialKey, Secret, Server
from tests.exchange_script import make_response
from tests.requirements import covers
from tests.service.fakes import (
    DUE_AT,
    EXPIRED_AT,
    OLD_HEADER,
    SERVER,
    FakeServer,
    T,
    get_header,
    make_service,
    make_store,
)
from tests.service.helpers import wait_until
from tests.store.builders import KEY, NOW, build_credentials, build_login

LIMIT = 0.4


def refuse_to_start(*_: object) -> None:
    raise RuntimeError("can't start new thread")


@covers("late-tokens")
def test_a_caller_with_a_refused_token_waits_for_two_flights_within_one_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first flight started before the refusal, and fails late."""
    make_store(tmp_path)
    first, second = threading.Event(), threading.Event()
    server = FakeServer(lambda _request: make_response(503))
    server.gate = first
    session = make_service(tmp_path, server, DUE_AT, replace(TIME_LIMITS, caller_seconds=LIMIT)).session(
        SERVER
    )
    session._tokens._submit_flight(None)
    wait_until(lambda: len(server.requests) == 1)
    server.gate = second
    waits: list[float] = []

    async def handle_challenge() -> str | None:
        asyncio.get_running_loop().call_later(LIMIT * 0.75, first.set)
        return await session.handle_challenge(OLD_HEADER, 401, [])

    wait_for_token = TokenSource._wait_for_token

    async def record_wait(
        self: TokenSource, refused: Secret | None, challenge: object = None, seconds: float | None = None
    ) -> object:
        waits.append(LIMIT if seconds is None else seconds)
        return await wait_for_token(self, refused, None, seconds)

    monkeypatch.setattr(TokenSource, "_wait_for_token", record_wait)
    with pytest.raises(TimedOut):
        asyncio.run(handle_challenge())
    second.set()
    assert waits[0] == LIMIT
    assert waits[1] <= LIMIT * 0.3


@covers("due-token")
@pytest.mark.parametrize("token_source", ["in memory", "in the store"])
def test_a_due_token_is_used_if_no_thread_can_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token_source: str
) -> None:
    make_store(tmp_path)
    now = [NOW]
    service = AuthService(tmp_path, run_exchange=FakeServer().run_exchange, clock=lambda: now[0])
    if token_source == "in memory":
        assert get_header(service) == OLD_HEADER
    now[0] = DUE_AT
    with monkeypatch.context() as patch:
        patch.setattr(SingleFlight, "submit", refuse_to_start)
        assert get_header(service) == OLD_HEADER
        now[0] = EXPIRED_AT
        with pytest.raises(TimedOut, match="can start no thread"):
            get_header(service)


@covers("due-token")
def test_a_process_that_is_exiting_uses_its_due_token_and_reports_why_it_gets_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(tmp_path)
    server = FakeServer()
    monkeypatch.setattr(exit_delay._process_holds, "is_ending", True)
    assert get_header(make_service(tmp_path, server, DUE_AT)) == OLD_HEADER
    with pytest.raises(TimedOut, match="this process is ending"):
        get_header(make_service(tmp_path, server, EXPIRED_AT))
    assert FileStore(tmp_path).read(KEY).credentials.tokens == build_credentials(0).tokens


def add_claimed_login(store: FileStore, completion: LoginCompletion, number: int, server: Server) -> Login:
    login = build_login(f"a-login-that-nobody-{number:03d}")
    authorization_server = login.authorization_server
    revocable = authorization_server_from_document(
        {**authorization_server.document, "revocation_endpoint": f"{authorization_server.issuer}/revoke"}
    )
    key = CredentialKey(server.name, f"telegram:{number}")
    store.logins.add(replace(login, key=key, server_url=server.url, authorization_server=revocable))
    return completion.claim(store.logins.get(login.id))


@covers("late-tokens")
def test_hanging_revocations_do_not_block_a_login_at_another_server(tmp_path: Path) -> None:
    released, revocation_servers = threading.Event(), list[str]()
    evil = Server("evil", "https://evil.example/mcp")

    async def run(exchange: Exchange[T], server: Server) -> T:
        try:
            next(exchange)
        except StopIteration as end:
            result: T = end.value
            return result
        revocation_servers.append(server.name)
        await asyncio.to_thread(released.wait, 60)
        raise TimedOut("It never answered.")

    store, tokens = FileStore(tmp_path), build_credentials(1).tokens
    assert tokens is not None
    completion = LoginCompletion(Dependencies(store, run, lambda: NOW, lambda _bytes: "x"), _server_of)

    def complete(login: Login) -> None:
        try:
            asyncio.run(completion.save_granted_tokens(login, tokens, None))
        except McpAuthError as error:
            revocation_servers.append(error.code)

    store.logins.add(build_login())
    hanging: list[threading.Thread] = []
    for number in range(MAX_THREADS_PER_LANE):
        login = add_claimed_login(store, completion, number, evil)
        store.logins.change(login.id, lambda it: apply_event(it, "fail"))
        hanging.append(threading.Thread(target=complete, args=(login,), daemon=True))
        hanging[-1].start()
    try:
        wait_until(lambda: revocation_servers == ["evil"] * MAX_THREADS_PER_LANE)
        honest = add_claimed_login(store, completion, 900, SERVER)
        thread = threading.Thread(target=complete, args=(honest,), daemon=True)
        thread.start()
        wait_until(lambda: store.logins.get(honest.id).status == "done")
    finally:
        released.set()
        for hanging_thread in hanging:
            hanging_thread.join(20)


def _server_of(login: Login) -> Server:
    return Server(login.key.server_name, login.server_url)


@covers("late-tokens")
def test_a_caller_stops_waiting_in_time_although_all_file_work_waits_for_a_lock(tmp_path: Path) -> None:
    store, server = make_store(tmp_path), FakeServer()
    server.gate.clear()
    store.logins.add(build_login())
    service = make_service(tmp_path, server, EXPIRED_AT, replace(TIME_LIMITS, caller_seconds=0.05))
    lock = FileLock(tmp_path / "mcp-tokens" / "logins" / ".lock")
    assert lock.try_acquire()

    async def get_header_in_time() -> None:
        waiting = [
            asyncio.ensure_future(service.save_prompt_message(build_login().id, str(number)))
            for number in range(MAX_FILE_THREADS + 2)
        ]
        try:
            with pytest.raises(TimedOut):
                await asyncio.wait_for(service.session(SERVER).header(), 20)
        finally:
            lock.release()
            await asyncio.gather(*waiting, return_exceptions=True)

    try:
        asyncio.run(get_header_in_time())
    finally:
        server.gate.set()
