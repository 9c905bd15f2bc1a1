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
def run_bot(api: DiscordApi, make_client: Callable[[], Client]) -> Iterator[Client]:
    """Create a client inside its event loop and run it; it is ready when the block starts.

    Raises what the client's start raises, before or after the block.
    """
    clients: list[Client] = []
    errors: list[BaseException] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def main() -> None:
        client = make_client()
        clients.append(client)
        loops.append(asyncio.get_running_loop())
        async with client:
            await client.start(api.token)

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # noqa: BLE001 it is raised in the thread of the test
            errors.append(error)

    previous_ready_count = api.gateway.ready_count
    thread = threading.Thread(target=run, name="discord-bot", daemon=True)
    with api.patch_discord_py():
        thread.start()
        try:
            api.wait(lambda: errors or (clients and api.gateway.ready_count > previous_ready_count), 20)
            if errors:
                raise errors[0]
            yield clients[0]
        finally:
            if clients and thread.is_alive():
                asyncio.run_coroutine_threadsafe(clients[0].close(), loops[0]).result(20)
            thread.join(20)
    if errors:
        raise errors[0]
