"""What the parts of the service share: store, network, clock, entropy, limits and single flights."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from hermes_mcp_auth_remote.login import Login, login_time
from hermes_mcp_auth_remote.oauth.client import Signer
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.service.cached_token import CachedToken
from hermes_mcp_auth_remote.service.chat_advice import ChatAdvice
from hermes_mcp_auth_remote.service.shared_discovery import SharedDiscovery
from hermes_mcp_auth_remote.service.single_flight import SingleFlight
from hermes_mcp_auth_remote.signing import load_client_signer, load_prover
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.protocol import Store
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS, TimeLimits
from hermes_mcp_auth_remote.values import BootClock, BootTime, Clock, Entropy, Origin, Secret, Server

T = TypeVar("T")


class ExchangeRunner(Protocol):
    """Runs an exchange over the network on behalf of a server (`http.client.run_exchange`)."""

    async def __call__(self, exchange: Exchange[T], server: Server) -> T:
        """Return what the exchange returns; raises what it raises."""
        ...


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The dependencies of the service's parts; `AuthService` creates them once."""

    store: Store
    run_exchange: ExchangeRunner
    clock: Clock
    entropy: Entropy
    # The platforms on which the device flow is allowed; None: all.
    device_platforms: frozenset[str] | None = None
    limits: TimeLimits = TIME_LIMITS
    # None if the caller or a database provides the clock: then only that clock counts.
    boot_clock: BootClock | None = None
    # None: the store belongs to no HERMES_HOME, so there is no config.yaml.
    chat_advice: ChatAdvice | None = None
    shared_discovery: SharedDiscovery = field(default_factory=SharedDiscovery)
    refresh_flights: SingleFlight[CachedToken] = field(
        default_factory=lambda: SingleFlight("mcp-auth-refresh")
    )
    # Each flight exchanges a code and stores its tokens. Ctrl-C does not interrupt it.
    exchange_flights: SingleFlight[Credentials] = field(
        default_factory=lambda: SingleFlight("mcp-auth-exchange")
    )
    # Each flight stores the tokens of a login. Ctrl-C does not interrupt it.
    storing_flights: SingleFlight[Credentials | None] = field(
        default_factory=lambda: SingleFlight("mcp-auth-keep")
    )

    def login_time(self, login: Login) -> float:
        """Return the current time by the clock that set the times of a login, in epoch seconds."""
        return login_time(login, self.clock(), self.boot_time())

    def deadline_after(self, seconds: float) -> BootTime | None:
        """Return the boot time after this number of seconds, or None if the boot time is unknown."""
        boot_time = self.boot_time()
        return None if boot_time is None else replace(boot_time, seconds=boot_time.seconds + seconds)

    def boot_time(self) -> BootTime | None:
        """Return the time since the system started, None if it is unknown."""
        return None if self.boot_clock is None else self.boot_clock()

    def allows_device(self, server: Server, origin: Origin) -> bool:
        """True if the operator allows the device flow for logins of this server from this origin."""
        platforms = self.device_platforms
        return server.options.device and (platforms is None or origin.platform in platforms)

    def signer_for(self, server: Server) -> Signer | None:
        """Return the signer of this server's client, or None without a key file. Raises ConfigError."""
        path, key_id = server.options.private_key_file, server.options.private_key_id
        return None if path is None else load_client_signer(path, key_id, self.clock, self.entropy)

    def prover_for(self, proof_key: Secret | None) -> Prover | None:
        """Return the prover of this key (RFC 9449); raises ConfigError, StoreCorrupt."""
        return None if proof_key is None else load_prover(proof_key, self.clock, self.entropy)
