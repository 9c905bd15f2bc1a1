"""Fixtures: a demo server per module, reset before each test; a bot and its users; a clock for tests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway_hooks.dialog.messages import ENGLISH, Messages
from gateway_hooks.dialog.policy import Policy
from hermes_mcp_auth_remote.service import AuthService
from tests.demo.one import clock, demo, one_demo
from tests.demo.player import MovedClock
from tests.gateway_hooks.given import Person, Place, Talk, servers_of
from tests.parts.authorization_server import Demo

__all__ = ["clock", "demo", "one_demo"]

Begin = Callable[..., Talk]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as one:
        yield one


@pytest.fixture
def begin(tmp_path: Path, demo: Demo, clock: MovedClock, runner: asyncio.Runner) -> Begin:
    """Return a function that starts the bot. A second call with the same platform is a restart."""

    def begin_one(
        *names: str, policy: Policy | None = None, place: Place | None = None, words: Messages = ENGLISH
    ) -> Talk:
        service = AuthService(tmp_path, clock=clock)
        return Talk(runner, service, servers_of(demo, *names), clock, policy=policy, place=place, words=words)

    return begin_one


@pytest.fixture
def talk(begin: Begin) -> Talk:
    return begin()


@pytest.fixture
def ada(talk: Talk) -> Person:
    return talk.person("ada")
