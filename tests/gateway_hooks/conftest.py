"""Fixtures: a demo server per module (reset before each test), a bot and its users, a clock for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.policy import Policy
from hermes_mcp_auth_remote.service import AuthService
from tests.demo.fixtures import clock, demo, one_demo
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.fake_platform import ChatBot, ChatUser, FakePlatform, demo_servers
from tests.parts.authorization_server import Demo

__all__ = ["clock", "demo", "one_demo"]

StartBot = Callable[..., ChatBot]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as asyncio_runner:
        yield asyncio_runner


@pytest.fixture
def start_bot(tmp_path: Path, demo: Demo, clock: ManualClock, runner: asyncio.Runner) -> StartBot:
    """Return a function that starts the bot. A second call with the same platform is a restart."""

    def start(
        *names: str,
        policy: Policy | None = None,
        platform: FakePlatform | None = None,
        messages: Messages = ENGLISH,
    ) -> ChatBot:
        service = AuthService(tmp_path, clock=clock)
        return ChatBot(
            runner,
            service,
            demo_servers(demo, *names),
            clock,
            policy=policy,
            platform=platform,
            messages=messages,
        )

    return start


@pytest.fixture
def bot(start_bot: StartBot) -> ChatBot:
    return start_bot()


@pytest.fixture
def ada(bot: ChatBot) -> ChatUser:
    return bot.user("ada")
