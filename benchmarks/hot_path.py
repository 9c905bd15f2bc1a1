"""The hot path: the CPU time of the auth step of one request with a valid token in memory."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import httpx
import httpx2

from benchmarks.auth_timing import measure_blocking_flow_microseconds, measure_flow_microseconds
from benchmarks.login_home import FASTMCP_PYTHON, MCP1_PYTHON, environ_for, logged_in_home, tokens
from benchmarks.measurement import Figure, Measure, Scale, command_output_measure, measure_interleaved
from benchmarks.sdk import make_provider, make_storage_with_token
from benchmarks.server import TOKEN
from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.auth.httpx2 import McpAuth as McpAuth2
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server

_URL = "https://mcp.example/mcp"


def make_fixed_header_auth(library: Any) -> Any:  # noqa: ANN401
    """Return the floor for a library: an auth object that only sets a header."""

    class FixedHeader(library.Auth):  # type: ignore[misc]
        def auth_flow(self, request: Any) -> Any:  # noqa: ANN401
            request.headers["Authorization"] = f"Bearer {TOKEN}"
            yield request

    return FixedHeader()


def measure_figures(scale: Scale) -> list[Figure]:
    """Measure the hot path of both libraries, asynchronous and synchronous."""
    count = scale.choose_size(10_000, 100)
    figures: list[Figure] = []
    with logged_in_home() as home:
        session = AuthService(home).session(Server("bench", _URL))
        session.adopt(tokens())
        for library, our_auth in ((httpx, McpAuth(session)), (httpx2, McpAuth2(session))):
            name = library.__name__
            request: Any = library.Request("POST", _URL, json={})
            response: Any = library.Response(200, request=request)

            def flow_measure(
                auth: Any,  # noqa: ANN401
                request: Any = request,  # noqa: ANN401
                response: Any = response,  # noqa: ANN401
            ) -> Measure:
                return lambda: asyncio.run(measure_flow_microseconds(auth, request, response, count))

            measures = {
                "floor": flow_measure(make_fixed_header_auth(library)),
                "ours": flow_measure(our_auth),
            }
            if library is httpx2:
                measures["mcp 2.x"] = flow_measure(make_provider(_URL, make_storage_with_token(TOKEN)))
                if FASTMCP_PYTHON.exists():
                    measures["fastmcp"] = command_output_measure(
                        (str(FASTMCP_PYTHON), "-m", "benchmarks.fastmcp_peer", "step", str(count)),
                        environ_for(home),
                    )
            elif MCP1_PYTHON.exists():
                command = (str(MCP1_PYTHON), "-m", "benchmarks.sdk", str(count))
                measures["mcp 1.x"] = command_output_measure(command, environ_for(home))
            medians = measure_interleaved(measures, scale)
            floor, ours = medians.pop("floor"), medians.pop("ours")
            figures.append(
                Figure(f"auth step, {name}, async", "µs", ours, "a fixed header", floor, 1.25, medians)
            )
            blocking = measure_interleaved(
                {
                    "floor": partial(
                        measure_blocking_flow_microseconds,
                        make_fixed_header_auth(library),
                        request,
                        response,
                        count,
                    ),
                    "ours": partial(measure_blocking_flow_microseconds, our_auth, request, response, count),
                },
                scale,
            )
            figures.append(
                Figure(
                    f"auth step, {name}, sync",
                    "µs",
                    blocking["ours"],
                    "a fixed header",
                    blocking["floor"],
                    1.25,
                )
            )
    return figures
