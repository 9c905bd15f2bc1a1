"""WWW-Authenticate -> Challenge: what a 401 or 403 tells us. RFC 9110 §11.6.1, RFC 6750 §3, RFC 9728 §5.1."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hermes_mcp_auth_remote.oauth.wire import scope_set

# Beyond it, in all lines together, it is an attack, not a challenge; also bounds the scanner below.
MAX_HEADER_CHARS = 16_384
# Each one costs a request; nobody is known to send more than two.
MAX_RESOURCE_METADATA = 4

# auth-param = token BWS "=" BWS ( token / quoted-string ); single quotes are in the field (quirk 9).
_PARAM = re.compile(
    r"""([A-Za-z0-9!#$%&'*+.^_`|~-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s,"']+))"""
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*)(?=[ \t,]|$)")
_SEPARATOR = re.compile(r"[\s,]+")
_JUNK = re.compile(r"[^\s,]+")


@dataclass(frozen=True, slots=True)
class Challenge:
    """A Bearer challenge: where the metadata is, which scope is needed, what was wrong.

    `resource_metadata` has every value in the order given (quirk 8); `scope` is None where the server names
    none; `dpop` is True where it takes tokens with proofs (RFC 9449 section 7.1). The default is what we know
    before any server spoke.
    """

    resource_metadata: tuple[str, ...] = ()
    scope: frozenset[str] | None = None
    error: str | None = None
    dpop: bool = False

    @property
    def insufficient_scope(self) -> bool:
        """True for a 403 that a wider scope would cure (RFC 6750 section 3.1)."""
        return self.error == "insufficient_scope"


def read_challenge(headers: Iterable[str]) -> Challenge:
    """Read the WWW-Authenticate header lines of one response; never raises.

    Only the Bearer scheme counts (a DPoP challenge carries the same parameters and counts too). Odd spaces,
    single quotes, several schemes in one line and several lines are all in the field (quirk 9).
    """
    metadata: list[str] = []
    scope: frozenset[str] | None = None
    error: str | None = None
    dpop = False
    left = MAX_HEADER_CHARS
    for line in headers:
        read, left = line[:left], max(0, left - len(line))
        for scheme, name, value in _parameters(read):
            if scheme not in {"bearer", "dpop"}:
                continue
            dpop = dpop or scheme == "dpop"
            if name == "resource_metadata" and value and value not in metadata:
                metadata.append(value)
            elif name == "scope" and (named := scope_set(value)):
                scope = named | (scope or scope_set(""))
            elif name == "error" and error is None:
                error = value
    return Challenge(tuple(metadata[:MAX_RESOURCE_METADATA]), scope, error, dpop)


def _parameters(line: str) -> Iterable[tuple[str, str, str]]:
    """Walk one header line: yields (scheme, name, value), the names in lower case."""
    scheme, position = "", 0
    while position < len(line):
        if found := _SEPARATOR.match(line, position):
            position = found.end()
        elif found := _PARAM.match(line, position):
            quoted, single, bare = found.group(2, 3, 4)
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else (single or bare or "")
            yield scheme, found.group(1).lower(), value.strip()
            position = found.end()
        elif found := _SCHEME.match(line, position):
            scheme = found.group(1).lower()
            position = found.end()
        else:
            # A whole word at a time, or a long one would cost quadratic time.
            junk = _JUNK.match(line, position)
            position = junk.end() if junk else position + 1
