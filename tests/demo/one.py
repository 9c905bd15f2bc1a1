"""Fixtures: one demo per module, reset before each test, and its clock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import tripwire
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Behaviour, Demo, serve_demo


@pytest.fixture(scope="module")
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture(scope="module")
def one_demo(clock: MovedClock) -> Iterator[Demo]:
    with serve_demo(clock=clock) as demo:
        yield demo


@pytest.fixture
def demo(one_demo: Demo, clock: MovedClock) -> Iterator[Demo]:
    clock.now = MovedClock().now
    one_demo.authorization_server.behaviour = Behaviour()
    one_demo.authorization_server.clear_faults()
    one_demo.authorization_server.requests.clear()
    tripwire.guard(one_demo.authorization_server.minted_secrets)
    yield one_demo
    one_demo.authorization_server.clear_faults()
