"""Run both servers on loopback in a background thread: `with serve_demo(Behaviour()) as demo:`."""

from __future__ import annotations

import asyncio
import secrets
import socket
import threading
import time
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from hermes_mcp_auth_remote.demo.authorization_server import AuthorizationServer
from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.demo.mcp_server import MCP_PATH, PING_PATH, ProtectedResources
from hermes_mcp_auth_remote.demo.recorder import HANG_UP_KEY, RecordingMiddleware
from hermes_mcp_auth_remote.values import Clock, Entropy

START_SECONDS = 20


@dataclass(frozen=True, slots=True)
class Demo:
    """The running servers. `authorization_server` has the settings, faults and requests of both."""

    authorization_server: AuthorizationServer
    resources: ProtectedResources

    @property
    def issuer(self) -> str:
        """The authorization server's issuer identifier."""
        return self.authorization_server.issuer

    @property
    def mcp_url(self) -> str:
        """The URL of the MCP server."""
        return self.resources.origin + MCP_PATH

    @property
    def ping_url(self) -> str:
        """The URL of the protected JSON endpoint, which is a separate resource."""
        return self.resources.origin + PING_PATH


@contextmanager
def serve_demo(  # noqa: PLR0913
    behaviour: Behaviour | None = None,
    *,
    separate_origins: bool = True,
    paths: tuple[str, ...] = (MCP_PATH,),
    clock: Clock = time.time,
    entropy: Entropy = secrets.token_urlsafe,
    ssl_certfile: str | None = None,
    ssl_keyfile: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> Generator[Demo]:
    """Serve the demo until the block ends. `port` is the MCP server's, 0 for a free one.

    If `separate_origins` is False, both servers share an origin, as in MCP 2025-03-26. `clock` returns the
    time for codes and tokens, in epoch seconds. The servers bind `host` and use it in their URLs. Raises
    OSError if the port is in use.
    """
    sockets = [_bind_socket(host, port)]
    scheme = "http" if ssl_certfile is None else "https"
    url_host = f"[{host}]" if ":" in host else host
    if separate_origins:
        sockets.append(_bind_socket(host, 0))
    origins = [f"{scheme}://{url_host}:{bound.getsockname()[1]}" for bound in sockets]
    server = AuthorizationServer(origins[-1], behaviour, clock=clock, entropy=entropy)
    resources = ProtectedResources(origins[0], server, paths)
    # The route of the protected resource metadata must precede those of the other well-known documents.
    route_groups: list[list[BaseRoute]] = [[*resources.routes], [*server.routes]]
    if not separate_origins:
        route_groups = [[*resources.routes, *server.routes]]
    lifespans = [resources.lifespan, _no_lifespan]
    pairs: list[tuple[_UvicornServer, socket.socket]] = []
    for routes, lifespan, bound_socket in zip(route_groups, lifespans, sockets, strict=False):
        app = Starlette(
            routes=routes, lifespan=lifespan, middleware=[Middleware(RecordingMiddleware, server.record)]
        )
        pairs.append((_build_server(app, ssl_certfile, ssl_keyfile), bound_socket))
    thread = threading.Thread(target=_serve_all, args=(pairs,), name="demo", daemon=True)
    thread.start()
    try:
        for uvicorn_server, _ in pairs:
            if not uvicorn_server.startup_done.wait(START_SECONDS):
                raise OSError("The demo's servers did not start.")
        yield Demo(server, resources)
    finally:
        server.clear_faults()
        server.record.closing.set()
        for uvicorn_server, _ in pairs:
            uvicorn_server.should_exit = True
        thread.join()
        for bound_socket in sockets:
            bound_socket.close()


def _bind_socket(host: str, port: int) -> socket.socket:
    bound_socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound_socket.bind((host, port))
    except OSError:
        bound_socket.close()
        raise
    return bound_socket


def _build_server(app: ASGIApp, ssl_certfile: str | None, ssl_keyfile: str | None) -> _UvicornServer:
    config = uvicorn.Config(
        app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        # An access log would contain the codes and states in the queries.
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        ssl_certfile=ssl_certfile,
        ssl_keyfile=ssl_keyfile,
    )
    server = _UvicornServer(config)
    config.app = _add_hang_up(app, server)
    return server


class _UvicornServer(uvicorn.Server):
    """A uvicorn server that sets `startup_done` when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.startup_done = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.startup_done.set()

    def hang_up(self, client: tuple[str, int]) -> None:
        """Abort the connection of a client (host and port) without a response."""
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None and transport.get_extra_info("peername")[:2] == tuple(client):
                transport.abort()


def _add_hang_up(app: ASGIApp, server: _UvicornServer) -> ASGIApp:
    async def call_with_hang_up(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, HANG_UP_KEY: partial(server.hang_up, scope["client"])}
        await app(scope, receive, send)

    return call_with_hang_up


def _serve_all(pairs: Sequence[tuple[_UvicornServer, socket.socket]]) -> None:
    async def gather_servers() -> None:
        await asyncio.gather(*(server.serve(sockets=[bound]) for server, bound in pairs))

    asyncio.run(gather_servers())


@asynccontextmanager
async def _no_lifespan(_app: object) -> AsyncGenerator[None]:
    yield
