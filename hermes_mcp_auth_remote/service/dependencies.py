"""What the service's parts share: the store, the way out, the clock, chance, and the flights under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from hermes_mcp_auth_remote.oauth.client import Signer
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.service.cached_token import Ready
from hermes_mcp_auth_remote.service.shared_discovery import Looks
from hermes_mcp_auth_remote.service.single_flight import Flights
from hermes_mcp_auth_remote.signing import client_signer, prover
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.timeouts import LIMITS, Limits
from hermes_mcp_auth_remote.values import Clock, Entropy, Origin, Secret, Server

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
    # Where a person may be given a code for another device; None: anywhere.
    device_platforms: frozenset[str] | None = None
    limits: Limits = LIMITS
    looks: Looks = field(default_factory=Looks)
    refreshes: Flights[Ready] = field(default_factory=lambda: Flights("mcp-auth-refresh"))
    # Exchanging a code and storing what it brings: no Ctrl-C comes between.
    exchanges: Flights[Credentials] = field(default_factory=lambda: Flights("mcp-auth-exchange"))
    # Storing a login's tokens: in a thread of its own, where no Ctrl-C comes between.
    keeping: Flights[Credentials | None] = field(default_factory=lambda: Flights("mcp-auth-keep"))

    def allows_device(self, server: Server, origin: Origin) -> bool:
        """True where the operator lets a login of this server, asked for there, go by a device."""
        platforms = self.device_platforms
        return server.options.device and (platforms is None or origin.platform in platforms)

    def signer(self, server: Server) -> Signer | None:
        """Return what signs for this server's client, None without a key file. Raises ConfigError."""
        path, key_id = server.options.private_key_file, server.options.private_key_id
        return None if path is None else client_signer(path, key_id, self.clock, self.entropy)

    def prover(self, proof_key: Secret | None) -> Prover | None:
        """Return what proves this key (RFC 9449); raises ConfigError, StoreCorrupt."""
        return None if proof_key is None else prover(proof_key, self.clock, self.entropy)
