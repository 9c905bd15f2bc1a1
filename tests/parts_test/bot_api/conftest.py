"""One endpoint for each test with a clock that the test sets, and a user who has pressed Start."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.parts.bot_api import BotApi, User, serve_bot_api
from tests.parts_test.method_caller import Clock, MethodCaller


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api(clock: Clock) -> Iterator[BotApi]:
    with serve_bot_api(clock=clock) as served_api:
        yield served_api


@pytest.fixture
def anna(api: BotApi) -> User:
    anna = api.add_user(7, "Anna")
    api.start(anna)
    return anna


@pytest.fixture
def call_api(api: BotApi, http: httpx.Client) -> MethodCaller:
    return MethodCaller(api, http)
