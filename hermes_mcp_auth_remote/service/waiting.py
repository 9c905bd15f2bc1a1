"""Waiting for a file lock from an event loop: by asking again, so that a cancelled waiter holds nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from hermes_mcp_auth_remote.errors import StoreBusy
from hermes_mcp_auth_remote.store.lock import FileLock
from hermes_mcp_auth_remote.times import LIMITS

POLL_SECONDS = 0.02


@asynccontextmanager
async def held(lock: FileLock, seconds: float = LIMITS.lock_seconds) -> AsyncGenerator[None]:
    """Hold a lock for a block; raises StoreBusy where it is not to be had within `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not lock.try_acquire():
        if asyncio.get_running_loop().time() >= deadline:
            raise StoreBusy(f"{lock.path} has been locked by another process for {seconds:g} s.")
        await asyncio.sleep(POLL_SECONDS)
    try:
        yield
    finally:
        lock.release()
