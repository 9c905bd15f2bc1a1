"""The base class of DiscordApi: the URLs of the local Discord, and calls into its thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from .entities import User
from .rest import RestApi
from .state import State

T = TypeVar("T")
POLL_SECONDS = 0.005
# Enough for a loaded machine; an idle one needs milliseconds.
WAIT_SECONDS = 30.0


class ApiHandle:
    """Runs actions in the thread of the local Discord. Any thread may use it."""

    def __init__(self, state: State, rest: RestApi, loop: asyncio.AbstractEventLoop) -> None:
        self._state = state
        self._rest = rest
        self._loop = loop
        self.gateway = state.gateway

    def _run_in_loop(self, action: Callable[[], T]) -> T:
        async def run_action() -> T:
            return action()

        return asyncio.run_coroutine_threadsafe(run_action(), self._loop).result(30)

    @property
    def url(self) -> str:
        """The base URL of REST: the value for `discord.http.Route.BASE`."""
        return f"{self._state.base_url}/api/v10"

    @property
    def gateway_url(self) -> str:
        """The URL for `discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY`, which is a yarl.URL."""
        return self._state.gateway.url

    @property
    def token(self) -> str:
        """The bot's token. Tests treat it as a secret."""
        return self._state.token

    @property
    def bot(self) -> User:
        """The bot. Its id is also the application id."""
        return self._state.bot

    def wait(self, predicate: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
        """Wait until the predicate is true; raise AssertionError on timeout. Blocks: not for event loops."""
        deadline = time.monotonic() + seconds
        while not predicate():
            if time.monotonic() > deadline:
                raise AssertionError(f"The condition is still false after {seconds} s")
            time.sleep(POLL_SECONDS)

    @contextmanager
    def patch_discord_py(self) -> Iterator[None]:
        """Point the discord.py of this process to the local Discord inside the block."""
        import yarl
        from discord.gateway import DiscordWebSocket
        from discord.http import Route

        previous = Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY
        Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY = self.url, yarl.URL(self.gateway_url)
        try:
            yield
        finally:
            Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY = previous
