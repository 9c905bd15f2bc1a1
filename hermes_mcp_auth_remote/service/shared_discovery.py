"""Share one discovery of a server among all logins that start while it runs.

Logins without a stored client share the client that this discovery registers, because authorization servers
limit the number of registered clients. The result is not cached, because a server may move. A login that
starts after this discovery has ended runs discovery again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.values import Flow, Server

if TYPE_CHECKING:
    # Only a login needs the flows, and loading them would delay the start of a bot.
    from hermes_mcp_auth_remote.flows.discovery import DiscoveryResult

T = TypeVar("T")
_SharingKey = tuple[str, str | None, Flow, bool]


@dataclass(frozen=True, slots=True)
class DiscoveryKey:
    """The inputs of a discovery; `issuer` is preferred if the server names several.

    `can_share_client` is True if nothing is stored from an earlier login and the caller does not pass a
    redirect URI on which it listens.
    """

    server: Server
    issuer: str | None
    challenge: Challenge | None
    flow: Flow
    can_share_client: bool = False


@dataclass(slots=True, eq=False)
class _RunningDiscovery:
    discovery_key: DiscoveryKey
    # The result is None if the login that ran the discovery was cancelled.
    outcome: Future[DiscoveryResult | None] = field(default_factory=Future["DiscoveryResult | None"])


class SharedDiscovery:
    """The running discoveries of this process, for callers in any thread or event loop."""

    def __init__(self) -> None:
        self.reset_in_child()
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Forget the discoveries of the parent's threads: a forked child does not have these threads."""
        self._running: dict[_SharingKey, _RunningDiscovery] = {}

    async def discover_and_continue(
        self,
        run_exchange: Callable[[Exchange[T], Server], Awaitable[T]],
        discovery_key: DiscoveryKey,
        discover: Callable[[], Exchange[DiscoveryResult]],
        continue_with: Callable[[DiscoveryResult], Exchange[T]],
    ) -> T:
        """Run `discover`, or wait for a running discovery with the same key, then run `continue_with`.

        Raises what either of them raises.
        """
        key = (
            discovery_key.server.name,
            discovery_key.issuer,
            discovery_key.flow,
            discovery_key.can_share_client,
        )
        own_discovery = _RunningDiscovery(discovery_key)
        while (
            running := self._running.setdefault(key, own_discovery)
        ) is not own_discovery and running.discovery_key == discovery_key:
            # Shielded: a caller that is cancelled does not cancel the others.
            result = await asyncio.shield(asyncio.wrap_future(running.outcome))
            if result is not None:
                return await run_exchange(continue_with(result), discovery_key.server)
            # The other login was cancelled or ran out of time: one of the waiting logins runs discovery.
            self._remove_running(key, running)
        try:
            return await run_exchange(
                _discover_and_publish(own_discovery.outcome, discover, continue_with), discovery_key.server
            )
        finally:
            if not own_discovery.outcome.done():
                own_discovery.outcome.set_result(None)
            self._remove_running(key, own_discovery)

    def _remove_running(self, key: _SharingKey, running: _RunningDiscovery) -> None:
        if self._running.get(key) is running:
            del self._running[key]


def _discover_and_publish(
    outcome: Future[DiscoveryResult | None],
    discover: Callable[[], Exchange[DiscoveryResult]],
    continue_with: Callable[[DiscoveryResult], Exchange[T]],
) -> Exchange[T]:
    """Run the discovery, set its outcome for the waiting logins, and continue."""
    try:
        result = yield from discover()
    except McpAuthError as error:
        outcome.set_exception(error)
        raise
    outcome.set_result(result)
    return (yield from continue_with(result))
