"""What the service's parts share: the store, the way out, the clock, chance, and the flights under way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from hermes_mcp_auth_remote.oauth.client import Signer
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.service.cached_token import CachedToken
from hermes_mcp_auth_remote.service.shared_discovery import SharedDiscovery
from hermes_mcp_auth_remote.service.single_flight import SingleFlight
from hermes_mcp_auth_remote.signing import load_client_signer, load_prover
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS, TimeLimits
from hermes_mcp_auth_remote.values import Clock, Entropy, Origin, Secret, Server

T = TypeVar("T")


class ExchangeRunner(Protocol):
    """Runs an exchange over the network on behalf of a server (`http.client.run`)."""

    async def __call__(self, exchange: Exchange[T], server: Server) -> T:
        """Return what the exchange returns; raises what it raises."""
        ...


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The edges, handed in once by `AuthService`."""

    store: FileStore
    run_exchange: ExchangeRunner
    clock: Clock
    entropy: Entropy
    # Where a person may be given a code for another device; None: anywhere.
    device_platforms: frozenset[str] | None = None
    limits: TimeLimits = TIME_LIMITS
    shared_discovery: SharedDiscovery = field(default_factory=SharedDiscovery)
    refresh_flights: SingleFlight[CachedToken] = field(
        default_factory=lambda: SingleFlight("mcp-auth-refresh")
    )
    # Exchanging a code and storing what it brings: no Ctrl-C comes between.
    exchange_flights: SingleFlight[Credentials] = field(
        default_factory=lambda: SingleFlight("mcp-auth-exchange")
    )
    # Storing a login's tokens: in a thread of its own, where no Ctrl-C comes between.
    storing_flights: SingleFlight[Credentials | None] = field(
        default_factory=lambda: SingleFlight("mcp-auth-keep")
    )

    def allows_device(self, server: Server, origin: Origin) -> bool:
        """True where the operator lets a login of this server, asked for there, go by a device."""
        platforms = self.device_platforms
        return server.options.device and (platforms is None or origin.platform in platforms)

    def signer_for(self, server: Server) -> Signer | None:
        """Return what signs for this server's client, None without a key file. Raises ConfigError."""
        path, key_id = server.options.private_key_file, server.options.private_key_id
        return None if path is None else load_client_signer(path, key_id, self.clock, self.entropy)

    def prover_for(self, proof_key: Secret | None) -> Prover | None:
        """Return what proves this key (RFC 9449); raises ConfigError, StoreCorrupt."""
        return None if proof_key is None else load_prover(proof_key, self.clock, self.entropy)
