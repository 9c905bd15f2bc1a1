"""Read the WWW-Authenticate header of a 401 or 403. RFC 9110 §11.6.1, RFC 6750 §3, RFC 9728 §5.1."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from hermes_mcp_auth_remote.oauth.wire import parse_scope

# The length of all header lines together. A longer header is an attack. The limit also bounds the scan.
MAX_HEADER_CHARS = 16_384
# Words, parameters and separators in all header lines together; a real challenge has about twelve.
MAX_TOKENS = 1000
# Each URL costs a request. No known server sends more than two.
MAX_RESOURCE_METADATA_URLS = 4

# auth-param = token BWS "=" BWS ( token / quoted-string ). Some servers send single quotes (quirk 9).
_AUTH_PARAM = re.compile(
    r"""([A-Za-z0-9!#$%&'*+.^_`|~-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s,"']+))"""
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~-]*)(?=[ \t,]|$)")
_SEPARATOR = re.compile(r"[\s,]+")
_JUNK = re.compile(r"[^\s,]+")


@dataclass(frozen=True, slots=True)
class Challenge:
    """A Bearer challenge: the metadata URLs, the required scope and the error.

    `resource_metadata` has the values in the server's order (quirk 8). `scope` is None if the server names
    none. `is_dpop_only` is True if the server names DPoP and not Bearer (RFC 9449 section 7.1). A default
    Challenge stands for a server that sent no challenge.
    """

    resource_metadata: tuple[str, ...] = ()
    scope: frozenset[str] | None = None
    error: str | None = None
    is_dpop_only: bool = False
    # True if the server named the scheme Bearer or DPoP.
    has_scheme: bool = field(default=False, compare=False)

    @property
    def has_insufficient_scope(self) -> bool:
        """True if a token with a wider scope is needed (RFC 6750 section 3.1)."""
        return self.error == "insufficient_scope"


def read_challenge(header_lines: Iterable[str]) -> Challenge:
    """Read the WWW-Authenticate header lines of one response; never raises.

    Reads the schemes Bearer and DPoP, which have the same parameters, and `resource_metadata` of any scheme:
    an access proxy in front of the server has its own scheme (quirk 55). Accepts odd spaces, single quotes,
    several schemes in one line and several lines, because real servers send them (quirk 9).
    """
    metadata_urls: list[str] = []
    other_urls: list[str] = []
    scopes: list[str] = []
    error: str | None = None
    schemes: set[str] = set()
    for scheme, name, value in islice(_iter_tokens(header_lines), MAX_TOKENS):
        if scheme not in {"bearer", "dpop"}:
            if (
                scheme
                and name == "resource_metadata"
                and value
                and len(other_urls) < MAX_RESOURCE_METADATA_URLS
            ):
                other_urls.append(value)
            continue
        schemes.add(scheme)
        if name == "resource_metadata" and value and value not in metadata_urls:
            if len(metadata_urls) < MAX_RESOURCE_METADATA_URLS:
                metadata_urls.append(value)
        elif name == "scope":
            scopes.append(value)
        elif name == "error" and error is None:
            error = value
    # The URLs of Bearer and DPoP come first.
    urls = tuple(dict.fromkeys((*metadata_urls, *other_urls)))[:MAX_RESOURCE_METADATA_URLS]
    scope = parse_scope(" ".join(scopes)) or None
    return Challenge(urls, scope, error, schemes == {"dpop"}, has_scheme=bool(schemes))


def _iter_tokens(header_lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    remaining_chars = MAX_HEADER_CHARS
    for line in header_lines:
        if remaining_chars <= 0:
            return
        # Count a line like a word, even an empty line.
        yield "", "", ""
        yield from _iter_parameters(line[:remaining_chars])
        remaining_chars -= len(line)


def _iter_parameters(header_line: str) -> Iterator[tuple[str, str, str]]:
    """Yield (scheme, name, value) for each parameter of a header line, the names in lower case.

    Also yield an empty name for each scheme, separator or junk word, because the caller counts the steps.
    """
    scheme, position = "", 0
    while position < len(header_line):
        if match := _SEPARATOR.match(header_line, position):
            position = match.end()
            yield scheme, "", ""
        elif match := _AUTH_PARAM.match(header_line, position):
            quoted, single, bare = match.group(2, 3, 4)
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else (single or bare or "")
            yield scheme, match.group(1).lower(), value.strip()
            position = match.end()
        elif match := _SCHEME.match(header_line, position):
            scheme = match.group(1).lower()
            position = match.end()
            yield scheme, "", ""
        else:
            # Skip a whole word at a time: single characters would cost quadratic time.
            junk = _JUNK.match(header_line, position)
            position = junk.end() if junk else position + 1
            yield scheme, "", ""
