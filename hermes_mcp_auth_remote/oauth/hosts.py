"""Host names in the one form in which they are compared."""

from __future__ import annotations

import re

# RFC 1035 section 2.3.4. A label takes four bytes of UTF-8 per character at most.
MAX_HOST_NAME_CHARS = 253
_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
# Resolvers take these for IPv4 addresses (inet_aton): 127.1, 0x7f000001.
_IPV4_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


def normalize_host_name(text: str) -> str:
    """Return a host name in ASCII (IDNA), in lower case and without the root's dot.

    Raises ValueError for all else: an address in any spelling, a port, a scheme, a wildcard.
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
    """True if `host` is one of these names, which `host_name` returned."""
    try:
        return normalize_host_name(host) in host_names
    except ValueError:
        return False
