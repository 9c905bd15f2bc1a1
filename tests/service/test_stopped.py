"""A process that is suspended (SIGSTOP) during a refresh loses no tokens and does not block others."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from hermes_mcp_auth_remote.values import Server
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.actor import start
from tests.service.given import KEY, eventually

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process."),
    pytest.mark.slow,
]


def stored_header(home: Path) -> str:
    tokens = FileStore(home).read(KEY).tokens
    assert tokens is not None
    return tokens.authorization_header


@contextmanager
def refreshing(home: Path, now: float, server: Server, flag: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that refreshes. At the end of the block it is continued, and ends."""
    actor = start("stopped", home, now, server.url, str(flag))
    try:
        assert actor.stdout is not None
        assert actor.stdout.readline().strip() == "ready"
        assert actor.stdin is not None
        actor.stdin.write("go\n")
        actor.stdin.flush()
        yield actor
    finally:
        os.kill(actor.pid, signal.SIGCONT)
        actor.communicate(timeout=20)


@covers("late-tokens")
def test_a_process_that_was_stopped_stores_the_response_that_lies_in_its_socket(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    before, flag = stored_header(tmp_path), tmp_path / "stopped-for-long"
    clock.now += 3600
    gate = demo.authorization_server.hold("refresh", after_processing=True)
    with refreshing(tmp_path, clock(), server, flag) as actor:
        assert gate.arrived.wait(20)
        os.kill(actor.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, actor.pid, os.WSTOPPED | os.WNOWAIT)
        gate.open()
        eventually(
            lambda: any(
                each.status == 200 for each in demo.authorization_server.requests if each.step == "refresh"
            )
        )
        assert stored_header(tmp_path) == before
        flag.touch()
    assert stored_header(tmp_path) != before
    # The process stored the new refresh token: the next refresh is no reuse.
    clock.now += 3600
    session = AuthService(tmp_path, clock=clock).session(server)
    assert asyncio.run(session.header()) == stored_header(tmp_path)
    assert demo.authorization_server.count_requests("refresh") == 2


@covers("due-token")
def test_while_a_stopped_process_holds_the_lock_a_new_one_uses_the_token_that_is_due(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    before, flag = stored_header(tmp_path), tmp_path / "never"
    clock.now += 3600 - 30
    gate = demo.authorization_server.hold("refresh")
    with refreshing(tmp_path, clock(), server, flag) as actor:
        assert gate.arrived.wait(20)
        os.kill(actor.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, actor.pid, os.WSTOPPED | os.WNOWAIT)
        limits = replace(TIME_LIMITS, due_lock_seconds=0.1)
        session = AuthService(tmp_path, clock=clock, limits=limits).session(server)
        assert asyncio.run(session.header()) == before
        gate.open()
    assert stored_header(tmp_path) != before
    clock.now += 2
    assert asyncio.run(session.header()) == stored_header(tmp_path)
    assert demo.authorization_server.count_requests("refresh") == 1
