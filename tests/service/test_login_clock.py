"""The lifetime of a login is measured by a clock that no user can set. A device login gets a last poll."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.boot_clock import read_boot_time
from hermes_mcp_auth_remote.values import BootTime, Server
from tests.consent_form import approve_device
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers
from tests.service.helpers import TERMINAL, server_of
from tests.store.builders import NOW


@dataclass
class Machine:
    """A computer whose wall clock can be set; services on it share one home."""

    home: Path
    server: Server
    wall: float = NOW
    boot: BootTime | None = field(default_factory=lambda: BootTime("first-boot", 1000.0))

    def service(self) -> AuthService:
        return AuthService(self.home, clock=lambda: self.wall, boot_clock=lambda: self.boot)

    def start_login(self) -> Login:
        return asyncio.run(self.service().start_login(self.server, TERMINAL))

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        if self.boot is not None:
            self.boot = BootTime(self.boot.boot_id, self.boot.seconds + seconds)

    def status_of(self, login: Login) -> str:
        return self.service().blocking.login(login.id).status


@pytest.fixture
def machine(tmp_path: Path, demo: Demo) -> Machine:
    return Machine(tmp_path, server_of(demo))


@covers("login-clock")
@pytest.mark.parametrize("set_by", [-3600.0, 3600.0, 86_400.0])
def test_a_login_lives_ten_minutes_even_if_the_clock_is_set(machine: Machine, set_by: float) -> None:
    login = machine.start_login()
    machine.wall += set_by
    assert machine.status_of(login) == "waiting"
    assert machine.service()._logins._is_only_waiting_login(login)
    machine.pass_time(599)
    assert machine.status_of(login) == "waiting"
    machine.pass_time(1)
    assert machine.status_of(login) == "expired"


@covers("login-clock")
def test_a_claimed_login_has_its_whole_time_even_if_the_clock_is_set(machine: Machine) -> None:
    login = machine.start_login()
    machine.service()._completion.claim(login)
    machine.wall += 3600
    assert machine.status_of(login) == "exchanging"
    machine.pass_time(201)
    assert machine.status_of(login) == "failed"


@covers("login-clock")
def test_after_a_reboot_the_wall_clock_decides(machine: Machine) -> None:
    login = machine.start_login()
    machine.boot = BootTime("second-boot", 5.0)
    machine.pass_time(599)
    assert machine.status_of(login) == "waiting"
    machine.pass_time(1)
    assert machine.status_of(login) == "expired"


@covers("login-clock")
@pytest.mark.parametrize("boot", [BootTime("second-boot", 5.0), None])
def test_a_code_login_from_the_future_is_over(machine: Machine, boot: BootTime | None) -> None:
    login = machine.start_login()
    machine.boot = boot
    machine.wall -= 30
    assert machine.status_of(login) == "waiting"
    machine.wall -= 3570
    assert machine.status_of(login) == "expired"


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no such clock here")
def test_a_service_of_this_computer_uses_its_boot_clock(tmp_path: Path, demo: Demo) -> None:
    before = read_boot_time()
    assert before is not None
    login = asyncio.run(AuthService(tmp_path).start_login(server_of(demo), TERMINAL))
    assert login.deadline is not None
    assert login.deadline.boot_id == before.boot_id
    assert 590 < login.deadline.seconds - before.seconds < 660
    assert AuthService(tmp_path).blocking.login(login.id).deadline == login.deadline


@pytest.fixture
def device_demo() -> Generator[Demo]:
    # The second poll would come long after the end of the code.
    with serve_demo(Behaviour(with_device=True, device_interval_seconds=60, device_seconds=3)) as demo:
        yield demo


@covers("last-poll")
@pytest.mark.parametrize("is_entered", [True, False])
def test_a_device_login_is_polled_once_more_before_it_expires(
    device_demo: Demo, tmp_path: Path, *, is_entered: bool
) -> None:
    service = AuthService(tmp_path)
    # The server still accepts the code for some time.
    device_demo.authorization_server.change_behaviour(device_seconds=600)

    async def main() -> Login:
        login = await service.start_login(server_of(device_demo), TERMINAL, flow="device")
        code = login.device_authorization
        assert code is not None
        if is_entered:
            await asyncio.to_thread(approve_device, code.verification_uri_complete or "")
        return await service.wait_for_login(login.id)

    device_demo.authorization_server.change_behaviour(device_overrides={"expires_in": 3})
    assert asyncio.run(main()).status == ("done" if is_entered else "expired")
    assert device_demo.authorization_server.count_requests("device_poll") == 1
