"""Which network addresses we connect to: the guard against SSRF. RFC 9728 §7.7, MCP security best practices.

Metadata tells us where to go, and metadata is written by strangers. So a name is resolved once, its
addresses are checked here, and the connection goes to the checked address itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from hermes_mcp_auth_remote.errors import ConfigError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# What an intranet is made of: RFC 1918, RFC 6598 (carrier-grade NAT, Tailscale), RFC 4193.
_INTRANET = tuple(
    ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The addresses beyond the public internet that may be reached: loopback, the intranet, a list.

    A server that the operator put on the intranet may have its authorization server there, one on loopback
    on loopback. Neither opens link-local addresses, where clouds keep their credentials.
    """

    loopback: bool = False
    intranet: bool = False
    networks: tuple[Network, ...] = ()

    def allows(self, address: Address) -> bool:
        """True where a connection to this very address may be made."""
        address = embedded(address)
        if any(address in network for network in self.networks if network.version == address.version):
            return True
        if address.is_loopback:
            return self.loopback
        if is_intranet(address):
            return self.intranet
        return address.is_global and not address.is_multicast


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Read addresses and networks as an operator writes them; raises ConfigError."""
    try:
        return tuple(ip_network(text.strip(), strict=False) for text in texts)
    except ValueError:
        raise ConfigError(
            "`oauth.allow_addresses` holds something that is no address or network.",
            "Write addresses or networks such as 10.1.2.3 or 10.0.0.0/8.",
        ) from None


def is_intranet(address: Address) -> bool:
    """True for an address of a private network: RFC 1918, RFC 6598, RFC 4193."""
    address = embedded(address)
    return any(address in network for network in _INTRANET if network.version == address.version)


def embedded(address: Address) -> Address:
    """Return the IPv4 address inside an IPv6 one (mapped, 6to4, Teredo, NAT64), else the address."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def literal(host: str) -> Address | None:
    """Return the address that a host is written as, None for a name. Odd spellings are names, and fail."""
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None
