"""Drives an auth flow as httpx and httpx2 do for a request that is answered with 200; many calls at once."""

from __future__ import annotations

import asyncio
import time
from typing import Any


async def measure_flow_microseconds(auth: Any, request: Any, response: Any, count: int) -> float:  # noqa: ANN401
    """Return the CPU time of one asynchronous flow, in microseconds, over `count` of them."""
    begun = time.process_time()
    for _ in range(count):
        flow = auth.async_auth_flow(request)
        await anext(flow)
        try:
            await flow.asend(response)
        except StopAsyncIteration:
            await flow.aclose()
        else:
            raise RuntimeError("A flow that was answered with 200 wants another request.")
    return (time.process_time() - begun) / count * 1e6


async def measure_burst_milliseconds(
    library: Any,  # noqa: ANN401
    auth: Any,  # noqa: ANN401
    url: str,
    count: int,
    max_connections: int,
) -> float:
    """Return the wall time of so many calls at once, in milliseconds, after one that connects."""
    limits = library.Limits(max_connections=max_connections)
    async with library.AsyncClient(auth=auth, limits=limits, timeout=None, trust_env=False) as client:
        await post(client, url)
        begun = time.perf_counter()
        await asyncio.gather(*(post(client, url) for _ in range(count)))
        return (time.perf_counter() - begun) * 1000


async def post(client: Any, url: str) -> None:  # noqa: ANN401
    """Make one call."""
    response = await client.post(url, json={})
    if response.status_code != 200:
        raise RuntimeError(f"The benchmarks' server answered {response.status_code}.")


def measure_blocking_flow_microseconds(auth: Any, request: Any, response: Any, count: int) -> float:  # noqa: ANN401
    """Return the CPU time of one synchronous flow, in microseconds, over `count` of them."""
    begun = time.process_time()
    for _ in range(count):
        flow = auth.sync_auth_flow(request)
        next(flow)
        try:
            flow.send(response)
        except StopIteration:
            flow.close()
        else:
            raise RuntimeError("A flow that was answered with 200 wants another request.")
    return (time.process_time() - begun) / count * 1e6
