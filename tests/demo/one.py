"""Fixtures: one demo per module, strict again before each test, and the clock that it goes by."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.demo.servers import Demo, running
from tests import tripwire
from tests.demo.player import MovedClock


@pytest.fixture(scope="module")
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture(scope="module")
def one_demo(clock: MovedClock) -> Iterator[Demo]:
    with running(clock=clock) as demo:
        yield demo


@pytest.fixture
def demo(one_demo: Demo, clock: MovedClock) -> Iterator[Demo]:
    clock.now = MovedClock().now
    one_demo.server.behaviour = Behaviour()
    one_demo.server.heal()
    one_demo.server.requests.clear()
    tripwire.guard(one_demo.server.minted)
    yield one_demo
    one_demo.server.heal()
