"""Wait for a lease of the store (`store.protocol`), in a flight's thread or in a caller's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from hermes_mcp_auth_remote.errors import StoreBusy, StoreError
from hermes_mcp_auth_remote.store.protocol import Lease, LeaseStore
from hermes_mcp_auth_remote.threads import run_undoable_file_work, run_unstoppable_file_work
from hermes_mcp_auth_remote.values import CredentialKey


@asynccontextmanager
async def acquire_lease(
    leases: LeaseStore, key: CredentialKey, timeout_seconds: float, *, in_flight: bool = True
) -> AsyncGenerator[Lease]:
    """Hold the lease of a key for a block; raises StoreBusy if it is not free within `timeout_seconds`.

    In a flight, this calls the store in the event loop's own thread. Pass `in_flight=False` in any other
    event loop: worker threads then call the store. If the caller is cancelled while a thread
    works, and the thread then gets the lease, this function releases that lease.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_seconds
    while (lease := leases.try_lease(key) if in_flight else await _try_lease_in_thread(leases, key)) is None:
        if loop.time() >= deadline:
            raise StoreBusy(
                f"Another process has locked the tokens of {key.server_name} for {timeout_seconds:g} s."
            )
        await asyncio.sleep(leases.lease_retry_seconds)
    try:
        yield lease
    finally:
        if in_flight:
            release_lease(lease)
        else:
            await run_unstoppable_file_work(release_lease, lease)


def release_lease(lease: Lease) -> None:
    """Release a lease; ignores a StoreError, because the work under the lease is done and may be stored.

    A lease that cannot be released ends by its time.
    """
    with suppress(StoreError):
        lease.release()


async def _try_lease_in_thread(leases: LeaseStore, key: CredentialKey) -> Lease | None:
    return await run_undoable_file_work(leases.try_lease, _release_unused, key)


def _release_unused(lease: Lease | None) -> None:
    if lease is not None:
        release_lease(lease)
