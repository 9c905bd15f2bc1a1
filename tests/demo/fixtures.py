"""Fixtures: one demo per module, reset before each test, and its clock."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import leak_check
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Behaviour, Demo, serve_demo


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module")
def one_demo(clock: ManualClock) -> Iterator[Demo]:
    with serve_demo(clock=clock) as demo:
        yield demo


@pytest.fixture
def demo(one_demo: Demo, clock: ManualClock) -> Iterator[Demo]:
    clock.now = ManualClock().now
    one_demo.authorization_server.behaviour = Behaviour()
    one_demo.authorization_server.clear_faults()
    one_demo.authorization_server.requests.clear()
    leak_check.watch_secrets(one_demo.authorization_server.minted_secrets)
    yield one_demo
    one_demo.authorization_server.clear_faults()
