"""Run the demo's MCP and authorization servers on loopback: `with serve_demo(Behaviour()) as demo:`."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from hermes_mcp_auth_remote.demo.authorization_server import AuthorizationServer
from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.demo.body_limit import BodyLimitMiddleware
from hermes_mcp_auth_remote.demo.mcp_server import MCP_PATH, PING_PATH, ProtectedResources

START_SECONDS = 20
Wrap = Callable[[ASGIApp, uvicorn.Server], ASGIApp]
"""Returns the application with middleware around it. The server runs that application."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The running servers. `authorization_server` has the settings of both."""

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
def serve_demo(behaviour: Behaviour | None = None) -> Generator[Demo]:
    """Serve both servers on free ports of 127.0.0.1 until the block ends."""
    with bind_socket() as mcp_socket, bind_socket() as authorization_socket:
        origins = [
            f"http://127.0.0.1:{bound.getsockname()[1]}" for bound in (mcp_socket, authorization_socket)
        ]
        authorization_server = AuthorizationServer(origins[1], behaviour)
        resources = ProtectedResources(origins[0], authorization_server)
        with serve(authorization_server, resources, [mcp_socket, authorization_socket]):
            yield Demo(authorization_server, resources)


def bind_socket(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Bind a TCP socket. Port 0 selects a free port. Raises OSError if the port is in use."""
    bound_socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    bound_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound_socket.bind((host, port))
    except OSError:
        bound_socket.close()
        raise
    return bound_socket


@contextmanager
def serve(
    authorization_server: AuthorizationServer,
    resources: ProtectedResources,
    sockets: Sequence[socket.socket],
    *,
    wrap: Wrap | None = None,
    ssl_certfile: str | None = None,
    ssl_keyfile: str | None = None,
) -> Generator[None]:
    """Serve in a background thread until the block ends.

    The first of the bound sockets is for the resources, the second for the authorization server. With one
    socket, both share it. `wrap` adds middleware to each application, inside the body limit. Raises OSError
    if the servers do not start.
    """
    # The route of the protected resource metadata must precede those of the other well-known documents.
    route_groups: list[list[BaseRoute]] = [[*resources.routes], [*authorization_server.routes]]
    if len(sockets) == 1:
        route_groups = [[*resources.routes, *authorization_server.routes]]
    lifespans = [resources.lifespan, _no_lifespan]
    pairs: list[tuple[_UvicornServer, socket.socket]] = []
    for routes, lifespan, bound_socket in zip(route_groups, lifespans, sockets, strict=False):
        app = Starlette(routes=routes, lifespan=lifespan)
        pairs.append((_build_server(app, wrap, ssl_certfile, ssl_keyfile), bound_socket))
    thread = threading.Thread(target=_serve_all, args=(pairs,), name="demo", daemon=True)
    thread.start()
    try:
        for uvicorn_server, _ in pairs:
            if not uvicorn_server.startup_done.wait(START_SECONDS):
                raise OSError("The demo's servers did not start.")
        yield
    finally:
        for uvicorn_server, _ in pairs:
            uvicorn_server.should_exit = True
        thread.join()


def _build_server(
    app: ASGIApp, wrap: Wrap | None, ssl_certfile: str | None, ssl_keyfile: str | None
) -> _UvicornServer:
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
    config.app = BodyLimitMiddleware(app if wrap is None else wrap(app, server))
    return server


class _UvicornServer(uvicorn.Server):
    """A uvicorn server that sets `startup_done` when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.startup_done = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.startup_done.set()


def _serve_all(pairs: Sequence[tuple[_UvicornServer, socket.socket]]) -> None:
    async def gather_servers() -> None:
        await asyncio.gather(*(server.serve(sockets=[bound]) for server, bound in pairs))

    asyncio.run(gather_servers())


@asynccontextmanager
async def _no_lifespan(_app: object) -> AsyncGenerator[None]:
    yield
