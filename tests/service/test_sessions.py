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
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Server
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.given import KEY, eventually, kept, log_in, rotated_elsewhere, without_binding
from tests.service.model import full_disk

pytestmark = pytest.mark.slow

REFUSED = ['Bearer error="invalid_token"']


def header(session: Session) -> str:
    return asyncio.run(session.header())


def challenged(session: Session, refused: str) -> str | None:
    return asyncio.run(session.handle_challenge(refused, 401, REFUSED))


def anew(home: Path, server: Server, clock: MovedClock) -> Session:
    """Return a session as another process would open it."""
    return AuthService(home, clock=clock).session(server)


def live(demo: Demo, authorization: str | None) -> bool:
    assert authorization is not None
    return demo.authorization_server.ledger.find_live_token(authorization.removeprefix("Bearer ")) is not None


def broken(*_: object, **__: object) -> Any:
    raise AssertionError("the hot path touched the store, a lock or a flight")


@covers("hot-path")
def test_a_valid_token_in_memory_costs_no_read_no_lock_and_no_request(
    session_kept: AuthService, server: Server, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_kept.session(server)
    for kind, names in ((FileStore, ("read", "version", "lock")), (SingleFlight, ("submit",))):
        for name in names:
            monkeypatch.setattr(kind, name, broken)
    assert session.header_now() == header(session) == session.header_blocking()
    assert demo.authorization_server.requests == []


def test_after_a_restart_a_valid_token_is_read_once_and_asked_of_nobody(
    session_kept: AuthService, server: Server, demo: Demo, tmp_path: Path, clock: MovedClock
) -> None:
    session = anew(tmp_path, server, clock)
    assert session.header_now() is None
    assert header(session) == session.header_now() == session_kept.session(server).header_now()
    assert demo.authorization_server.requests == []


def test_without_a_login_a_person_is_needed_and_nobody_is_asked(
    service: AuthService, server: Server, demo: Demo
) -> None:
    with pytest.raises(AuthorizationRequired, match="nobody has logged in yet"):
        header(service.session(server))
    with pytest.raises(AuthorizationRequired):
        service.session(server).header_blocking()
    assert demo.authorization_server.requests == []


@covers("one-refresh")
def test_a_hundred_coroutines_share_one_refresh(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    session = session_kept.session(server)
    clock.now += 3600

    async def main() -> set[str]:
        return set(await asyncio.gather(*(session.header() for _ in range(100))))

    (one,) = asyncio.run(main())
    assert live(demo, one)
    assert demo.authorization_server.count_requests("refresh") == len(demo.authorization_server.requests) == 1


@covers("one-refresh")
def test_threads_with_loops_of_their_own_and_synchronous_callers_share_one_refresh(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    session = session_kept.session(server)
    clock.now += 3600
    gate, together = demo.authorization_server.hold("refresh"), threading.Barrier(9)

    def ask(ask_for: Callable[[], str]) -> str:
        together.wait(20)
        return ask_for()

    with ThreadPoolExecutor(8) as threads:
        waiting = [threads.submit(ask, lambda: header(session)) for _ in range(4)]
        waiting += [threads.submit(ask, session.header_blocking) for _ in range(4)]
        together.wait(20)
        assert gate.arrived.wait(20)
        gate.open()
        headers = {each.result(20) for each in waiting}
    assert len(headers) == 1
    assert live(demo, headers.pop())
    assert demo.authorization_server.count_requests("refresh") == 1


def test_a_synchronous_caller_inside_a_running_loop_is_served_too(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    clock.now += 3600

    async def main() -> str:
        return session_kept.session(server).header_blocking()

    assert live(demo, asyncio.run(main()))


@covers("one-refresh")
def test_a_hundred_callers_whose_token_is_refused_share_one_refresh(
    session_kept: AuthService, server: Server, demo: Demo
) -> None:
    session = session_kept.session(server)
    refused = header(session)
    demo.authorization_server.ledger.revoke_access_tokens()

    async def main() -> set[str | None]:
        return set(
            await asyncio.gather(*(session.handle_challenge(refused, 401, REFUSED) for _ in range(100)))
        )

    (one,) = asyncio.run(main())
    assert live(demo, one)
    # A late caller with the refused token gets the new one without another refresh.
    assert challenged(session, refused) == one
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("one-refresh")
def test_a_cancelled_waiter_cancels_nothing_for_the_others(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    session = session_kept.session(server)
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

    assert live(demo, asyncio.run(main()))
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("kept-before-use")
def test_a_refresh_goes_on_when_everybody_who_waited_is_gone(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    session = session_kept.session(server)
    clock.now += 3600
    gate = demo.authorization_server.hold("refresh", after_processing=True)

    async def main() -> None:
        only = asyncio.create_task(session.header())
        await asyncio.to_thread(gate.arrived.wait, 20)
        only.cancel()
        await asyncio.gather(only, return_exceptions=True)

    asyncio.run(main())
    gate.open()
    # The server has used up the old refresh token; the new one is on the disk.
    assert live(demo, header(session))
    assert live(demo, header(anew(tmp_path, server, clock)))
    assert demo.authorization_server.count_requests("refresh") == 1


def test_a_token_is_refreshed_ahead_of_its_end_and_a_short_one_not_all_the_time(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    session = session_kept.session(server)
    old = header(session)
    clock.now += 3600 - 61
    assert header(session) == old
    demo.authorization_server.change_behaviour(access_token_seconds=20)
    clock.now += 1
    # The refresh starts before the expiry, and no request waits for it.
    eventually(lambda: header(session) != old)
    short = header(session)
    clock.now += 17
    assert header(session) == short
    assert header(anew(tmp_path, server, clock)) == short
    clock.now += 1
    eventually(lambda: header(session) != short)
    assert demo.authorization_server.count_requests("refresh") == 2


def test_a_refresh_that_is_due_holds_up_no_request_while_the_old_token_works(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    session = session_kept.session(server)
    old = header(session)
    clock.now += 3600 - 60
    gate = demo.authorization_server.hold("refresh")
    assert header(session) == old
    assert gate.arrived.wait(20)
    assert [header(session) for _ in range(5)] == [old] * 5
    gate.open()
    eventually(lambda: header(session) != old)
    assert demo.authorization_server.count_requests("refresh") == 1


def test_another_writers_token_is_noticed_within_a_second_by_one_stat(
    session_kept: AuthService,
    server: Server,
    demo: Demo,
    clock: MovedClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = session_kept.session(server)
    old = header(session)
    looks: list[CredentialKey] = []
    version = FileStore.version

    def counted(store: FileStore, key: CredentialKey) -> tuple[int, int, int] | None:
        looks.append(key)
        return version(store, key)

    monkeypatch.setattr(FileStore, "version", counted)
    assert [header(session) for _ in range(100)] == [old] * 100
    assert looks == []
    clock.now += STORE_CHECK_SECONDS
    assert [header(session) for _ in range(100)] == [old] * 100
    assert len(looks) == 1
    fresh = rotated_elsewhere(tmp_path, demo)
    assert header(session) == old
    clock.now += STORE_CHECK_SECONDS
    assert header(session) == f"Bearer {fresh}"


@covers("kept-before-use")
def test_a_refresh_is_on_the_disk_before_its_first_use(
    session_kept: AuthService, server: Server, tmp_path: Path, clock: MovedClock
) -> None:
    clock.now += 3600
    fresh = header(session_kept.session(server))
    stored = json.loads((tmp_path / "mcp-tokens" / "notes.json").read_bytes())
    assert fresh == f"Bearer {stored['access_token']}"


@covers("kept-before-use", "disk-refuses")
def test_refreshed_tokens_that_the_disk_did_not_take_are_used_and_stored_as_soon_as_it_does(
    session_kept: AuthService,
    server: Server,
    demo: Demo,
    clock: MovedClock,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    session, before = session_kept.session(server), kept(tmp_path)
    clock.now += 3600
    with full_disk():
        fresh = header(session)
        assert live(demo, fresh)
        clock.now += BACKOFF_SECONDS
        assert [header(session) for _ in range(3)] == [fresh] * 3
        # At the expiry, the refresh uses the refresh token in memory: the stored one is used up.
        clock.now += 3600
        fresh = header(session)
        assert live(demo, fresh)
        eventually(lambda: session_kept._deps.refresh_flights._running_flights == {})
    assert kept(tmp_path) == before
    assert [r.levelname for r in caplog.records if "only this process has" in r.getMessage()] == ["WARNING"]
    assert demo.authorization_server.count_requests("refresh") == 2
    clock.now += BACKOFF_SECONDS
    assert header(session) == fresh
    eventually(lambda: kept(tmp_path) != before)
    assert header(anew(tmp_path, server, clock)) == fresh
    clock.now += 3600
    assert live(demo, header(anew(tmp_path, server, clock)))
    assert demo.authorization_server.count_requests("refresh") == 3


@covers("disk-refuses")
def test_a_login_made_meanwhile_counts_more_than_tokens_that_the_disk_did_not_take(
    session_kept: AuthService,
    server: Server,
    demo: Demo,
    clock: MovedClock,
    tmp_path: Path,
) -> None:
    session = session_kept.session(server)
    clock.now += 3600
    with full_disk():
        mine = header(session)
    elsewhere = AuthService(tmp_path, clock=clock)
    asyncio.run(log_in(elsewhere, server))
    clock.now += STORE_CHECK_SECONDS
    assert header(session) == header(elsewhere.session(server)) != mine
    clock.now += 3600
    assert live(demo, header(session))


@covers("keep-refresh")
def test_quirk_33_a_server_that_does_not_rotate_keeps_its_refresh_token(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    demo.authorization_server.change_behaviour(rotate=False)
    for _ in range(3):
        clock.now += 3600
        assert live(demo, header(session_kept.session(server)))
    assert demo.authorization_server.count_requests("refresh") == 3


@covers("expires-in")
def test_quirk_32_a_token_without_an_end_is_refreshed_only_after_a_401(
    service: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    demo.authorization_server.change_behaviour(token_overrides={"expires_in": None})
    asyncio.run(log_in(service, server))
    session = anew(tmp_path, server, clock)
    clock.now += 3599
    first = header(session)
    assert demo.authorization_server.count_requests("refresh") == 0
    demo.authorization_server.ledger.revoke_access_tokens()
    assert live(demo, challenged(session, first))


TROUBLE: dict[str, tuple[dict[str, Any], type[McpAuthError]]] = {
    "503": ({"status": 503}, MalformedResponse),
    "HTML": ({"status": 200, "body": "<html>Down for maintenance</html>"}, MalformedResponse),
    "a hang-up": ({"hang_up": True}, NetworkError),
    "temporarily_unavailable": (
        {"status": 400, "body": '{"error": "temporarily_unavailable"}'},
        TokenError,
    ),
}


@covers("refresh-failures")
@pytest.mark.parametrize("name", TROUBLE)
def test_quirk_34_trouble_at_the_token_endpoint_ends_no_session_and_is_not_asked_for_again_at_once(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path, name: str
) -> None:
    fault, kind = TROUBLE[name]
    session, before = session_kept.session(server), kept(tmp_path)
    old = header(session)
    demo.authorization_server.fail_next("refresh", **fault, times=None)
    clock.now += 3600 - 50
    # The token is usable for another 50 s. Meanwhile the session retries every 15 s.
    assert [header(session) for _ in range(5)] == [old] * 5
    eventually(lambda: session._cached_token.refresh_at == clock.now + BACKOFF_SECONDS)
    assert demo.authorization_server.count_requests("refresh") == 1
    clock.now += BACKOFF_SECONDS - 1
    assert header(session) == old
    assert demo.authorization_server.count_requests("refresh") == 1
    clock.now += 1
    assert header(session) == old
    eventually(lambda: session._cached_token.refresh_at == clock.now + BACKOFF_SECONDS)
    assert demo.authorization_server.count_requests("refresh") == 2
    # The token has expired: an error, and one retry in five seconds.
    clock.now += 50
    for _ in range(5):
        with pytest.raises(kind):
            header(session)
    assert demo.authorization_server.count_requests("refresh") == 3
    assert kept(tmp_path) == before
    demo.authorization_server.clear_faults()
    clock.now += RETRY_SECONDS
    assert live(demo, header(session))


def test_trouble_after_a_401_leaves_the_old_token_to_nobody_who_was_refused(
    session_kept: AuthService, server: Server, demo: Demo
) -> None:
    session = session_kept.session(server)
    refused = header(session)
    demo.authorization_server.fail_next("refresh", status=503, times=None)
    for _ in range(3):
        with pytest.raises(MalformedResponse):
            challenged(session, refused)
    assert demo.authorization_server.count_requests("refresh") == 1


def test_a_setting_that_stops_the_refresh_does_not_stop_a_living_token(
    session_kept: AuthService, server: Server, clock: MovedClock, tmp_path: Path
) -> None:
    wrong = replace(server, options=replace(server.options, allow_addresses=("no network",)))
    old = header(session_kept.session(server))
    clock.now += 3600 - 30
    assert header(anew(tmp_path, wrong, clock)) == old
    clock.now += 30
    with pytest.raises(McpAuthError, match="allow_addresses"):
        header(anew(tmp_path, wrong, clock))


@covers("asked-once")
@pytest.mark.parametrize("by_hermes", [False, True], ids=["written by us", "written by Hermes"])
def test_a_session_that_is_over_is_asked_about_once(
    session_kept: AuthService,
    server: Server,
    demo: Demo,
    clock: MovedClock,
    tmp_path: Path,
    *,
    by_hermes: bool,
) -> None:
    session = session_kept.session(server)
    if by_hermes:
        without_binding(tmp_path)
    stored = FileStore(tmp_path).read(KEY)
    demo.authorization_server.ledger.revoke_everything()
    refused = header(session)
    for _ in range(5):
        with pytest.raises(AuthorizationRequired, match="has ended the session") as caught:
            challenged(session, refused)
        assert "http" not in f"{caught.value} {caught.value.advice}"
    assert demo.authorization_server.count_requests("refresh") == 1
    # The tokens stay stored. Another process reads the refusal from the disk, also for tokens of Hermes.
    assert FileStore(tmp_path).read(KEY).tokens == stored.tokens
    other = anew(tmp_path, server, clock)
    for _ in range(5):
        with pytest.raises(AuthorizationRequired):
            challenged(other, refused)
    assert demo.authorization_server.count_requests("refresh") == 1
    asyncio.run(log_in(AuthService(tmp_path, clock=clock), server))
    assert live(demo, challenged(session, refused))
    assert live(demo, challenged(other, refused))


@covers("adopted")
def test_quirk_34_what_another_writer_rotated_meanwhile_is_adopted(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    session = session_kept.session(server)
    clock.now += 3600
    gate = demo.authorization_server.hold("refresh")

    async def main() -> str:
        asking = asyncio.create_task(session.header())
        await asyncio.to_thread(gate.arrived.wait, 20)
        # Hermes 0.19 takes no lock. The fault is cleared, so that only our own request fails.
        theirs = rotated_elsewhere(tmp_path, demo)
        demo.authorization_server.clear_faults()
        gate.open()
        assert await asking == f"Bearer {theirs}"
        return theirs

    # The held request gets invalid_grant, because the refresh token is used up by then.
    theirs = asyncio.run(main())
    assert demo.authorization_server.count_requests("refresh") == 1
    assert FileStore(tmp_path).read(KEY).binding is not None
    assert session.header_now() == f"Bearer {theirs}"


@covers("adopted")
def test_a_token_that_another_process_refreshed_is_adopted_without_a_request(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    session = session_kept.session(server)
    refused = header(session)
    theirs = rotated_elsewhere(tmp_path, demo)
    assert challenged(session, refused) == f"Bearer {theirs}"
    clock.now += 3600
    theirs = rotated_elsewhere(tmp_path, demo)
    assert header(session) == f"Bearer {theirs}"
    assert demo.authorization_server.requests == []


def test_tokens_that_hermes_wrote_work_and_refresh(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    without_binding(tmp_path)
    session = anew(tmp_path, server, clock)
    old = header(session)
    assert live(demo, old)
    clock.now += 3600
    assert live(demo, header(session))
    assert demo.authorization_server.requests[-1].form["resource"] == demo.ping_url


@covers("server-query")
def test_tokens_that_hermes_wrote_refresh_where_the_servers_address_has_a_query(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    without_binding(tmp_path)
    queried = replace(server, url=f"{server.url}?project_ref=1&key=k")
    clock.now += 3600
    assert live(demo, header(anew(tmp_path, queried, clock)))
    # RFC 8707 section 2. A key in the query must reach the MCP server only.
    assert demo.authorization_server.requests[-1].form["resource"] == demo.ping_url


@covers("token-address")
@pytest.mark.parametrize("over", [False, True], ids=["a fresh token", "an expired token"])
def test_a_token_is_never_sent_to_another_address_under_the_same_name(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path, *, over: bool
) -> None:
    moved = replace(server, url=demo.mcp_url)
    clock.now += 3600 if over else 0
    for service in (session_kept, AuthService(tmp_path, clock=clock)):
        with pytest.raises(AuthorizationRequired, match="another address"):
            header(service.session(moved))
    assert demo.authorization_server.requests == []


@covers("token-address")
def test_a_flight_of_one_address_is_not_joined_by_another(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    clock.now += 3600
    moved = replace(server, url=demo.mcp_url)
    gate = demo.authorization_server.hold("refresh")

    async def main() -> tuple[Any, Any]:
        ours = asyncio.create_task(session_kept.session(server).header())
        await asyncio.to_thread(gate.arrived.wait, 20)
        theirs = asyncio.create_task(session_kept.session(moved).header())
        # This call fails, or waits for the lock. In both cases it gets no token.
        await asyncio.wait([theirs], timeout=5)
        gate.open()
        return await asyncio.gather(ours, theirs, return_exceptions=True)

    ours, theirs = asyncio.run(main())
    assert live(demo, ours)
    assert isinstance(theirs, AuthorizationRequired)


def test_a_caller_with_a_refused_token_never_gets_it_back(
    session_kept: AuthService, server: Server, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_kept.session(server)
    refused = header(session)
    session.clear_cache()
    demo.authorization_server.ledger.revoke_access_tokens()
    reading, go, read = threading.Event(), threading.Event(), FileStore.read

    def slowly(store: FileStore, key: CredentialKey) -> Credentials:
        reading.set()
        assert go.wait(20)
        return read(store, key)

    monkeypatch.setattr(FileStore, "read", slowly)

    async def main() -> str | None:
        # This flight started before the refusal, so it reads the refused token from the disk.
        first = asyncio.create_task(session.header())
        await asyncio.to_thread(reading.wait, 20)
        second = asyncio.create_task(session.handle_challenge(refused, 401, REFUSED))
        await asyncio.wait([second], timeout=0)
        go.set()
        assert await first == refused
        return await second

    assert live(demo, asyncio.run(main()))


def test_a_flight_that_has_landed_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    async def number() -> int:
        numbers.append(1)
        return len(numbers)

    numbers: list[int] = []
    flights: SingleFlight[int] = SingleFlight("test")
    # Keep the finished flight registered, as between its result and its removal.
    monkeypatch.setattr(SingleFlight, "_remove_flight", lambda *_: None)
    assert [flights.submit("key", number).result(20) for _ in range(2)] == [1, 2]


@covers("step-up")
@pytest.mark.parametrize("scope", ["mcp:write", ""])
def test_quirk_38_more_scope_needs_a_person_and_a_plain_403_is_the_caller_s(
    session_kept: AuthService, server: Server, demo: Demo, scope: str
) -> None:
    session = session_kept.session(server)
    sent = header(session)
    lines = [f'Bearer error="insufficient_scope", scope="{scope}"']
    with pytest.raises(AuthorizationRequired, match="more access") as caught:
        asyncio.run(session.handle_challenge(sent, 403, lines))
    assert caught.value.server_message == scope
    with pytest.raises(AuthorizationRequired):
        session.handle_challenge_blocking(sent, 403, lines)
    assert asyncio.run(session.handle_challenge(sent, 403, [])) is None
    assert session.header_now() == sent
    assert demo.authorization_server.requests == []


def test_a_corrupt_file_is_named_and_left_as_it_is(
    session_kept: AuthService, server: Server, tmp_path: Path, clock: MovedClock
) -> None:
    path = tmp_path / "mcp-tokens" / "notes.json"
    path.write_bytes(b'{"access_token": ')
    with pytest.raises(McpAuthError, match=r"notes\.json"):
        header(anew(tmp_path, server, clock))
    assert path.read_bytes() == b'{"access_token": '


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_refreshes_although_its_parent_s_threads_are_not_there(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    session = session_kept.session(server)
    clock.now += 3600
    header(session)
    clock.now += 3600
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if session.header_blocking() else 1)
        finally:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert demo.authorization_server.count_requests("refresh") == 2
    assert live(demo, challenged(session, "Bearer old"))
