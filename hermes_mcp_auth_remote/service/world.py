"""What the service's parts share: the store, the way out, the clock, chance, and the flights under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.service.flights import Flights
from hermes_mcp_auth_remote.service.ready import Ready
from hermes_mcp_auth_remote.store.files import FileStore
from hermes_mcp_auth_remote.values import Clock, Entropy, Server

T = TypeVar("T")


class Run(Protocol):
    """Runs an exchange over the network on behalf of a server (`http.client.run`)."""

    async def __call__(self, exchange: Exchange[T], server: Server) -> T:
        """Return what the exchange returns; raises what it raises."""
        ...


@dataclass(frozen=True, slots=True)
class World:
    """The edges, handed in once by `AuthService`."""

    store: FileStore
    run: Run
    clock: Clock
    entropy: Entropy
    refreshes: Flights[Ready] = field(default_factory=lambda: Flights("mcp-auth-refresh"))
    # Storing a login's tokens: in a thread of its own, where no Ctrl-C comes between.
    keeping: Flights[None] = field(default_factory=lambda: Flights("mcp-auth-keep"))
