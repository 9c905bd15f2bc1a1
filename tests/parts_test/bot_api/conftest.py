"""One endpoint for each test with a clock that the test sets, and a user who has pressed Start."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.parts.bot_api import BotApi, User, running
from tests.parts_test.asking import Asking, Clock


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=30) as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def api(clock: Clock) -> Iterator[BotApi]:
    with running(clock=clock) as running_api:
        yield running_api


@pytest.fixture
def anna(api: BotApi) -> User:
    anna = api.user(7, "Anna")
    api.start(anna)
    return anna


@pytest.fixture
def ask(api: BotApi, http: httpx.Client) -> Asking:
    return Asking(api, http)
