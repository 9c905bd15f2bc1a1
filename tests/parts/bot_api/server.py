"""Runs the endpoint in a thread with its own event loop."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import contextmanager

from aiohttp import web

from tests.parts.bot_api.api import BotApi
from tests.parts.bot_api.routes import Routes
from tests.parts.bot_api.state import BotApiState
from tests.parts.bot_api.values import User
from tests.parts.bot_api.webhooks import WebhookSender

START_SECONDS = 20.0


@contextmanager
def serve_bot_api(
    *,
    token: str | None = None,
    username: str = "hermes_test_bot",
    first_name: str = "Hermes",
    clock: Callable[[], float] = time.time,
    privacy_mode: bool = True,
    rate_limits: bool = False,
    port: int = 0,
) -> Generator[BotApi]:
    """Serve one bot until the block ends.

    Generate a token if there is none. Raise OSError if the port is taken.
    """
    bot_token = token or f"{secrets.randbelow(9 * 10**8) + 10**8}:AA{secrets.token_hex(17)[:33]}"
    state = BotApiState(
        User(int(bot_token.split(":")[0]), first_name, username, is_bot=True),
        clock,
        privacy_mode=privacy_mode,
    )
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        listener.close()
        raise
    api = BotApi(state, f"http://127.0.0.1:{listener.getsockname()[1]}", bot_token, rate_limits=rate_limits)
    started: Future[Callable[[], None]] = Future()
    thread = threading.Thread(
        target=lambda: asyncio.run(_serve(api, listener, started)), name="bot-api", daemon=True
    )
    thread.start()
    stop = started.result(START_SECONDS)
    try:
        yield api
    finally:
        api.clear_faults()
        stop()
        thread.join(START_SECONDS)
        if thread.is_alive():
            raise AssertionError("The Bot API endpoint did not stop.")
    if api.internal_errors:
        raise AssertionError("The Bot API endpoint had internal errors:\n" + "\n".join(api.internal_errors))


async def _serve(api: BotApi, listener: socket.socket, started: Future[Callable[[], None]]) -> None:
    loop = asyncio.get_running_loop()
    closing = asyncio.Event()
    routes = Routes(api)
    # Cancel a call if the bot disconnects: otherwise its long poll would keep updates.
    runner = web.AppRunner(routes.app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.2)
    await runner.setup()
    await web.SockSite(runner, listener).start()
    delivery = asyncio.create_task(WebhookSender(api.state).run())

    def stop() -> None:
        loop.call_soon_threadsafe(closing.set)

    started.set_result(stop)
    await closing.wait()
    delivery.cancel()
    routes.closing.set()
    api.drop_long_poll()
    await asyncio.gather(delivery, return_exceptions=True)
    await runner.cleanup()
