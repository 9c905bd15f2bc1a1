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
# Clouds hand credentials to whoever asks here; some of these stand amid an intranet's or the public range.
_CLOUD_METADATA = frozenset(
    ip_address(a)
    for a in (
        "169.254.169.254",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
    )
)
# All that IANA has given out of IPv6; the rest is local, reserved or IPv4 in disguise.
_PUBLIC_IPV6 = ip_network("2000::/3")
# RFC 6890 and RFC 9637: protocols and documentation, which not every Python that we run on knows of.
_RESERVED = tuple(ip_network(n) for n in ("192.0.0.0/24", "3fff::/20"))
_NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The addresses beyond the public internet that may be reached: loopback, the intranet, a list.

    A server that the operator put on the intranet may have its authorization server there, one on loopback
    on loopback. Neither opens link-local addresses or others where clouds keep their credentials.
    """

    allows_loopback: bool = False
    allows_intranet: bool = False
    allowed_networks: tuple[Network, ...] = ()

    def allows(self, address: Address) -> bool:
        """True where a connection to this very address may be made."""
        inner = unwrap_ipv4(address)
        if any(each in network for network in self.allowed_networks for each in (address, inner)):
            return True
        if inner.is_loopback:
            return self.allows_loopback
        return self.allows_intranet if is_intranet(inner) else _is_public(inner)


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
    """True for an address of a private network (RFC 1918, RFC 6598, RFC 4193) that serves no cloud's keys."""
    inner = unwrap_ipv4(address)
    return inner not in _CLOUD_METADATA and any(inner in network for network in _INTRANET)


def is_cloud_metadata(address: Address) -> bool:
    """True for an address where a cloud hands out credentials."""
    return unwrap_ipv4(address) in _CLOUD_METADATA


def _is_public(address: Address) -> bool:
    if address.is_multicast or not address.is_global or address in _CLOUD_METADATA:
        return False
    if any(address in network for network in _RESERVED):
        return False
    return address.version == 4 or address in _PUBLIC_IPV6


def unwrap_ipv4(address: Address) -> Address:
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


def parse_ip_literal(host: str) -> Address | None:
    """Return the address that a host is written as, None for a name. Odd spellings are names to resolve."""
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None
