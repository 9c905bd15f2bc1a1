"""Run a discord.py bot in its own thread against the local Discord."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import discord

from .api import DiscordApi

Client = TypeVar("Client", bound=discord.Client)


@contextmanager
def running_bot(api: DiscordApi, make: Callable[[], Client]) -> Iterator[Client]:
    """Create a client inside its event loop and run it; it is ready when the block starts.

    Raises what the client's start raises, before or after the block.
    """
    made: list[Client] = []
    failure: list[BaseException] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        client = make()
        made.append(client)
        loops.append(asyncio.get_running_loop())
        async with client:
            await client.start(api.token)

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 it is raised in the thread of the test
            failure.append(error)

    before = api.gateway.ready
    thread = threading.Thread(target=run, name="discord-bot", daemon=True)
    with api.used_by_discord_py():
        thread.start()
        try:
            api.wait(lambda: failure or (made and api.gateway.ready > before), 20)
            if failure:
                raise failure[0]
            yield made[0]
        finally:
            if made and thread.is_alive():
                asyncio.run_coroutine_threadsafe(made[0].close(), loops[0]).result(20)
            thread.join(20)
    if failure:
        raise failure[0]
