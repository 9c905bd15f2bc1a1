"""Serve the local Discord from its own thread."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web

from .api import DiscordApi
from .directory import Directory
from .entities import Clock
from .form_errors import not_found
from .interactions import InteractionRoutes
from .rest import RestApi
from .sessions import PRIVILEGED_INTENTS
from .state import State
from .wire import serve_not_found


@contextmanager
def serve_discord_api(
    *,
    token: str | None = None,
    clock: Clock = time.time,
    privileged_intents: int = PRIVILEGED_INTENTS,
    heartbeat_seconds: float = 41.25,
    heartbeat_grace_seconds: float = 10,
    enforce_rate_limits: bool = False,
    port: int = 0,
) -> Iterator[DiscordApi]:
    """Serve on loopback. `privileged_intents` are the privileged intents that the application may use."""
    state = State(
        clock, token or f"MTI.{secrets.token_urlsafe(6)}.{secrets.token_urlsafe(28)}", privileged_intents
    )
    state.gateway.heartbeat_seconds = heartbeat_seconds
    state.gateway.heartbeat_grace_seconds = heartbeat_grace_seconds
    rest = RestApi(state)
    rest.limits.enforced = enforce_rate_limits
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="discord-api", daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(_start_server(state, rest, port), loop).result(30)
    try:
        yield DiscordApi(state, rest, loop)
    finally:
        loop.call_soon_threadsafe(state.gateway.abort_connections)
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()


async def _start_server(state: State, rest: RestApi, port: int) -> web.AppRunner:
    application = web.Application(client_max_size=32 * 1024 * 1024)
    routes = application.router
    open_routes = InteractionRoutes(state).routes()
    open_routes.append(("GET", "/gateway", lambda _: {"url": state.gateway.url}))
    for requires_token, routes_of_kind in (
        (True, [*Directory(state).routes(), *rest.routes()]),
        (False, open_routes),
    ):
        for method, template, handler in routes_of_kind:
            handle = rest.make_handler(method, template, handler, open_to_all=not requires_token)
            routes.add_route(method, f"/api/v10{template}", handle)

    async def serve_attachment(request: web.Request) -> web.Response:
        if request.path not in state.files:
            return web.json_response(not_found().body, status=404)
        return web.Response(body=state.files[request.path])

    routes.add_get("/attachments/{channel}/{id}/{name}", serve_attachment)
    for path in ("/gateway", "/gateway/resume"):
        routes.add_get(path, state.gateway.serve)
    routes.add_route("*", "/{rest:.*}", serve_not_found)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, bound_port = runner.addresses[0][:2]
    state.base_url = f"http://{host}:{bound_port}"
    state.gateway.url = f"ws://{host}:{bound_port}/gateway"
    state.gateway.resume_url = f"ws://{host}:{bound_port}/gateway/resume"
    return runner
