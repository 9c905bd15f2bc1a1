"""Normalize host names for comparison."""

from __future__ import annotations

import re

# RFC 1035 section 2.3.4.
MAX_HOST_NAME_CHARS = 253
_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
# Resolvers read these as IPv4 addresses (inet_aton): 127.1, 0x7f000001.
_IPV4_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


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
    if _IPV4_NUMBER.fullmatch(name.rpartition(".")[2]):
        message = "an address, not a host name"
        raise ValueError(message)
    return name


def is_listed_host(host: str, host_names: frozenset[str]) -> bool:
    """True if `host` is one of `host_names`, which `normalize_host_name` returned."""
    try:
        return normalize_host_name(host) in host_names
    except ValueError:
        return False
