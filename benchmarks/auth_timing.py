"""Drive an auth flow as httpx and httpx2 do if the response is 200, and make many calls at once."""

from __future__ import annotations

import asyncio
import time
from typing import Any


async def measure_flow_microseconds(auth: Any, request: Any, response: Any, count: int) -> float:  # noqa: ANN401
    """Return the mean CPU time of an asynchronous flow, in microseconds, over `count` flows."""
    started_at = time.process_time()
    for _ in range(count):
        flow = auth.async_auth_flow(request)
        await anext(flow)
        try:
            await flow.asend(response)
        except StopAsyncIteration:
            await flow.aclose()
        else:
            raise RuntimeError("The flow yielded another request after a response 200.")
    return (time.process_time() - started_at) / count * 1e6


async def measure_burst_milliseconds(
    library: Any,  # noqa: ANN401
    auth: Any,  # noqa: ANN401
    url: str,
    count: int,
    max_connections: int,
) -> float:
    """Make one call that connects. Then return the wall time of `count` calls at once, in milliseconds."""
    limits = library.Limits(max_connections=max_connections)
    async with library.AsyncClient(auth=auth, limits=limits, timeout=None, trust_env=False) as client:
        await post(client, url)
        started_at = time.perf_counter()
        await asyncio.gather(*(post(client, url) for _ in range(count)))
        return (time.perf_counter() - started_at) * 1000


async def post(client: Any, url: str) -> None:  # noqa: ANN401
    """Make one call; raises RuntimeError unless the response is 200."""
    response = await client.post(url, json={})
    if response.status_code != 200:
        raise RuntimeError(f"The benchmarks' server answered {response.status_code}.")


def measure_blocking_flow_microseconds(auth: Any, request: Any, response: Any, count: int) -> float:  # noqa: ANN401
    """Return the mean CPU time of a synchronous flow, in microseconds, over `count` flows."""
    started_at = time.process_time()
    for _ in range(count):
        flow = auth.sync_auth_flow(request)
        next(flow)
        try:
            flow.send(response)
        except StopIteration:
            flow.close()
        else:
            raise RuntimeError("The flow yielded another request after a response 200.")
    return (time.process_time() - started_at) / count * 1e6
