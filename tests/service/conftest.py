"""One demo per module, strict again before each test, with the clock that the service goes by as well."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.demo.serving import Demo, running
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests import tripwire
from tests.demo.player import MovedClock
from tests.service.given import logged_in, server_of


@pytest.fixture(scope="module")
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture(scope="module")
def one_demo(clock: MovedClock) -> Iterator[Demo]:
    with running(clock=clock) as demo:
        yield demo


@pytest.fixture
def demo(one_demo: Demo) -> Iterator[Demo]:
    one_demo.server.behaviour = Behaviour()
    one_demo.server.heal()
    one_demo.server.requests.clear()
    tripwire.guard(one_demo.server.minted)
    yield one_demo
    one_demo.server.heal()


@pytest.fixture
def server(demo: Demo) -> Server:
    return server_of(demo)


@pytest.fixture
def service(tmp_path: Path, clock: MovedClock) -> AuthService:
    return AuthService(tmp_path, clock=clock)


@pytest.fixture
def session_kept(tmp_path: Path, demo: Demo, clock: MovedClock) -> AuthService:
    """A service whose operator has logged in; what that took is not counted."""
    return logged_in(tmp_path, demo, clock)
