"""Fixtures: the local Discord API and the demo servers. Both use one clock that only tests move."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

from tests import leak_check
from tests.demo.manual_client import ManualClock
from tests.gateway_hooks.discord.environment import DiscordEnvironment
from tests.parts.authorization_server import Demo
from tests.parts.discord_api import DiscordApi, serve_discord_api


class InteractionTokens(Collection[str]):
    """The tokens of all interactions so far. A token lets its bearer reply as the bot."""

    def __init__(self, api: DiscordApi) -> None:
        self._interactions = api._state.interactions

    def __iter__(self) -> Iterator[str]:
        return iter([interaction.token for interaction in list(self._interactions.values())])

    def __len__(self) -> int:
        return len(self._interactions)

    def __contains__(self, token: object) -> bool:
        return token in list(self)


class LoginSecrets(Collection[str]):
    """The states, verifiers and device codes of all logins in the store."""

    def __init__(self, env: DiscordEnvironment) -> None:
        self._env = env

    def __iter__(self) -> Iterator[str]:
        for login in self._env.service._deps.store.logins.list_all():
            yield login.request.state.reveal()
            yield login.request.code_verifier.reveal()
            if login.poll_state is not None:
                yield login.poll_state.parameters.authorization.device_code.reveal()

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, secret: object) -> bool:
        return secret in list(self)


@pytest.fixture
def api(clock: ManualClock) -> Iterator[DiscordApi]:
    with serve_discord_api(clock=clock) as discord_api:
        leak_check.watch_secrets([discord_api.token])
        leak_check.watch_secrets(InteractionTokens(discord_api))
        yield discord_api


@pytest.fixture
def env(api: DiscordApi, demo: Demo, tmp_path: Path, clock: ManualClock) -> DiscordEnvironment:
    environment = DiscordEnvironment(api, demo, tmp_path / "home", clock)
    leak_check.watch_secrets(LoginSecrets(environment))
    return environment
