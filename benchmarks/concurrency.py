"""Many calls at once through one auth object, and one call during a slow response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import httpx2

from benchmarks.auth_timing import measure_burst_milliseconds, post
from benchmarks.hot_path import make_fixed_header_auth
from benchmarks.login_home import FASTMCP_PYTHON, environ_for, logged_in_home, tokens
from benchmarks.measurement import Figure, Measure, Scale, command_output_measure, measure_interleaved
from benchmarks.sdk import make_provider, make_storage_with_token
from benchmarks.server import TOKEN, run_server
from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.auth.httpx2 import McpAuth as McpAuth2
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server

# The slow request must have started before the other request is timed.
_HEAD_START_SECONDS = 0.1
# The libraries' default. With a connection for each of a thousand calls, the figure would measure the pool.
_MAX_CONNECTIONS = 100

AuthFactory = Callable[[], Any]
AuthFactories = Mapping[str, AuthFactory]


def measure_figures(scale: Scale) -> list[Figure]:
    """Measure both. Skip the peer for a thousand calls: the peer makes calls one after another."""
    few, many = scale.choose_size(100, 5), scale.choose_size(1000, 10)
    figures: list[Figure] = []
    with run_server() as origin, logged_in_home() as home:
        url, slow = f"{origin}/delay/50", f"{origin}/delay/{scale.choose_size(1000, 300)}"
        session = AuthService(home).session(Server("bench", url))
        session.adopt(tokens())
        httpx_auths: AuthFactories = {
            "floor": lambda: make_fixed_header_auth(httpx),
            "ours": lambda: McpAuth(session),
        }
        httpx2_auths: AuthFactories = {
            "floor": lambda: make_fixed_header_auth(httpx2),
            "ours": lambda: McpAuth2(session),
        }
        peer: AuthFactories = {"mcp 2.x": lambda: make_provider(url, make_storage_with_token(TOKEN))}
        # Use twice the rounds for a burst of a hundred calls: it is as short as the noise of a busy machine.
        for library, auths, others, count, times in (
            (httpx, httpx_auths, {}, few, 2),
            (httpx2, httpx2_auths, peer, few, 2),
            # Leave httpx out: its pool takes ten seconds for a thousand calls.
            (httpx2, httpx2_auths, {}, many, 1),
        ):
            medians = measure_interleaved(
                {name: _burst_measure(library, auth, url, count) for name, auth in auths.items()},
                scale,
                times,
            )
            peers = {name: _burst_measure(library, auth, url, count)() for name, auth in others.items()}
            if others and FASTMCP_PYTHON.exists():
                peers["fastmcp"] = command_output_measure(
                    (
                        str(FASTMCP_PYTHON),
                        "-m",
                        "benchmarks.fastmcp_peer",
                        "burst",
                        url,
                        str(count),
                        str(_MAX_CONNECTIONS),
                    ),
                    environ_for(home),
                )()
            what = f"{count} calls at once, {library.__name__}"
            figures.append(
                Figure(what, "ms", medians["ours"], "a fixed header", medians["floor"], 1.1, peers)
            )
        measures = {
            name: _concurrent_call_measure(auth, url, slow) for name, auth in {**httpx2_auths, **peer}.items()
        }
        medians = measure_interleaved(measures, scale)
        floor, ours = medians.pop("floor"), medians.pop("ours")
        what = "a call while another's headers take 1 s"
        figures.append(Figure(what, "ms", ours, "a fixed header", floor, 1.2, medians))
    return figures


def _burst_measure(library: Any, auth_factory: AuthFactory, url: str, count: int) -> Measure:  # noqa: ANN401
    return lambda: asyncio.run(
        measure_burst_milliseconds(library, auth_factory(), url, count, _MAX_CONNECTIONS)
    )


def _concurrent_call_measure(auth_factory: AuthFactory, url: str, slow_url: str) -> Measure:
    async def measure_call() -> float:
        async with httpx2.AsyncClient(auth=auth_factory(), timeout=None, trust_env=False) as client:
            await post(client, url)
            other = asyncio.create_task(post(client, slow_url))
            await asyncio.sleep(_HEAD_START_SECONDS)
            started_at = time.perf_counter()
            await post(client, url)
            duration_ms = (time.perf_counter() - started_at) * 1000
            await other
            return duration_ms

    return lambda: asyncio.run(measure_call())
