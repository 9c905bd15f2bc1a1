"""Drives an auth flow as httpx and httpx2 do for a request that is answered with 200."""

from __future__ import annotations

import time
from typing import Any


async def microseconds(auth: Any, request: Any, response: Any, count: int) -> float:  # noqa: ANN401
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


def blocking_microseconds(auth: Any, request: Any, response: Any, count: int) -> float:  # noqa: ANN401
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
