"""One demo per module, which is reset before each test, with a clock that only tests advance."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.demo.manual_client import ManualClient, ManualClock
from tests.parts.authorization_server import Behaviour, Demo, serve_demo


@pytest.fixture(scope="module")
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(scope="module")
def one_demo(clock: ManualClock) -> Iterator[Demo]:
    with serve_demo(paths=("/mcp", "/other/mcp"), clock=clock) as demo:
        yield demo


@pytest.fixture
def demo(one_demo: Demo) -> Demo:
    one_demo.authorization_server.behaviour = Behaviour()
    one_demo.authorization_server.clear_faults()
    one_demo.authorization_server.requests.clear()
    return one_demo


@pytest.fixture
def client(demo: Demo) -> ManualClient:
    return ManualClient(demo)
