"""Fixtures: the local Bot API, its users and the demo servers. All use one clock that only tests move."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import leak_check
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.telegram.environment import ANNA, BOB, EVE, TelegramEnvironment
from tests.parts.authorization_server import Demo
from tests.parts.bot_api import BotApi, User, serve_bot_api


@pytest.fixture(autouse=True)
def _use_timedelta_for_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Select the new type of `retry_after`. With the old type, the library warns when it builds the error."""
    monkeypatch.setenv("PTB_TIMEDELTA", "true")


@pytest.fixture
def api(clock: ManualClock) -> Iterator[BotApi]:
    with serve_bot_api(clock=clock) as bot_api:
        leak_check.watch_secrets([bot_api.token])
        yield bot_api


@pytest.fixture
def env(api: BotApi, demo: Demo, tmp_path: Path, clock: ManualClock) -> TelegramEnvironment:
    return TelegramEnvironment(api, demo, tmp_path / "home", clock)


@pytest.fixture
def anna(api: BotApi) -> User:
    user = api.add_user(ANNA, "Anna")
    api.private_chat(user).is_started = True
    return user


@pytest.fixture
def bob(api: BotApi) -> User:
    user = api.add_user(BOB, "Bob")
    api.private_chat(user).is_started = True
    return user


@pytest.fixture
def eve(api: BotApi) -> User:
    user = api.add_user(EVE, "Eve")
    api.private_chat(user).is_started = True
    return user
