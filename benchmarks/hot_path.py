"""The hot path: CPU of the auth step of one request, its token valid and in memory."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import httpx
import httpx2

from benchmarks.driving import blocking_microseconds, microseconds
from benchmarks.given import BENCH_PYTHON, OTHER_PYTHON, environ, home, tokens
from benchmarks.measuring import Extent, Figure, Measure, command_output, interleaved
from benchmarks.sdk import provider, stored
from benchmarks.server import TOKEN
from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.auth.httpx2 import McpAuth as McpAuth2
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server

_URL = "https://mcp.example/mcp"


def fixed_header(library: Any) -> Any:  # noqa: ANN401
    """Return the floor: an auth object of a library that sets a header and does nothing else."""

    class FixedHeader(library.Auth):  # type: ignore[misc]
        def auth_flow(self, request: Any) -> Any:  # noqa: ANN401
            request.headers["Authorization"] = f"Bearer {TOKEN}"
            yield request

    return FixedHeader()


def figures(extent: Extent) -> list[Figure]:
    """Measure the hot path of both libraries, asynchronous and synchronous."""
    count = extent.of(10_000, 100)
    found: list[Figure] = []
    with home() as place:
        session = AuthService(place).session(Server("bench", _URL))
        session.adopt(tokens())
        for library, ours in ((httpx, McpAuth(session)), (httpx2, McpAuth2(session))):
            name = library.__name__
            request: Any = library.Request("POST", _URL, json={})
            response: Any = library.Response(200, request=request)

            def driven(
                auth: Any,  # noqa: ANN401
                request: Any = request,  # noqa: ANN401
                response: Any = response,  # noqa: ANN401
            ) -> Measure:
                return lambda: asyncio.run(microseconds(auth, request, response, count))

            measures = {"floor": driven(fixed_header(library)), "ours": driven(ours)}
            if library is httpx2:
                measures["mcp 2.x"] = driven(provider(_URL, stored(TOKEN)))
                if BENCH_PYTHON.exists():
                    measures["fastmcp"] = command_output(
                        (str(BENCH_PYTHON), "-m", "benchmarks.fastmcp_peer", "step", str(count)),
                        environ(place),
                    )
            elif OTHER_PYTHON.exists():
                command = (str(OTHER_PYTHON), "-m", "benchmarks.sdk", str(count))
                measures["mcp 1.x"] = command_output(command, environ(place))
            medians = interleaved(measures, extent)
            floor, mine = medians.pop("floor"), medians.pop("ours")
            found.append(
                Figure(f"auth step, {name}, async", "µs", mine, "a fixed header", floor, 1.25, medians)
            )
            blocking = interleaved(
                {
                    "floor": partial(blocking_microseconds, fixed_header(library), request, response, count),
                    "ours": partial(blocking_microseconds, ours, request, response, count),
                },
                extent,
            )
            found.append(
                Figure(
                    f"auth step, {name}, sync",
                    "µs",
                    blocking["ours"],
                    "a fixed header",
                    blocking["floor"],
                    1.25,
                )
            )
    return found
