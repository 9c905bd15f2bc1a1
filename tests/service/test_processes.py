"""Eight processes with one home: together they send one refresh, and one code."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.refresh import RETRY_SECONDS
from hermes_mcp_auth_remote.values import Server
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.actor import start
from tests.service.given import TERMINAL, logged_in

pytestmark = pytest.mark.slow

PROCESSES = 8
CALLS = 20


@contextmanager
def processes(
    verb: str, home: Path, now: float, *words: str, count: int = PROCESSES
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start `count` processes and wait until they are ready. They end with the block."""
    actors = [start(verb, home, now, *words) for _ in range(count)]
    try:
        for actor in actors:
            assert said(actor) == "ready"
        yield actors
    finally:
        for actor in actors:
            actor.communicate()


def said(actor: subprocess.Popen[str]) -> str:
    assert actor.stdout is not None
    return actor.stdout.readline().strip()


def tell(actors: list[subprocess.Popen[str]], line: str) -> list[str]:
    """Send a line to each process, and return the line that each one prints."""
    for actor in actors:
        assert actor.stdin is not None
        actor.stdin.write(line + "\n")
        actor.stdin.flush()
    return [said(actor) for actor in actors]


def called(actors: list[subprocess.Popen[str]]) -> Counter[int | str]:
    """Let all processes call at once, and count the outcomes."""
    return Counter(outcome for line in tell(actors, "go") for outcome in json.loads(line))


@covers("one-refresh", "asked-once")
def test_quirk_36_eight_processes_with_an_expired_rotating_token_refresh_once_and_get_160_answers(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    clock.now += 3600
    with processes("call", tmp_path, clock(), server.url, str(CALLS)) as actors:
        assert called(actors) == {200: PROCESSES * CALLS}
        assert demo.authorization_server.count_requests("refresh") == 1
        assert demo.authorization_server.count_requests("ping") == PROCESSES * CALLS
        # The server revokes on reuse and has seen none: the session is usable, and refreshes again.
        demo.authorization_server.ledger.revoke_access_tokens()
        assert called(actors) == {200: PROCESSES * CALLS}
        assert demo.authorization_server.count_requests("refresh") == 2
        # The session has ended: one process sends a refresh, and the others read the refusal from the store.
        demo.authorization_server.ledger.revoke_everything()
        assert called(actors) == {"AuthorizationRequired": PROCESSES * CALLS}
        assert called(actors) == {"AuthorizationRequired": PROCESSES * CALLS}
        assert demo.authorization_server.count_requests("refresh") == 3


@covers("one-refresh")
def test_a_process_killed_while_it_refreshes_frees_the_others(
    tmp_path: Path, server: Server, demo: Demo, clock: MovedClock
) -> None:
    demo.authorization_server.change_behaviour(reuse_grace_seconds=RETRY_SECONDS)
    logged_in(tmp_path, demo, clock)
    clock.now += 3600
    gate = demo.authorization_server.hold("refresh")
    with processes("call", tmp_path, clock(), server.url, "1", count=3) as actors:
        first = actors[0]
        assert first.stdin is not None
        first.stdin.write("go\n")
        first.stdin.flush()
        assert gate.arrived.wait(20)
        first.kill()
        first.wait()
        demo.authorization_server.clear_faults()
        assert called(actors[1:]) == {200: 2}
    assert demo.authorization_server.count_requests("refresh") == 2


@covers("single-use")
def test_security_12_of_eight_processes_that_paste_one_answer_exactly_one_sends_the_code(
    service: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    login = asyncio.run(service.start_login(server, TERMINAL))
    answer = approve(login.authorization_url)
    with processes("finish", tmp_path, clock(), login.id) as actors:
        assert Counter(tell(actors, answer)) == {"done": 1, "login_already_used": PROCESSES - 1}
    assert demo.authorization_server.count_requests("token") == 1
    assert service.login(login.id).status == "done"
