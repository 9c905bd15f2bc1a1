"""Run the demo's servers with a record of every request and with faults."""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from hermes_mcp_auth_remote.demo import servers
from hermes_mcp_auth_remote.demo.mcp_server import MCP_PATH
from hermes_mcp_auth_remote.values import Clock, Entropy
from tests.parts.authorization_server.authorization_server import FaultyAuthorizationServer
from tests.parts.authorization_server.behaviour import Behaviour
from tests.parts.authorization_server.recorder import RecordingMiddleware, RequestRecord
from tests.parts.authorization_server.resources import FaultyProtectedResources


@dataclass(frozen=True, slots=True)
class Demo(servers.Demo):
    """The running servers. `authorization_server` has the settings, faults and requests of both servers."""

    authorization_server: FaultyAuthorizationServer


@contextmanager
def serve_demo(
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
    """Serve the demo until the block ends. `port` is the port of the MCP server; 0 selects a free port.

    If `separate_origins` is False, both servers share an origin, as in MCP 2025-03-26. `clock` returns the
    time for codes and tokens, in epoch seconds. The servers bind to `host` and use it in their URLs. Raises
    OSError if the port is in use.
    """
    with ExitStack() as stack:
        ports = [port, 0] if separate_origins else [port]
        sockets = [stack.enter_context(servers.bind_socket(host, number)) for number in ports]
        scheme = "http" if ssl_certfile is None else "https"
        url_host = f"[{host}]" if ":" in host else host
        origins = [f"{scheme}://{url_host}:{bound.getsockname()[1]}" for bound in sockets]
        server = FaultyAuthorizationServer(origins[-1], behaviour, clock=clock, entropy=entropy)
        resources = FaultyProtectedResources(origins[0], server, paths)
        stack.enter_context(
            servers.serve(
                server,
                resources,
                sockets,
                wrap=partial(_record_requests, server.record),
                ssl_certfile=ssl_certfile,
                ssl_keyfile=ssl_keyfile,
            )
        )
        # `serve` waits for its thread at the end, so end every delay and open every gate before that.
        stack.callback(server.record.closing.set)
        stack.callback(server.clear_faults)
        yield Demo(server, resources)


def _record_requests(record: RequestRecord, app: ASGIApp, server: uvicorn.Server) -> ASGIApp:
    return RecordingMiddleware(app, record, partial(_hang_up, server))


def _hang_up(server: uvicorn.Server, client: tuple[str, int]) -> None:
    for connection in list(server.server_state.connections):
        transport = getattr(connection, "transport", None)
        if transport is not None and transport.get_extra_info("peername")[:2] == tuple(client):
            transport.abort()
