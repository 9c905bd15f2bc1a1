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
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.child_process import start_process
from tests.service.helpers import TERMINAL, make_logged_in_service

pytestmark = pytest.mark.slow

PROCESSES = 8
CALLS = 20


@contextmanager
def start_processes(
    verb: str, home: Path, now: float, *arguments: str, count: int = PROCESSES
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start `count` processes and wait until they are ready. They end with the block."""
    actors = [start_process(verb, home, now, *arguments) for _ in range(count)]
    try:
        for actor in actors:
            assert read_line(actor) == "ready"
        yield actors
    finally:
        for actor in actors:
            actor.communicate()


def read_line(actor: subprocess.Popen[str]) -> str:
    assert actor.stdout is not None
    return actor.stdout.readline().strip()


def send_line(actors: list[subprocess.Popen[str]], line: str) -> list[str]:
    """Send a line to each process, and return the line that each one prints."""
    for actor in actors:
        assert actor.stdin is not None
        actor.stdin.write(line + "\n")
        actor.stdin.flush()
    return [read_line(actor) for actor in actors]


def call_from_all(actors: list[subprocess.Popen[str]]) -> Counter[int | str]:
    """Let all processes call at once, and count the outcomes."""
    return Counter(outcome for line in send_line(actors, "go") for outcome in json.loads(line))


@covers("one-refresh", "asked-once")
def test_quirk_36_eight_processes_with_an_expired_rotating_token_refresh_once(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    clock.now += 3600
    with start_processes("call", tmp_path, clock(), server.url, str(CALLS)) as actors:
        assert call_from_all(actors) == {200: PROCESSES * CALLS}
        assert demo.authorization_server.count_requests("refresh") == 1
        assert demo.authorization_server.count_requests("ping") == PROCESSES * CALLS
        # The server would have revoked the session if a token had been reused. The session is still usable,
        # and refreshes again.
        demo.authorization_server.ledger.revoke_access_tokens()
        assert call_from_all(actors) == {200: PROCESSES * CALLS}
        assert demo.authorization_server.count_requests("refresh") == 2
        # The session has ended: one process sends a refresh, and the others read the refusal from the store.
        demo.authorization_server.ledger.revoke_everything()
        assert call_from_all(actors) == {"AuthorizationRequired": PROCESSES * CALLS}
        assert call_from_all(actors) == {"AuthorizationRequired": PROCESSES * CALLS}
        assert demo.authorization_server.count_requests("refresh") == 3


@covers("one-refresh")
def test_a_process_that_is_killed_during_a_refresh_does_not_block_the_others(
    tmp_path: Path, server: Server, demo: Demo, clock: ManualClock
) -> None:
    demo.authorization_server.change_behaviour(reuse_grace_seconds=RETRY_SECONDS)
    make_logged_in_service(tmp_path, demo, clock)
    clock.now += 3600
    gate = demo.authorization_server.hold("refresh")
    with start_processes("call", tmp_path, clock(), server.url, "1", count=3) as actors:
        first = actors[0]
        assert first.stdin is not None
        first.stdin.write("go\n")
        first.stdin.flush()
        assert gate.arrived.wait(20)
        first.kill()
        first.wait()
        demo.authorization_server.clear_faults()
        assert call_from_all(actors[1:]) == {200: 2}
    assert demo.authorization_server.count_requests("refresh") == 2


@covers("single-use")
def test_security_12_of_eight_processes_with_the_same_paste_exactly_one_sends_the_code(
    service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    login = asyncio.run(service.start_login(server, TERMINAL))
    answer = approve(login.authorization_url)
    with start_processes("finish", tmp_path, clock(), login.id) as actors:
        assert Counter(send_line(actors, answer)) == {"done": 1, "login_already_used": PROCESSES - 1}
    assert demo.authorization_server.count_requests("token") == 1
    assert service.blocking.login(login.id).status == "done"
