"""Normalize host names for comparison, and tell names from addresses as browsers and resolvers do."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

# RFC 1035 section 2.3.4.
MAX_HOST_NAME_CHARS = 253
_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
# Resolvers (inet_aton) and browsers read a host as an IPv4 address if its last label is a decimal or
# hexadecimal number: 127.1, 0x7f000001, 2130706433 (WHATWG URL section 3.6, "ends in a number").
_IPV4_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# RFC 6890: "this host on this network". Connections to 0.0.0.0 reach this machine.
_UNSPECIFIED_IPV4 = IPv4Network("0.0.0.0/8")


def normalize_host_name(text: str) -> str:
    """Return a host name in ASCII (IDNA), in lower case and without a trailing dot.

    Raises ValueError for any other text: an IP address in any spelling, a port, a scheme, a wildcard.
    """
    if len(text) > MAX_HOST_NAME_CHARS + 1:
        message = "longer than a host name can be"
        raise ValueError(message)
    name = text if text.isascii() else text.encode("idna").decode("ascii")
    name = name.lower().removesuffix(".")
    if len(name) > MAX_HOST_NAME_CHARS or not _HOST_NAME.fullmatch(name):
        message = "not a host name"
        raise ValueError(message)
    if ends_in_number(name):
        message = "an address, not a host name"
        raise ValueError(message)
    return name


def is_listed_host(host: str, host_names: frozenset[str]) -> bool:
    """True if `host` is one of `host_names`, which `normalize_host_name` returned."""
    try:
        return normalize_host_name(host) in host_names
    except ValueError:
        return False


def ends_in_number(host: str) -> bool:
    """True if browsers and resolvers read an ASCII host as an IPv4 address, or refuse it."""
    return _IPV4_NUMBER.fullmatch(host.lower().removesuffix(".").rpartition(".")[2]) is not None


def is_strict_host(host: str) -> bool:
    """True if all programs read an ASCII host (an IPv6 address without brackets) as the same name or address.

    A host that ends in a number must be four decimal numbers without leading zeros. The unspecified address
    is refused: browsers and the system connect to this machine instead.
    """
    if ":" not in host and not ends_in_number(host):
        return True
    try:
        address = unmap_ipv4(ip_address(host))
    except ValueError:
        return False
    return not address.is_unspecified and address not in _UNSPECIFIED_IPV4


def unmap_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """Return the IPv4 address inside a mapped IPv6 address (::ffff:127.0.0.1), else the address itself."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
