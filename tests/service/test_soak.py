"""Long runs: tokens that expire soon, killed processes, wrong clocks, backups."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.demo.ledger import Ledger
from hermes_mcp_auth_remote.errors import AuthorizationRequired, NetworkError
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.cached_token import REFRESH_MARGIN_FRACTION
from hermes_mcp_auth_remote.service.sessions import STORE_CHECK_SECONDS, Session
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import Server
from tests import tripwire
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers
from tests.service.given import KEY, eventually, kept, log_in, rotated_elsewhere, server_of, without_binding
from tests.service.test_processes import CALLS, PROCESSES, called, processes, tell

pytestmark = pytest.mark.slow

REFUSED = ['Bearer error="invalid_token"']
SKEW_SECONDS = 300.0


def header(session: Session) -> str:
    return asyncio.run(session.header())


def call(session: Session, demo: Demo) -> bool:
    """Get a token, and another one if the server refuses it. Return whether the server accepts it."""
    sent: str | None = header(session)
    if sent is not None and not live(demo, sent):
        sent = asyncio.run(session.handle_challenge(sent, 401, REFUSED))
    return sent is not None and live(demo, sent)


def live(demo: Demo, authorization: str) -> bool:
    return demo.authorization_server.ledger.find_live_token(authorization.removeprefix("Bearer ")) is not None


def is_used(ledger: Ledger, home: Path) -> bool:
    """Return whether the server has already rotated the stored refresh token."""
    tokens = FileStore(home).read(KEY).tokens
    assert tokens is not None
    assert tokens.refresh_token is not None
    return ledger.refresh_tokens[tokens.refresh_token.reveal()].used_at is not None


@covers("one-refresh")
@pytest.mark.parametrize("bursts", [1, pytest.param(4, marks=pytest.mark.soak)])
def test_eight_processes_call_with_tokens_of_two_seconds_and_refresh_once_per_life(
    tmp_path: Path, bursts: int
) -> None:
    life = 2
    with serve_demo(Behaviour(access_token_seconds=life)) as demo:
        tripwire.guard(demo.authorization_server.minted_secrets)
        server, ledger = server_of(demo), demo.authorization_server.ledger
        asyncio.run(log_in(AuthService(tmp_path), server))
        with processes("call", tmp_path, 0, server.url, str(CALLS)) as actors:
            for _ in range(bursts):
                eventually(
                    lambda: not any(ledger.find_live_token(token) for token in list(ledger.access_tokens))
                )
                assert called(actors) == {200: PROCESSES * CALLS}
        times = sorted(t.used_at for t in ledger.refresh_tokens.values() if t.used_at is not None)
        assert bursts <= len(times) == demo.authorization_server.count_requests("refresh")
        # At most one refresh for each token, even if tokens expire within a burst on a busy machine.
        fresh_seconds = life * (1 - REFRESH_MARGIN_FRACTION)
        assert [b - a for a, b in pairwise(times) if b - a < fresh_seconds - 0.1] == []
        assert not any(token.family.revoked for token in ledger.refresh_tokens.values())


@covers("one-refresh", "killed")
@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.soak)])
def test_kills_of_a_process_that_refreshes_leave_whole_files_a_free_lock_and_no_lost_session(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path, kills: int
) -> None:
    ledger, chance, spread = demo.authorization_server.ledger, random.Random(20), 0.08
    with processes("refresh", tmp_path, clock(), server.url, count=1) as actors:
        # The check after each kill sends one refresh. At least a fifth of the kills must hit another one.
        for number in itertools.count(1):
            assert tell(actors, str(chance.uniform(0.01, 0.01 + spread))) == ["killed"]
            began = time.perf_counter()
            lock = FileStore(tmp_path).lock(KEY)
            assert lock.try_acquire()
            lock.release()
            # Each file can be read, and has its old or its new content.
            stored = FileStore(tmp_path).read(KEY)
            assert stored.tokens is not None
            assert stored.client is not None
            assert stored.binding is not None
            session = AuthService(tmp_path, clock=clock).session(server)
            try:
                assert asyncio.run(session.handle_challenge(stored.tokens.authorization_header, 401, REFUSED))
            except AuthorizationRequired:
                # The response was lost with the process, so no client can know the new refresh token.
                assert is_used(ledger, tmp_path)
                asyncio.run(log_in(AuthService(tmp_path, clock=clock), server))
            # On a busy machine, a refresh starts later.
            spread = min(max(0.08, 2 * (time.perf_counter() - began)), 0.5)
            if number >= kills and demo.authorization_server.count_requests("refresh") > number + kills / 5:
                break
            assert number < 5 * kills, "too few kills hit a process that refreshes"


@covers("killed")
@pytest.mark.parametrize("rotated", [False, True])
def test_killed_while_the_server_answers_a_session_is_lost_where_it_had_rotated_and_that_is_said(
    session_kept: AuthService,
    server: Server,
    demo: Demo,
    clock: MovedClock,
    tmp_path: Path,
    *,
    rotated: bool,
) -> None:
    before = kept(tmp_path)
    demo.authorization_server.fail_next("refresh", status=503, delay_seconds=20, after_processing=rotated)
    with processes("refresh", tmp_path, clock(), server.url, count=1) as actors:
        (actor,) = actors
        assert actor.stdin is not None
        assert actor.stdout is not None
        actor.stdin.write("60\n")
        actor.stdin.flush()
        eventually(lambda: demo.authorization_server.count_requests("refresh") == 1)
        eventually(lambda: is_used(demo.authorization_server.ledger, tmp_path) == rotated)
        actor.stdin.write("\n")
        actor.stdin.flush()
        assert actor.stdout.readline().strip() == "killed"
    assert kept(tmp_path) == before
    session = AuthService(tmp_path, clock=clock).session(server)
    refused = header(session)
    if not rotated:
        renewed = asyncio.run(session.handle_challenge(refused, 401, REFUSED))
        assert renewed is not None
        assert live(demo, renewed)
        return
    for _ in range(3):
        with pytest.raises(AuthorizationRequired, match=r"notes needs a login: .* has ended the session"):
            asyncio.run(session.handle_challenge(refused, 401, REFUSED))
    assert demo.authorization_server.count_requests("refresh") == 2
    assert kept(tmp_path)["notes.json"] == before["notes.json"]
    connection = AuthService(tmp_path, clock=clock).connection(server)
    assert connection is not None
    assert "has ended the session" in str(connection.login_needed)


def at(clock: MovedClock, seconds: float) -> Callable[[], float]:
    """Return a clock that is `seconds` ahead."""
    return lambda: clock() + seconds


@covers("wrong-clock")
@pytest.mark.parametrize("skew", [-SKEW_SECONDS, SKEW_SECONDS])
def test_a_clock_five_minutes_wrong_costs_no_request_and_no_person(
    server: Server, demo: Demo, clock: MovedClock, tmp_path: Path, skew: float
) -> None:
    service = AuthService(tmp_path, clock=at(clock, skew))
    asyncio.run(log_in(service, server))
    demo.authorization_server.requests.clear()
    for life in range(1, 4):
        clock.now += 3600 - 61
        assert live(demo, header(service.session(server)))
        assert demo.authorization_server.count_requests("refresh") == life - 1
        clock.now += 61
        assert live(demo, header(service.session(server)))
        assert demo.authorization_server.count_requests("refresh") == life


@covers("wrong-clock")
def test_processes_whose_clocks_differ_by_ten_minutes_share_a_session_and_do_not_chase_each_other(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    early, late = (
        AuthService(tmp_path, clock=at(clock, skew)).session(server) for skew in (SKEW_SECONDS, -SKEW_SECONDS)
    )
    for _ in range(4 * 60):
        clock.now += 60
        assert call(early, demo)
        assert call(late, demo)
        eventually(
            lambda: early._refresh_flights._running_flights == late._refresh_flights._running_flights == {}
        )
    # Four hours: a clock that is ten minutes ahead adds at most one refresh.
    assert 4 <= demo.authorization_server.count_requests("refresh") <= 5
    assert not is_used(demo.authorization_server.ledger, tmp_path)


@covers("wrong-clock")
@pytest.mark.parametrize("life", ["stands still", "goes backwards"])
def test_a_process_whose_clock_stands_still_or_goes_backwards_refreshes_once_per_life_of_a_token(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path, life: str
) -> None:
    own = MovedClock()
    own.now = clock.now
    session = AuthService(tmp_path, clock=own).session(server)
    for lives in range(1, 4):
        clock.now += 3600
        for _ in range(20):
            own.now -= 0 if life == "stands still" else 7
            assert call(session, demo)
        assert demo.authorization_server.count_requests("refresh") == lives


@covers("wrong-clock")
def test_a_clock_that_is_set_back_does_not_prolong_a_back_off(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    own = MovedClock()
    own.now = clock.now = clock.now + 7200
    session = AuthService(tmp_path, clock=own).session(server)
    demo.authorization_server.fail_next("refresh", hang_up=True)
    with pytest.raises(NetworkError):
        header(session)
    own.now -= 3600
    assert call(session, demo)
    assert demo.authorization_server.count_requests("refresh") == 2


@covers("adopted")
@pytest.mark.parametrize("restarted", [False, True])
def test_tokens_restored_from_a_backup_are_taken_and_their_end_is_said_and_marked(
    session_kept: AuthService,
    server: Server,
    demo: Demo,
    clock: MovedClock,
    tmp_path: Path,
    *,
    restarted: bool,
) -> None:
    session, backup = session_kept.session(server), kept(tmp_path)
    old = header(session)
    clock.now += 3600
    assert header(session) != old
    clock.now += STORE_CHECK_SECONDS
    for name, document in backup.items():
        (tmp_path / "mcp-tokens" / name).write_bytes(document)
    if restarted:
        session = AuthService(tmp_path, clock=clock).session(server)
    for _ in range(3):
        with pytest.raises(AuthorizationRequired, match="has ended the session"):
            header(session)
    # The server revoked the session on reuse. One process learns that, and the others read it from the store.
    with pytest.raises(AuthorizationRequired, match="has ended the session"):
        header(AuthService(tmp_path, clock=clock).session(server))
    assert demo.authorization_server.count_requests("refresh") == 2
    assert json.loads(kept(tmp_path)["notes.json"]) == json.loads(backup["notes.json"])
    asyncio.run(log_in(AuthService(tmp_path, clock=clock), server))
    assert live(demo, header(session))


@covers("adopted")
def test_a_run_in_which_hermes_and_we_refresh_by_turns_needs_nobody(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    session = session_kept.session(server)
    for turn in range(6):
        clock.now += 3600
        if turn % 2:
            theirs = rotated_elsewhere(tmp_path, demo)
            # A login of Hermes writes no binding record.
            without_binding(tmp_path)
            assert header(session) == f"Bearer {theirs}"
        else:
            assert live(demo, header(session))
    assert demo.authorization_server.count_requests("refresh") == 3
