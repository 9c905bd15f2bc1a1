"""If a process is suspended (SIGSTOP) during a refresh, it loses no tokens and does not block others."""

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
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.child_process import start_process
from tests.service.helpers import KEY, wait_until

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process."),
    pytest.mark.slow,
]


def read_stored_header(home: Path) -> str:
    tokens = FileStore(home).read(KEY).credentials.tokens
    assert tokens is not None
    return tokens.authorization_header


@contextmanager
def start_refresh(home: Path, now: float, server: Server, flag: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a process that refreshes. At the end of the block, continue the process and wait for its end."""
    actor = start_process("get_header", home, now, server.url, str(flag))
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
def test_a_suspended_process_stores_the_response_that_waits_in_its_socket(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    before, flag = read_stored_header(tmp_path), tmp_path / "stopped-for-long"
    clock.now += 3600
    gate = demo.authorization_server.hold("refresh", after_processing=True)
    with start_refresh(tmp_path, clock(), server, flag) as actor:
        assert gate.arrived.wait(20)
        os.kill(actor.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, actor.pid, os.WSTOPPED | os.WNOWAIT)
        gate.open()
        wait_until(
            lambda: any(
                request.status == 200
                for request in demo.authorization_server.requests
                if request.step == "refresh"
            )
        )
        assert read_stored_header(tmp_path) == before
        flag.touch()
    assert read_stored_header(tmp_path) != before
    # The process stored the new refresh token: the next refresh does not reuse the old one.
    clock.now += 3600
    session = AuthService(tmp_path, clock=clock).session(server)
    assert asyncio.run(session.header()) == read_stored_header(tmp_path)
    assert demo.authorization_server.count_requests("refresh") == 2


@covers("due-token")
def test_while_a_suspended_process_holds_the_lock_another_one_uses_a_due_token(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    before, flag = read_stored_header(tmp_path), tmp_path / "never"
    clock.now += 3600 - 30
    gate = demo.authorization_server.hold("refresh")
    with start_refresh(tmp_path, clock(), server, flag) as actor:
        assert gate.arrived.wait(20)
        os.kill(actor.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, actor.pid, os.WSTOPPED | os.WNOWAIT)
        limits = replace(TIME_LIMITS, due_lock_seconds=0.1)
        session = AuthService(tmp_path, clock=clock, limits=limits).session(server)
        assert asyncio.run(session.header()) == before
        gate.open()
    assert read_stored_header(tmp_path) != before
    clock.now += 2
    assert asyncio.run(session.header()) == read_stored_header(tmp_path)
    assert demo.authorization_server.count_requests("refresh") == 1
