"""If a program ends during a device poll, it still stores the login, and starts no thread for this."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests.consent_form import approve_device
from tests.leak_check import watch_secrets
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers
from tests.service.child_process import ROOT
from tests.service.helpers import TERMINAL

pytestmark = pytest.mark.slow


@pytest.fixture
def demo() -> Iterator[Demo]:
    with serve_demo(Behaviour(with_device=True, device_interval_seconds=1)) as demo:
        watch_secrets(demo.authorization_server.minted_secrets)
        yield demo
        demo.authorization_server.clear_faults()


@covers("exit-waits", "late-tokens")
def test_a_device_poll_in_flight_at_exit_completes_the_login(demo: Demo, tmp_path: Path) -> None:
    service = AuthService(tmp_path)
    login = asyncio.run(service.start_login(Server("notes", demo.ping_url), TERMINAL, flow="device"))
    assert login.device_authorization is not None
    approve_device(login.device_authorization.verification_uri_complete or "")
    gate = demo.authorization_server.hold("device_poll", after_processing=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.service.child_process", "wait", str(tmp_path), "0", login.id],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert gate.arrived.wait(20)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert any(line.startswith("Waiting for 127.0.0.1 to answer") for line in process.stderr)
        gate.open()
        process.communicate(timeout=20)
    assert service.blocking.login(login.id).status == "done"
    assert demo.authorization_server.count_requests("device_poll") == 1
    assert demo.authorization_server.count_requests("revocation") == 0
