"""Sessions: the cached token, one refresh for all waiting callers, and which errors end a session."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hermes_mcp_auth_remote.errors import (
    AuthorizationRequired,
    MalformedResponse,
    McpAuthError,
    NetworkError,
    TokenError,
)
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.refresh import BACKOFF_SECONDS, RETRY_SECONDS
from hermes_mcp_auth_remote.service.sessions import STORE_CHECK_SECONDS, Session
from hermes_mcp_auth_remote.service.single_flight import SingleFlight
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.protocol import Stored, Unknown, Version
from hermes_mcp_auth_remote.values import CredentialKey, Server
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import (
    KEY,
    log_in,
    read_credential_files,
    refresh_elsewhere,
    remove_binding,
    wait_until,
)
from tests.service.model import full_disk

pytestmark = pytest.mark.slow

REFUSED = ['Bearer error="invalid_token"']


def get_header(session: Session) -> str:
    return asyncio.run(session.header())


def handle_challenge(session: Session, refused_header: str) -> str | None:
    return asyncio.run(session.handle_challenge(refused_header, 401, REFUSED))


def open_session(home: Path, server: Server, clock: ManualClock) -> Session:
    """Return a session as another process would open it."""
    return AuthService(home, clock=clock).session(server)


def is_live(demo: Demo, authorization: str | None) -> bool:
    assert authorization is not None
    return demo.authorization_server.ledger.find_live_token(authorization.removeprefix("Bearer ")) is not None


def fail_on_call(*_: object, **__: object) -> Any:
    raise AssertionError("the hot path touched the store, a lock or a flight")


@covers("hot-path")
def test_a_cached_token_needs_no_file_no_lock_and_no_request(
    logged_in_service: AuthService, server: Server, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = logged_in_service.session(server)
    for kind, names in ((FileStore, ("read", "glance", "try_lease")), (SingleFlight, ("submit",))):
        for name in names:
            monkeypatch.setattr(kind, name, fail_on_call)
    assert session.header_now() == get_header(session) == session.header_blocking()
    assert demo.authorization_server.requests == []


def test_after_a_restart_a_valid_token_is_read_once_without_a_request(
    logged_in_service: AuthService, server: Server, demo: Demo, tmp_path: Path, clock: ManualClock
) -> None:
    session = open_session(tmp_path, server, clock)
    assert session.header_now() is None
    assert get_header(session) == session.header_now() == logged_in_service.session(server).header_now()
    assert demo.authorization_server.requests == []


def test_without_a_login_authorization_is_required_and_no_request_is_sent(
    service: AuthService, server: Server, demo: Demo
) -> None:
    with pytest.raises(AuthorizationRequired, match="no user has logged in yet"):
        get_header(service.session(server))
    with pytest.raises(AuthorizationRequired):
        service.session(server).header_blocking()
    assert demo.authorization_server.requests == []


@covers("one-refresh")
def test_a_call_without_a_prompter_fails_at_once_and_names_a_waiting_login_but_no_url(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    session = logged_in_service.session(server)
    clock.now += 3600

    async def main() -> set[str]:
        return set(await asyncio.gather(*(session.header() for _ in range(100))))

    (new_header,) = asyncio.run(main())
    assert is_live(demo, new_header)
    assert demo.authorization_server.count_requests("refresh") == len(demo.authorization_server.requests) == 1


@covers("one-refresh")
def test_threads_with_event_loops_and_synchronous_callers_share_one_refresh(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    session = logged_in_service.session(server)
    clock.now += 3600
    gate, together = demo.authorization_server.hold("refresh"), threading.Barrier(9)

    def call_together(get_token: Callable[[], str]) -> str:
        together.wait(20)
        return get_token()

    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(call_together, lambda: get_header(session)) for _ in range(4)]
        waiting += [threads.submit(call_together, session.header_blocking) for _ in range(4)]
        together.wait(20)
        assert gate.arrived.wait(20)
        gate.open()
        headers = {future.result(20) for future in waiting}
    assert len(headers) == 1
    assert is_live(demo, headers.pop())
    assert demo.authorization_server.count_requests("refresh") == 1


def test_a_synchronous_caller_inside_a_running_event_loop_gets_a_token(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    clock.now += 3600

    async def main() -> str:
        return logged_in_service.session(server).header_blocking()

    assert is_live(demo, asyncio.run(main()))


@covers("one-refresh")
def test_a_hundred_callers_with_a_refused_token_share_one_refresh(
    logged_in_service: AuthService, server: Server, demo: Demo
) -> None:
    session = logged_in_service.session(server)
    refused = get_header(session)
    demo.authorization_server.ledger.revoke_access_tokens()

    async def main() -> set[str | None]:
        return set(
            await asyncio.gather(*(session.handle_challenge(refused, 401, REFUSED) for _ in range(100)))
        )

    (new_header,) = asyncio.run(main())
    assert is_live(demo, new_header)
    # A late caller with the refused token gets the new one without another refresh.
    assert handle_challenge(session, refused) == new_header
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("one-refresh")
def test_a_cancelled_waiter_does_not_cancel_the_refresh_of_the_others(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    session = logged_in_service.session(server)
    clock.now += 3600
    gate = demo.authorization_server.hold("refresh")

    async def main() -> str:
        first, second = (asyncio.create_task(session.header()) for _ in range(2))
        await asyncio.to_thread(gate.arrived.wait, 20)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        gate.open()
        return await second

    assert is_live(demo, asyncio.run(main()))
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("kept-before-use")
def test_a_refresh_continues_after_every_caller_has_left(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    session = logged_in_service.session(server)
    clock.now += 3600
    gate = demo.authorization_server.hold("refresh", after_processing=True)

    async def main() -> None:
        only = asyncio.create_task(session.header())
        await asyncio.to_thread(gate.arrived.wait, 20)
        only.cancel()
        await asyncio.gather(only, return_exceptions=True)

    asyncio.run(main())
    gate.open()
    # At the server, the old refresh token is used up; the new one is on the disk.
    assert is_live(demo, get_header(session))
    assert is_live(demo, get_header(open_session(tmp_path, server, clock)))
    assert demo.authorization_server.count_requests("refresh") == 1


def test_a_token_is_refreshed_before_it_expires_and_a_short_lived_one_not_constantly(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    session = logged_in_service.session(server)
    old = get_header(session)
    clock.now += 3600 - 61
    assert get_header(session) == old
    demo.authorization_server.change_behaviour(access_token_seconds=20)
    clock.now += 1
    # The refresh starts before the expiry, and no request waits for it.
    wait_until(lambda: get_header(session) != old)
    short = get_header(session)
    clock.now += 17
    assert get_header(session) == short
    assert get_header(open_session(tmp_path, server, clock)) == short
    clock.now += 1
    wait_until(lambda: get_header(session) != short)
    assert demo.authorization_server.count_requests("refresh") == 2


def test_a_due_refresh_does_not_delay_requests_while_the_old_token_is_usable(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    session = logged_in_service.session(server)
    old = get_header(session)
    clock.now += 3600 - 60
    gate = demo.authorization_server.hold("refresh")
    assert get_header(session) == old
    assert gate.arrived.wait(20)
    assert [get_header(session) for _ in range(5)] == [old] * 5
    gate.open()
    wait_until(lambda: get_header(session) != old)
    assert demo.authorization_server.count_requests("refresh") == 1


def test_a_token_of_another_writer_is_noticed_within_a_second_by_one_stat(
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = logged_in_service.session(server)
    old = get_header(session)
    version_checks: list[CredentialKey] = []
    glance = FileStore.glance

    def record_version_check(store: FileStore, key: CredentialKey) -> Version | Unknown | None:
        version_checks.append(key)
        return glance(store, key)

    monkeypatch.setattr(FileStore, "glance", record_version_check)
    assert [get_header(session) for _ in range(100)] == [old] * 100
    assert version_checks == []
    clock.now += STORE_CHECK_SECONDS
    assert [get_header(session) for _ in range(100)] == [old] * 100
    assert len(version_checks) == 1
    new_header = refresh_elsewhere(tmp_path, demo)
    assert get_header(session) == old
    clock.now += STORE_CHECK_SECONDS
    assert get_header(session) == f"Bearer {new_header}"


@covers("kept-before-use")
def test_a_refreshed_token_is_on_the_disk_before_its_first_use(
    logged_in_service: AuthService, server: Server, tmp_path: Path, clock: ManualClock
) -> None:
    clock.now += 3600
    new_header = get_header(logged_in_service.session(server))
    stored = json.loads((tmp_path / "mcp-tokens" / "notes.json").read_bytes())
    assert new_header == f"Bearer {stored['access_token']}"


@covers("kept-before-use", "disk-refuses")
def test_refreshed_tokens_that_cannot_be_stored_are_used_and_stored_later(
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session, before = logged_in_service.session(server), read_credential_files(tmp_path)
    clock.now += 3600
    with full_disk():
        new_header = get_header(session)
        assert is_live(demo, new_header)
        clock.now += BACKOFF_SECONDS
        assert [get_header(session) for _ in range(3)] == [new_header] * 3
        # At the expiry, the refresh uses the refresh token in memory: the stored one is used up.
        clock.now += 3600
        new_header = get_header(session)
        assert is_live(demo, new_header)
        wait_until(lambda: logged_in_service._deps.refresh_flights._running_flights == {})
    assert read_credential_files(tmp_path) == before
    assert [r.levelname for r in caplog.records if "only this process has" in r.getMessage()] == ["WARNING"]
    assert demo.authorization_server.count_requests("refresh") == 2
    clock.now += BACKOFF_SECONDS
    assert get_header(session) == new_header
    wait_until(lambda: read_credential_files(tmp_path) != before)
    assert get_header(open_session(tmp_path, server, clock)) == new_header
    clock.now += 3600
    assert is_live(demo, get_header(open_session(tmp_path, server, clock)))
    assert demo.authorization_server.count_requests("refresh") == 3


@covers("disk-refuses")
def test_a_newer_login_replaces_tokens_that_could_not_be_stored(
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    tmp_path: Path,
) -> None:
    session = logged_in_service.session(server)
    clock.now += 3600
    with full_disk():
        unsaved_header = get_header(session)
    elsewhere = AuthService(tmp_path, clock=clock)
    asyncio.run(log_in(elsewhere, server))
    clock.now += STORE_CHECK_SECONDS
    assert get_header(session) == get_header(elsewhere.session(server)) != unsaved_header
    clock.now += 3600
    assert is_live(demo, get_header(session))


@covers("keep-refresh")
def test_quirk_33_a_server_that_does_not_rotate_keeps_its_refresh_token(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    demo.authorization_server.change_behaviour(rotates_refresh_tokens=False)
    for _ in range(3):
        clock.now += 3600
        assert is_live(demo, get_header(logged_in_service.session(server)))
    assert demo.authorization_server.count_requests("refresh") == 3


@covers("expires-in")
def test_quirk_32_a_token_without_an_expiry_is_refreshed_only_after_a_401(
    service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    demo.authorization_server.change_behaviour(token_overrides={"expires_in": None})
    asyncio.run(log_in(service, server))
    session = open_session(tmp_path, server, clock)
    clock.now += 3599
    first = get_header(session)
    assert demo.authorization_server.count_requests("refresh") == 0
    demo.authorization_server.ledger.revoke_access_tokens()
    assert is_live(demo, handle_challenge(session, first))


TEMPORARY_FAULTS: dict[str, tuple[dict[str, Any], type[McpAuthError]]] = {
    "503": ({"status": 503}, MalformedResponse),
    "HTML": ({"status": 200, "body": "<html>Down for maintenance</html>"}, MalformedResponse),
    "a hang-up": ({"hang_up": True}, NetworkError),
    "temporarily_unavailable": (
        {"status": 400, "body": '{"error": "temporarily_unavailable"}'},
        TokenError,
    ),
}


@covers("refresh-failures")
@pytest.mark.parametrize("name", TEMPORARY_FAULTS)
def test_quirk_34_a_temporary_fault_ends_no_session_and_is_not_retried_at_once(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path, name: str
) -> None:
    fault, kind = TEMPORARY_FAULTS[name]
    session, before = logged_in_service.session(server), read_credential_files(tmp_path)
    old = get_header(session)
    demo.authorization_server.fail_next("refresh", **fault, times=None)
    clock.now += 3600 - 50
    # The token is usable for another 50 s. Meanwhile the session retries every 15 s.
    assert [get_header(session) for _ in range(5)] == [old] * 5
    wait_until(lambda: session._cached_token.refresh_at == clock.now + BACKOFF_SECONDS)
    assert demo.authorization_server.count_requests("refresh") == 1
    clock.now += BACKOFF_SECONDS - 1
    assert get_header(session) == old
    assert demo.authorization_server.count_requests("refresh") == 1
    clock.now += 1
    assert get_header(session) == old
    wait_until(lambda: session._cached_token.refresh_at == clock.now + BACKOFF_SECONDS)
    assert demo.authorization_server.count_requests("refresh") == 2
    # The token has expired: an error, and one retry in five seconds.
    clock.now += 50
    for _ in range(5):
        with pytest.raises(kind):
            get_header(session)
    assert demo.authorization_server.count_requests("refresh") == 3
    assert read_credential_files(tmp_path) == before
    demo.authorization_server.clear_faults()
    clock.now += RETRY_SECONDS
    assert is_live(demo, get_header(session))


def test_a_fault_after_a_401_does_not_return_the_refused_token(
    logged_in_service: AuthService, server: Server, demo: Demo
) -> None:
    session = logged_in_service.session(server)
    refused = get_header(session)
    demo.authorization_server.fail_next("refresh", status=503, times=None)
    for _ in range(3):
        with pytest.raises(MalformedResponse):
            handle_challenge(session, refused)
    assert demo.authorization_server.count_requests("refresh") == 1


def test_an_invalid_option_that_stops_the_refresh_does_not_stop_a_usable_token(
    logged_in_service: AuthService, server: Server, clock: ManualClock, tmp_path: Path
) -> None:
    wrong = replace(server, options=replace(server.options, allow_addresses=("no network",)))
    old = get_header(logged_in_service.session(server))
    clock.now += 3600 - 30
    assert get_header(open_session(tmp_path, wrong, clock)) == old
    clock.now += 30
    with pytest.raises(McpAuthError, match="allow_addresses"):
        get_header(open_session(tmp_path, wrong, clock))


@covers("asked-once")
@pytest.mark.parametrize("by_hermes", [False, True], ids=["written by us", "written by Hermes"])
def test_an_ended_session_sends_its_refresh_token_once(
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    tmp_path: Path,
    *,
    by_hermes: bool,
) -> None:
    session = logged_in_service.session(server)
    if by_hermes:
        remove_binding(tmp_path)
    stored = FileStore(tmp_path).read(KEY).credentials
    demo.authorization_server.ledger.revoke_everything()
    refused = get_header(session)
    for _ in range(5):
        with pytest.raises(AuthorizationRequired, match="has ended the session") as caught:
            handle_challenge(session, refused)
        assert "http" not in f"{caught.value} {caught.value.advice}"
    assert demo.authorization_server.count_requests("refresh") == 1
    # The tokens stay stored. Another process reads the refusal from the disk, also for tokens of Hermes.
    assert FileStore(tmp_path).read(KEY).credentials.tokens == stored.tokens
    other = open_session(tmp_path, server, clock)
    for _ in range(5):
        with pytest.raises(AuthorizationRequired):
            handle_challenge(other, refused)
    assert demo.authorization_server.count_requests("refresh") == 1
    asyncio.run(log_in(AuthService(tmp_path, clock=clock), server))
    assert is_live(demo, handle_challenge(session, refused))
    assert is_live(demo, handle_challenge(other, refused))


@covers("adopted")
def test_quirk_34_a_rotation_by_another_writer_is_adopted(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    session = logged_in_service.session(server)
    clock.now += 3600
    gate = demo.authorization_server.hold("refresh")

    async def main() -> str:
        header_task = asyncio.create_task(session.header())
        await asyncio.to_thread(gate.arrived.wait, 20)
        # Hermes 0.19 takes no lock. The fault is cleared, so that only our own request fails.
        other_header = refresh_elsewhere(tmp_path, demo)
        demo.authorization_server.clear_faults()
        gate.open()
        assert await header_task == f"Bearer {other_header}"
        return other_header

    # The held request gets invalid_grant, because the refresh token is used up by then.
    other_header = asyncio.run(main())
    assert demo.authorization_server.count_requests("refresh") == 1
    assert FileStore(tmp_path).read(KEY).credentials.binding is not None
    assert session.header_now() == f"Bearer {other_header}"


@covers("adopted")
def test_a_token_that_another_process_refreshed_is_adopted_without_a_request(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    session = logged_in_service.session(server)
    refused = get_header(session)
    other_header = refresh_elsewhere(tmp_path, demo)
    assert handle_challenge(session, refused) == f"Bearer {other_header}"
    clock.now += 3600
    other_header = refresh_elsewhere(tmp_path, demo)
    assert get_header(session) == f"Bearer {other_header}"
    assert demo.authorization_server.requests == []


def test_tokens_that_hermes_wrote_work_and_can_be_refreshed(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    remove_binding(tmp_path)
    session = open_session(tmp_path, server, clock)
    old = get_header(session)
    assert is_live(demo, old)
    clock.now += 3600
    assert is_live(demo, get_header(session))
    assert demo.authorization_server.requests[-1].form["resource"] == demo.ping_url


@covers("server-query")
def test_tokens_that_hermes_wrote_are_refreshed_if_the_server_address_has_a_query(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    remove_binding(tmp_path)
    queried = replace(server, url=f"{server.url}?project_ref=1&key=k")
    clock.now += 3600
    assert is_live(demo, get_header(open_session(tmp_path, queried, clock)))
    # RFC 8707 section 2. If the query contains a key, only the MCP server may get it.
    assert demo.authorization_server.requests[-1].form["resource"] == demo.ping_url


@covers("token-address")
@pytest.mark.parametrize("over", [False, True], ids=["a fresh token", "an expired token"])
def test_a_token_is_never_sent_to_another_address_under_the_same_name(
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    tmp_path: Path,
    *,
    over: bool,
) -> None:
    moved = replace(server, url=demo.mcp_url)
    clock.now += 3600 if over else 0
    for service in (logged_in_service, AuthService(tmp_path, clock=clock)):
        with pytest.raises(AuthorizationRequired, match="another address"):
            get_header(service.session(moved))
    assert demo.authorization_server.requests == []


@covers("token-address")
def test_a_session_of_another_address_does_not_join_the_refresh(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    clock.now += 3600
    moved = replace(server, url=demo.mcp_url)
    gate = demo.authorization_server.hold("refresh")

    async def main() -> tuple[Any, Any]:
        own_header = asyncio.create_task(logged_in_service.session(server).header())
        await asyncio.to_thread(gate.arrived.wait, 20)
        other_header = asyncio.create_task(logged_in_service.session(moved).header())
        # This call either fails or waits for the lock. In both cases it gets no token.
        await asyncio.wait([other_header], timeout=5)
        gate.open()
        return await asyncio.gather(own_header, other_header, return_exceptions=True)

    ours, theirs = asyncio.run(main())
    assert is_live(demo, ours)
    assert isinstance(theirs, AuthorizationRequired)


def test_a_caller_with_a_refused_token_never_gets_it_back(
    logged_in_service: AuthService, server: Server, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = logged_in_service.session(server)
    refused = get_header(session)
    session.clear_cache()
    demo.authorization_server.ledger.revoke_access_tokens()
    reading, may_continue, read = threading.Event(), threading.Event(), FileStore.read

    def read_slowly(store: FileStore, key: CredentialKey) -> Stored:
        reading.set()
        assert may_continue.wait(20)
        return read(store, key)

    monkeypatch.setattr(FileStore, "read", read_slowly)

    async def main() -> str | None:
        # This flight started before the refusal, so it reads the refused token from the disk.
        first = asyncio.create_task(session.header())
        await asyncio.to_thread(reading.wait, 20)
        second = asyncio.create_task(session.handle_challenge(refused, 401, REFUSED))
        await asyncio.wait([second], timeout=0)
        may_continue.set()
        assert await first == refused
        return await second

    assert is_live(demo, asyncio.run(main()))


def test_a_finished_flight_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    async def number() -> int:
        numbers.append(1)
        return len(numbers)

    numbers: list[int] = []
    flights: SingleFlight[int] = SingleFlight("test")
    # Keep the finished flight registered. This is its state between its result and its removal.
    monkeypatch.setattr(SingleFlight, "_remove_flight", lambda *_: None)
    assert [flights.submit("key", number).result(20) for _ in range(2)] == [1, 2]


@covers("step-up")
@pytest.mark.parametrize("scope", ["mcp:write", ""])
def test_quirk_38_more_scope_needs_a_login_and_a_plain_403_goes_to_the_caller(
    logged_in_service: AuthService, server: Server, demo: Demo, scope: str
) -> None:
    session = logged_in_service.session(server)
    sent = get_header(session)
    lines = [f'Bearer error="insufficient_scope", scope="{scope}"']
    with pytest.raises(AuthorizationRequired, match="more access") as caught:
        asyncio.run(session.handle_challenge(sent, 403, lines))
    assert caught.value.server_message == scope
    with pytest.raises(AuthorizationRequired):
        session.handle_challenge_blocking(sent, 403, lines)
    assert asyncio.run(session.handle_challenge(sent, 403, [])) is None
    assert session.header_now() == sent
    assert demo.authorization_server.requests == []


def test_a_corrupt_file_is_named_and_left_unchanged(
    logged_in_service: AuthService, server: Server, tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "mcp-tokens" / "notes.json"
    path.write_bytes(b'{"access_token": ')
    with pytest.raises(McpAuthError, match=r"notes\.json"):
        get_header(open_session(tmp_path, server, clock))
    assert path.read_bytes() == b'{"access_token": '


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_refreshes_without_the_threads_of_its_parent(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    session = logged_in_service.session(server)
    clock.now += 3600
    get_header(session)
    clock.now += 3600
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if session.header_blocking() else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert demo.authorization_server.count_requests("refresh") == 2
    assert is_live(demo, handle_challenge(session, "Bearer old"))
