"""Decide which network addresses may be reached, to prevent SSRF. RFC 9728 §7.7, MCP security best practices.

Untrusted metadata names the hosts of requests. Therefore a host name is resolved once, this module checks its
addresses, and the connection uses the checked address.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from hermes_mcp_auth_remote.errors import ConfigError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Private networks: RFC 1918, RFC 6598 (carrier-grade NAT, Tailscale), RFC 4193.
_INTRANET = tuple(
    ip_network(n) for n in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
# Cloud metadata services, which give credentials to any client. Some lie inside private or public ranges.
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
# The IPv6 range that IANA allocates from. The rest is local, reserved or contains IPv4 addresses.
_PUBLIC_IPV6 = ip_network("2000::/3")
# RFC 6890 and RFC 9637: protocol assignments and documentation. Some supported Python versions do not know
# them.
_RESERVED = tuple(ip_network(n) for n in ("192.0.0.0/24", "3fff::/20"))
_NAT64 = ip_network("64:ff9b::/96")
# Fake-IP DNS (Clash, Surge, sing-box) answers with addresses of RFC 2544, which no host on the internet has.
# sing-box can also answer with IPv6, in a range that RFC 4193 section 3.2 leaves undefined.
_FAKE_IPV4, _FAKE_IPV6 = ip_network("198.18.0.0/15"), ip_network("fc00::/18")


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """The addresses besides the public internet that may be reached: loopback, and the operator's list."""

    allows_loopback: bool = False
    allowed_networks: tuple[Network, ...] = ()

    def allows(self, address: Address) -> bool:
        """True if a connection to this address is allowed."""
        unwrapped = unwrap_ipv4(address)
        if any(form in network for network in self.allowed_networks for form in (address, unwrapped)):
            return True
        if unwrapped.is_loopback:
            return self.allows_loopback
        return _is_public(unwrapped)


def read_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse IP addresses and networks from the configuration; raises ConfigError."""
    try:
        return tuple(ip_network(text.strip(), strict=False) for text in texts)
    except ValueError:
        raise ConfigError(
            "`oauth.allow_addresses` contains an entry that is not an address or network.",
            "Write addresses or networks such as 10.1.2.3 or 10.0.0.0/8.",
        ) from None


def is_intranet(address: Address) -> bool:
    """True for a private address (RFC 1918, RFC 6598, RFC 4193), except those of cloud metadata services."""
    unwrapped = unwrap_ipv4(address)
    return unwrapped not in _CLOUD_METADATA and any(unwrapped in network for network in _INTRANET)


def is_cloud_metadata(address: Address) -> bool:
    """True for the address of a cloud metadata service, which gives out credentials."""
    return unwrap_ipv4(address) in _CLOUD_METADATA


def find_fake_addresses(addresses: Iterable[Address]) -> list[Address]:
    """Return the addresses of a name that fake-IP DNS has made up. They belong to no host.

    A VPN or proxy program on this machine or its router sends the connection to the host's real address,
    which it resolves itself. An IPv6 address counts only if the name also has a fake IPv4 address.
    """
    all_addresses = list(addresses)
    fake_ipv4 = [address for address in all_addresses if unwrap_ipv4(address) in _FAKE_IPV4]
    return fake_ipv4 and fake_ipv4 + [address for address in all_addresses if address in _FAKE_IPV6]


def _is_public(address: Address) -> bool:
    if address.is_multicast or not address.is_global or address in _CLOUD_METADATA:
        return False
    if any(address in network for network in _RESERVED):
        return False
    return address.version == 4 or address in _PUBLIC_IPV6


def unwrap_ipv4(address: Address) -> Address:
    """Return the IPv4 address inside an IPv6 address (mapped, 6to4, Teredo, NAT64), else the address."""
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
    """Return the address if a host is an IP literal, None for a name or an unusual spelling of an address."""
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None
