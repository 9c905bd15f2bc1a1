"""One look at a server serves all who begin to log in meanwhile: its documents are the same for everybody.

Who has no client yet, and needs none of their own, gets the one that registers with the look: it is the same
program, and providers limit how many they take. Nothing is remembered: once the one who looked has gone on,
over the same connections, the next one looks again, for a server may move.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.flows.discovery import DiscoveryResult
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.values import Flow, Server

T = TypeVar("T")
_SharingKey = tuple[int, str, str | None, Flow, bool]


@dataclass(frozen=True, slots=True)
class DiscoveryKey:
    """All that the outcome of a look depends on; `issuer` is preferred where there are several.

    `is_new` where nothing is held from an earlier login, and nobody listens on a port of their own.
    """

    server: Server
    issuer: str | None
    challenge: Challenge | None
    flow: Flow
    can_share_client: bool = False


@dataclass(slots=True, eq=False)
class _RunningDiscovery:
    discovery_key: DiscoveryKey
    # None where whoever looked was cancelled.
    outcome: Future[DiscoveryResult | None] = field(default_factory=Future[DiscoveryResult | None])


class SharedDiscovery:
    """The looks under way. Any thread or event loop may use it."""

    def __init__(self) -> None:
        self._running: dict[_SharingKey, _RunningDiscovery] = {}

    async def discover_and_continue(
        self,
        run_exchange: Callable[[Exchange[T], Server], Awaitable[T]],
        discovery_key: DiscoveryKey,
        discover: Callable[[], Exchange[DiscoveryResult]],
        continue_with: Callable[[DiscoveryResult], Exchange[T]],
    ) -> T:
        """Look at a server, or take what a look under way at the same question finds, and go on.

        Raises what either raises.
        """
        # A forked child has not the threads in which its parent's looks go on.
        key = (
            os.getpid(),
            discovery_key.server.name,
            discovery_key.issuer,
            discovery_key.flow,
            discovery_key.can_share_client,
        )
        mine = _RunningDiscovery(discovery_key)
        while (
            theirs := self._running.setdefault(key, mine)
        ) is not mine and theirs.discovery_key == discovery_key:
            # Shielded: one who is cancelled cancels nobody else.
            found = await asyncio.shield(asyncio.wrap_future(theirs.outcome))
            if found is not None:
                return await run_exchange(continue_with(found), discovery_key.server)
            # Whoever looked was cancelled, or ran out of time: one of those who wait looks now.
            self._remove_running(key, theirs)
        try:
            return await run_exchange(
                _discover_and_publish(mine.outcome, discover, continue_with), discovery_key.server
            )
        finally:
            if not mine.outcome.done():
                mine.outcome.set_result(None)
            self._remove_running(key, mine)

    def _remove_running(self, key: _SharingKey, running: _RunningDiscovery) -> None:
        if self._running.get(key) is running:
            del self._running[key]


def _discover_and_publish(
    outcome: Future[DiscoveryResult | None],
    discover: Callable[[], Exchange[DiscoveryResult]],
    continue_with: Callable[[DiscoveryResult], Exchange[T]],
) -> Exchange[T]:
    """Look, tell those who wait, and go on."""
    try:
        found = yield from discover()
    except McpAuthError as trouble:
        outcome.set_exception(trouble)
        raise
    outcome.set_result(found)
    return (yield from continue_with(found))
