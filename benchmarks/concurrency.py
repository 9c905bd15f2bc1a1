"""Many calls at once through one auth object, to a server that takes 50 ms; and one beside a slow answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import httpx2

from benchmarks.driving import burst_milliseconds, post
from benchmarks.given import BENCH_PYTHON, environ, home, tokens
from benchmarks.hot_path import fixed_header
from benchmarks.measuring import Extent, Figure, Measure, command_output, interleaved
from benchmarks.sdk import provider, stored
from benchmarks.server import TOKEN, serving
from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.auth.httpx2 import McpAuth as McpAuth2
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server

# A request must be on its way before another one is timed beside it.
_HEAD_START_SECONDS = 0.1
# The libraries' own default; a connection for each of a thousand calls would measure the pool.
_CONNECTIONS = 100

Auth = Callable[[], Any]
Auths = Mapping[str, Auth]


def figures(extent: Extent) -> list[Figure]:
    """Measure both. The peer takes no part in a thousand calls, which it would make one by one."""
    few, many = extent.of(100, 5), extent.of(1000, 10)
    found: list[Figure] = []
    with serving() as origin, home() as place:
        url, slow = f"{origin}/delay/50", f"{origin}/delay/{extent.of(1000, 300)}"
        session = AuthService(place).session(Server("bench", url))
        session.adopt(tokens())
        one: Auths = {"floor": lambda: fixed_header(httpx), "ours": lambda: McpAuth(session)}
        two: Auths = {"floor": lambda: fixed_header(httpx2), "ours": lambda: McpAuth2(session)}
        peer: Auths = {"mcp 2.x": lambda: provider(url, stored(TOKEN))}
        # A burst of a hundred is short, and the noise of a busy machine is of its own size.
        for library, auths, others, count, times in (
            (httpx, one, {}, few, 2),
            (httpx2, two, peer, few, 2),
            # httpx is left out: its own pool takes ten seconds for a thousand.
            (httpx2, two, {}, many, 1),
        ):
            medians = interleaved(
                {name: _burst(library, auth, url, count) for name, auth in auths.items()}, extent, times
            )
            peers = {name: _burst(library, auth, url, count)() for name, auth in others.items()}
            if others and BENCH_PYTHON.exists():
                peers["fastmcp"] = command_output(
                    (
                        str(BENCH_PYTHON),
                        "-m",
                        "benchmarks.fastmcp_peer",
                        "burst",
                        url,
                        str(count),
                        str(_CONNECTIONS),
                    ),
                    environ(place),
                )()
            what = f"{count} calls at once, {library.__name__}"
            found.append(Figure(what, "ms", medians["ours"], "a fixed header", medians["floor"], 1.1, peers))
        measures = {name: _beside(auth, url, slow) for name, auth in {**two, **peer}.items()}
        medians = interleaved(measures, extent)
        floor, ours = medians.pop("floor"), medians.pop("ours")
        what = "a call while another's headers take 1 s"
        found.append(Figure(what, "ms", ours, "a fixed header", floor, 1.2, medians))
    return found


def _burst(library: Any, auth: Auth, url: str, count: int) -> Measure:  # noqa: ANN401
    return lambda: asyncio.run(burst_milliseconds(library, auth(), url, count, _CONNECTIONS))


def _beside(auth: Auth, url: str, slow: str) -> Measure:
    async def beside() -> float:
        async with httpx2.AsyncClient(auth=auth(), timeout=None, trust_env=False) as client:
            await post(client, url)
            other = asyncio.create_task(post(client, slow))
            await asyncio.sleep(_HEAD_START_SECONDS)
            begun = time.perf_counter()
            await post(client, url)
            taken = (time.perf_counter() - begun) * 1000
            await other
            return taken

    return lambda: asyncio.run(beside())
