"""Fixtures: the local Bot API, its users and the demo servers. All use one clock that only tests move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tripwire
from tests.demo.player import MovedClock
from tests.gateway_hooks.telegram.given import ANNA, BOB, EVE, Scene
from tests.parts.authorization_server import Demo
from tests.parts.bot_api import BotApi, User, running


@pytest.fixture(autouse=True)
def _retry_after_as_it_will_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Select the new type of `retry_after`: the library warns about the old one while it builds the error."""
    monkeypatch.setenv("PTB_TIMEDELTA", "true")


@pytest.fixture
def api(clock: MovedClock) -> Iterator[BotApi]:
    with running(clock=clock) as one:
        tripwire.guard([one.token])
        yield one


@pytest.fixture
def scene(api: BotApi, demo: Demo, tmp_path: Path, clock: MovedClock) -> Scene:
    return Scene(api, demo, tmp_path / "home", clock)


@pytest.fixture
def anna(api: BotApi) -> User:
    user = api.user(ANNA, "Anna")
    api.private(user).started = True
    return user


@pytest.fixture
def bob(api: BotApi) -> User:
    user = api.user(BOB, "Bob")
    api.private(user).started = True
    return user


@pytest.fixture
def eve(api: BotApi) -> User:
    user = api.user(EVE, "Eve")
    api.private(user).started = True
    return user
