"""Change one fact of a stored binding, between logins and refreshes of other processes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from hermes_mcp_auth_remote.errors import StoreError
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.leases import acquire_lease
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.threads import run_file_work
from hermes_mcp_auth_remote.values import CredentialKey


async def change_binding(
    deps: Dependencies, key: CredentialKey, changed_binding: Callable[[Credentials], Binding | None]
) -> None:
    """Store the binding that `changed_binding` returns, None for no change; ignores store errors.

    `changed_binding` is pure: this function calls it twice, because a refresh may write another binding.
    """
    store = deps.store

    def is_unchanged() -> bool:
        return changed_binding(store.read(key).credentials) is None

    def save() -> None:
        stored = store.read(key)
        binding = changed_binding(stored.credentials)
        if binding is not None:
            store.save_binding(key, binding, expect=stored.version)

    with suppress(StoreError):
        if await run_file_work(is_unchanged):
            return
        async with acquire_lease(store, key, deps.limits.due_lock_seconds, in_flight=False):
            await run_file_work(save)
