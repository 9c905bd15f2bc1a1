"""Long runs: tokens that expire soon, killed processes, wrong clocks, backups."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.demo.ledger import Ledger
from hermes_mcp_auth_remote.errors import AuthorizationRequired, NetworkError
from hermes_mcp_auth_remote.refresh_margins import REFRESH_MARGIN_FRACTION
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import STORE_CHECK_SECONDS, Session
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import Secret, Server
from tests import leak_check
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers
from tests.service.helpers import (
    KEY,
    log_in,
    read_credential_files,
    refresh_elsewhere,
    remove_binding,
    server_of,
    wait_until,
)
from tests.service.test_processes import CALLS, PROCESSES, call_from_all, start_processes

pytestmark = pytest.mark.slow

REFUSED = ['Bearer error="invalid_token"']
SKEW_SECONDS = 300.0


def get_header(session: Session) -> str:
    return asyncio.run(session.header())


def send_request(session: Session, demo: Demo) -> bool:
    """Get a token, and another one if the server refuses it. Return whether the server accepts it."""
    sent_header: str | None = get_header(session)
    if sent_header is not None and not is_live(demo, sent_header):
        sent_header = asyncio.run(session.handle_challenge(sent_header, 401, REFUSED))
        if sent_header is not None:
            # Report the outcome as `auth.flow` does, but not in another thread.
            session._tokens._record_retry(Secret(sent_header), is_live(demo, sent_header))
    return sent_header is not None and is_live(demo, sent_header)


def is_live(demo: Demo, authorization: str) -> bool:
    return demo.authorization_server.ledger.find_live_token(authorization.removeprefix("Bearer ")) is not None


def is_used(ledger: Ledger, home: Path) -> bool:
    """Return whether the server has already rotated the stored refresh token."""
    tokens = FileStore(home).read(KEY).credentials.tokens
    assert tokens is not None
    assert tokens.refresh_token is not None
    return ledger.refresh_tokens[tokens.refresh_token.reveal()].used_at is not None


@covers("one-refresh")
@pytest.mark.soak
def test_eight_processes_with_short_lived_tokens_refresh_once_per_token(tmp_path: Path) -> None:
    # The real time passes. A burst takes two seconds on a busy machine, and no token may expire in it twice.
    life, bursts = 15, 2
    with serve_demo(Behaviour(access_token_seconds=life)) as demo:
        leak_check.watch_secrets(demo.authorization_server.minted_secrets)
        server, ledger = server_of(demo), demo.authorization_server.ledger
        asyncio.run(log_in(AuthService(tmp_path), server))
        with start_processes("call", tmp_path, 0, server.url, str(CALLS)) as actors:
            for _ in range(bursts):
                wait_until(
                    lambda: not any(ledger.find_live_token(token) for token in list(ledger.access_tokens))
                )
                assert call_from_all(actors) == {200: PROCESSES * CALLS}
        times = sorted(t.used_at for t in ledger.refresh_tokens.values() if t.used_at is not None)
        assert bursts <= len(times) == demo.authorization_server.count_requests("refresh")
        # At most one refresh for each token, even if tokens expire within a burst on a busy machine.
        fresh_seconds = life * (1 - REFRESH_MARGIN_FRACTION)
        assert [b - a for a, b in pairwise(times) if b - a < fresh_seconds - 0.1] == []
        assert not any(token.family.revoked for token in ledger.refresh_tokens.values())


@covers("one-refresh", "killed")
@pytest.mark.parametrize("kills", [8, pytest.param(200, marks=pytest.mark.soak)])
def test_killed_refreshes_leave_whole_files_a_free_lock_and_a_usable_session(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path, kills: int
) -> None:
    ledger, random_source = demo.authorization_server.ledger, random.Random(20)
    with start_processes("refresh", tmp_path, clock(), server.url, count=1) as actors:
        for _ in range(kills):
            # The server accepts each token, but neither the killed process nor the check below reports that.
            FileStore(tmp_path).token_refusals.clear(KEY)
            kill_while_refreshing(actors, demo, random_source)
            lock = FileStore(tmp_path).lock(KEY)
            assert lock.try_acquire()
            lock.release()
            # Each file can be read, and has its old or its new content.
            stored = FileStore(tmp_path).read(KEY).credentials
            assert stored.tokens is not None
            assert stored.client is not None
            assert stored.binding is not None
            session = AuthService(tmp_path, clock=clock).session(server)
            try:
                FileStore(tmp_path).token_refusals.clear(KEY)
                assert asyncio.run(session.handle_challenge(stored.tokens.authorization_header, 401, REFUSED))
            except AuthorizationRequired:
                # The response was lost with the process, so no client can know the new refresh token.
                assert is_used(ledger, tmp_path)
                asyncio.run(log_in(AuthService(tmp_path, clock=clock), server))


def kill_while_refreshing(
    actors: list[subprocess.Popen[str]], demo: Demo, random_source: random.Random
) -> None:
    """Start a process that refreshes in a loop, and kill it at a random moment after its first request."""
    count_before = demo.authorization_server.count_requests("refresh")
    (actor,) = actors
    assert actor.stdin is not None
    assert actor.stdout is not None
    actor.stdin.write("60\n")
    actor.stdin.flush()
    wait_until(lambda: demo.authorization_server.count_requests("refresh") > count_before)
    time.sleep(random_source.uniform(0, 0.03))
    actor.stdin.write("\n")
    actor.stdin.flush()
    assert actor.stdout.readline().strip() == "killed"


@covers("killed")
@pytest.mark.parametrize("rotated", [False, True])
def test_a_kill_during_a_response_loses_the_session_only_if_the_server_had_rotated(
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    tmp_path: Path,
    *,
    rotated: bool,
) -> None:
    before = read_credential_files(tmp_path)
    demo.authorization_server.fail_next("refresh", status=503, delay_seconds=20, after_processing=rotated)
    with start_processes("refresh", tmp_path, clock(), server.url, count=1) as actors:
        (actor,) = actors
        assert actor.stdin is not None
        assert actor.stdout is not None
        actor.stdin.write("60\n")
        actor.stdin.flush()
        wait_until(lambda: demo.authorization_server.count_requests("refresh") == 1)
        wait_until(lambda: is_used(demo.authorization_server.ledger, tmp_path) == rotated)
        actor.stdin.write("\n")
        actor.stdin.flush()
        assert actor.stdout.readline().strip() == "killed"
    assert read_credential_files(tmp_path) == before
    session = AuthService(tmp_path, clock=clock).session(server)
    refused = get_header(session)
    if not rotated:
        new_header = asyncio.run(session.handle_challenge(refused, 401, REFUSED))
        assert new_header is not None
        assert is_live(demo, new_header)
        return
    for _ in range(3):
        with pytest.raises(AuthorizationRequired, match=r"notes needs a login: .* has ended the session"):
            asyncio.run(session.handle_challenge(refused, 401, REFUSED))
    assert demo.authorization_server.count_requests("refresh") == 2
    assert read_credential_files(tmp_path)["notes.json"] == before["notes.json"]
    connection = AuthService(tmp_path, clock=clock).blocking.connection(server)
    assert connection is not None
    assert "has ended the session" in str(connection.login_needed)


def shift_clock(clock: ManualClock, seconds: float) -> Callable[[], float]:
    """Return a clock that is `seconds` ahead."""
    return lambda: clock() + seconds


@covers("wrong-clock")
@pytest.mark.parametrize("skew", [-SKEW_SECONDS, SKEW_SECONDS])
def test_a_clock_that_is_five_minutes_wrong_costs_no_request_and_no_login(
    server: Server, demo: Demo, clock: ManualClock, tmp_path: Path, skew: float
) -> None:
    service = AuthService(tmp_path, clock=shift_clock(clock, skew))
    asyncio.run(log_in(service, server))
    demo.authorization_server.requests.clear()
    for life in range(1, 4):
        clock.now += 3600 - 61
        assert is_live(demo, get_header(service.session(server)))
        assert demo.authorization_server.count_requests("refresh") == life - 1
        clock.now += 61
        assert is_live(demo, get_header(service.session(server)))
        assert demo.authorization_server.count_requests("refresh") == life


@covers("wrong-clock")
def test_processes_whose_clocks_differ_by_ten_minutes_share_a_session(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    early, late = (
        AuthService(tmp_path, clock=shift_clock(clock, skew)).session(server)
        for skew in (SKEW_SECONDS, -SKEW_SECONDS)
    )
    for _ in range(4 * 60):
        clock.now += 60
        assert send_request(early, demo)
        assert send_request(late, demo)
        wait_until(
            lambda: (
                early._tokens._deps.refresh_flights._running_flights == {}
                and late._tokens._deps.refresh_flights._running_flights == {}
            )
        )
    # In four hours, a clock that is ten minutes ahead adds at most one refresh.
    assert 4 <= demo.authorization_server.count_requests("refresh") <= 5
    assert not is_used(demo.authorization_server.ledger, tmp_path)


@covers("wrong-clock")
@pytest.mark.parametrize("life", ["stands still", "goes backwards"])
def test_a_clock_that_stands_still_or_runs_backwards_causes_one_refresh_per_token(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path, life: str
) -> None:
    own_clock = ManualClock()
    own_clock.now = clock.now
    session = AuthService(tmp_path, clock=own_clock).session(server)
    for lives in range(1, 4):
        clock.now += 3600
        for _ in range(20):
            own_clock.now -= 0 if life == "stands still" else 7
            assert send_request(session, demo)
        assert demo.authorization_server.count_requests("refresh") == lives


@covers("wrong-clock")
def test_a_clock_that_is_set_back_does_not_prolong_a_back_off(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    own_clock = ManualClock()
    own_clock.now = clock.now = clock.now + 7200
    session = AuthService(tmp_path, clock=own_clock).session(server)
    demo.authorization_server.fail_next("refresh", hang_up=True)
    with pytest.raises(NetworkError):
        get_header(session)
    own_clock.now -= 3600
    assert send_request(session, demo)
    assert demo.authorization_server.count_requests("refresh") == 2


@covers("adopted")
@pytest.mark.parametrize("restarted", [False, True])
def test_tokens_from_a_backup_are_adopted_and_their_refusal_is_reported(
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    tmp_path: Path,
    *,
    restarted: bool,
) -> None:
    session, backup = logged_in_service.session(server), read_credential_files(tmp_path)
    old = get_header(session)
    clock.now += 3600
    assert get_header(session) != old
    clock.now += STORE_CHECK_SECONDS
    for name, document in backup.items():
        (tmp_path / "mcp-tokens" / name).write_bytes(document)
    if restarted:
        session = AuthService(tmp_path, clock=clock).session(server)
    for _ in range(3):
        with pytest.raises(AuthorizationRequired, match="has ended the session"):
            get_header(session)
    # A refresh token was reused, so the server revoked the session. One process learns this from the
    # server, and the others read it from the store.
    with pytest.raises(AuthorizationRequired, match="has ended the session"):
        get_header(AuthService(tmp_path, clock=clock).session(server))
    assert demo.authorization_server.count_requests("refresh") == 2
    assert json.loads(read_credential_files(tmp_path)["notes.json"]) == json.loads(backup["notes.json"])
    asyncio.run(log_in(AuthService(tmp_path, clock=clock), server))
    assert is_live(demo, get_header(session))


@covers("adopted")
def test_hermes_and_this_package_refresh_in_turn_without_a_new_login(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    session = logged_in_service.session(server)
    for turn in range(6):
        clock.now += 3600
        if turn % 2:
            other_token = refresh_elsewhere(tmp_path, demo)
            # A login of Hermes writes no binding record.
            remove_binding(tmp_path)
            assert get_header(session) == f"Bearer {other_token}"
        else:
            assert is_live(demo, get_header(session))
    assert demo.authorization_server.count_requests("refresh") == 3
