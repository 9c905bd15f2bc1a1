"""Fixtures: the local Discord API and the demo servers. Both use one clock that only tests move."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from tests import tripwire
from tests.demo.player import MovedClock
from tests.gateway_hooks.discord.given import Scene
from tests.parts.authorization_server import Demo
from tests.parts.discord_api import DiscordApi, running


class Tokens(Collection[str]):
    """The tokens of all interactions so far. A token lets its bearer reply as the bot."""

    def __init__(self, api: DiscordApi) -> None:
        self._held = api._state.interactions

    def __iter__(self) -> Iterator[str]:
        return iter([each.token for each in list(self._held.values())])

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, token: object) -> bool:
        return token in list(self)


class Secrets(Collection[str]):
    """The states, verifiers and device codes of all logins in the store."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def __iter__(self) -> Iterator[str]:
        for login in self._scene.store._deps.store.logins.list_all():
            yield login.request.state.reveal()
            yield login.request.code_verifier.reveal()
            if login.poll_state is not None:
                yield login.poll_state.parameters.authorization.device_code.reveal()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, secret: object) -> bool:
        return secret in list(self)


@pytest.fixture
def api(clock: MovedClock) -> Iterator[DiscordApi]:
    with running(clock=clock) as one:
        tripwire.guard([one.token])
        tripwire.guard(Tokens(one))
        yield one


@pytest.fixture
def scene(api: DiscordApi, demo: Demo, tmp_path: Path, clock: MovedClock) -> Scene:
    made = Scene(api, demo, tmp_path / "home", clock)
    tripwire.guard(Secrets(made))
    return made
