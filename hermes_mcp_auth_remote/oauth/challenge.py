"""WWW-Authenticate -> Challenge: what a 401 or 403 tells us. RFC 9110 §11.6.1, RFC 6750 §3, RFC 9728 §5.1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from hermes_mcp_auth_remote.oauth.wire import parse_scope

# Beyond it, in all lines together, it is an attack, not a challenge; also bounds the scanner below.
MAX_HEADER_CHARS = 16_384
# Words, parameters and separators in all lines together: a challenge has a dozen.
MAX_TOKENS = 1000
# Each one costs a request; nobody is known to send more than two.
MAX_RESOURCE_METADATA_URLS = 4

# auth-param = token BWS "=" BWS ( token / quoted-string ); single quotes are in the field (quirk 9).
_AUTH_PARAM = re.compile(
    r"""([A-Za-z0-9!#$%&'*+.^_`|~-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s,"']+))"""
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*)(?=[ \t,]|$)")
_SEPARATOR = re.compile(r"[\s,]+")
_JUNK = re.compile(r"[^\s,]+")


@dataclass(frozen=True, slots=True)
class Challenge:
    """A Bearer challenge: where the metadata is, which scope is needed, what was wrong.

    `resource_metadata` has every value in the order given (quirk 8); `scope` is None where the server names
    none; `is_dpop_only` is True if the server names DPoP and not Bearer (RFC 9449 section 7.1). The default
    is what we know before any server spoke.
    """

    resource_metadata: tuple[str, ...] = ()
    scope: frozenset[str] | None = None
    error: str | None = None
    is_dpop_only: bool = False

    @property
    def has_insufficient_scope(self) -> bool:
        """True for a 403 that a wider scope would cure (RFC 6750 section 3.1)."""
        return self.error == "insufficient_scope"


def read_challenge(header_lines: Iterable[str]) -> Challenge:
    """Read the WWW-Authenticate header lines of one response; never raises.

    Only the Bearer scheme counts (a DPoP challenge carries the same parameters and counts too). Odd spaces,
    single quotes, several schemes in one line and several lines are all in the field (quirk 9).
    """
    metadata: list[str] = []
    scopes: list[str] = []
    error: str | None = None
    schemes: set[str] = set()
    for scheme, name, value in islice(_iter_tokens(header_lines), MAX_TOKENS):
        if scheme not in {"bearer", "dpop"}:
            continue
        schemes.add(scheme)
        if name == "resource_metadata" and value and value not in metadata:
            if len(metadata) < MAX_RESOURCE_METADATA_URLS:
                metadata.append(value)
        elif name == "scope":
            scopes.append(value)
        elif name == "error" and error is None:
            error = value
    return Challenge(tuple(metadata), parse_scope(" ".join(scopes)) or None, error, schemes == {"dpop"})


def _iter_tokens(header_lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    left = MAX_HEADER_CHARS
    for line in header_lines:
        if left <= 0:
            return
        # A line costs as much as a word, even an empty one.
        yield "", "", ""
        yield from _iter_parameters(line[:left])
        left -= len(line)


def _iter_parameters(header_line: str) -> Iterator[tuple[str, str, str]]:
    """Walk one header line: yields (scheme, name, value), the names in lower case.

    A scheme, and what is no parameter, comes with an empty name: the caller counts the steps.
    """
    scheme, position = "", 0
    while position < len(header_line):
        if found := _SEPARATOR.match(header_line, position):
            position = found.end()
            yield scheme, "", ""
        elif found := _AUTH_PARAM.match(header_line, position):
            quoted, single, bare = found.group(2, 3, 4)
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else (single or bare or "")
            yield scheme, found.group(1).lower(), value.strip()
            position = found.end()
        elif found := _SCHEME.match(header_line, position):
            scheme = found.group(1).lower()
            position = found.end()
            yield scheme, "", ""
        else:
            # A whole word at a time, or a long one would cost quadratic time.
            junk = _JUNK.match(header_line, position)
            position = junk.end() if junk else position + 1
            yield scheme, "", ""
