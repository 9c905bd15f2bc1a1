"""What every part of a test's handle stands on: the endpoint's thread, and where it listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from .rest import Rest
from .state import State
from .world import User

T = TypeVar("T")
POLL_SECONDS = 0.005
# For what comes at once on an idle machine.
WAIT_SECONDS = 30.0


class Handle:
    """May be used from any thread: what it does happens in the endpoint's."""

    def __init__(self, state: State, rest: Rest, loop: asyncio.AbstractEventLoop) -> None:
        self._state = state
        self._rest = rest
        self._loop = loop
        self.gateway = state.gateway

    def _in_loop(self, act: Callable[[], T]) -> T:
        async def run() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(30)

    # Where it is.

    @property
    def url(self) -> str:
        """The base of REST: what `discord.http.Route.BASE` is set to."""
        return f"{self._state.base_url}/api/v10"

    @property
    def gateway_url(self) -> str:
        """What `discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY` is set to, as a yarl.URL."""
        return self._state.gateway.url

    @property
    def token(self) -> str:
        """The bot's token; a secret like a real one."""
        return self._state.token

    @property
    def bot(self) -> User:
        """The bot; its id is the application's."""
        return self._state.bot

    def wait(self, predicate: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
        """Wait until it is true; raises AssertionError when it is not in time. Not for the bot's own loop."""
        end = time.monotonic() + seconds
        while not predicate():
            if time.monotonic() > end:
                raise AssertionError(f"Not within {seconds} s")
            time.sleep(POLL_SECONDS)

    @contextmanager
    def used_by_discord_py(self) -> Iterator[None]:
        """Point the discord.py of this process here, for a while."""
        import yarl
        from discord.gateway import DiscordWebSocket
        from discord.http import Route

        before = Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY
        Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY = self.url, yarl.URL(self.gateway_url)
        try:
            yield
        finally:
            Route.BASE, DiscordWebSocket.DEFAULT_GATEWAY = before
