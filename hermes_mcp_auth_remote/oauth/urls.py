"""Which URLs are ever shown, opened or fetched: https, or http on loopback. MCP security best practices."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from unicodedata import normalize
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from hermes_mcp_auth_remote.errors import UnsafeUrl

# Longer than any authorization URL that a browser or proxy is sure to take.
MAX_URL_CHARS = 8192
# RFC 1035 section 2.3.4. NFKC, which urlsplit applies to a host, makes 18 characters of some, and IDNA takes
# a millisecond for each hundred: so longer hosts are refused before both.
MAX_HOST_CHARS = 253
MAX_LABEL_CHARS = 63
# Host, brackets, colon and port; user information is refused anyway, but an error should say so.
_MAX_AUTHORITY_CHARS = 2 * MAX_HOST_CHARS
# As urlsplit finds it: what follows the first "//", up to a path, query or fragment.
_AUTHORITY = re.compile(r"[^/?#]*//([^/?#]*)")
# What urlsplit takes out before it looks.
_IGNORED_CHARS = re.compile(r"[\t\r\n]")
# The characters that IDNA takes for a dot (RFC 3490 section 3.1).
_DOT_CHARS = re.compile("[.\u3002\uff0e\uff61]")
_SAFE_CHARS = "!$%&'()*+,-./:;=?@_~[]"
# What is left of RFC 3986 section 3.2.2 once browsers had their say: no percent signs, which they decode.
_FORBIDDEN_CHARS = re.compile(r'[\x00-\x20\x7f\\<>"^`{|}]')
_HOST_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?")


def is_loopback_host(host: str) -> bool:
    """True for localhost, *.localhost, 127.0.0.0/8 and ::1 (RFC 6761 section 6.3, RFC 8252 section 8.3)."""
    name = host.lower().strip("[]").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def safe_url(text: str, label: str) -> str:
    """Parse and write out a URL that may be shown, opened and fetched; raises UnsafeUrl otherwise.

    https only, or http on loopback; no user information, no control characters, no white space, at most
    8192 characters. What comes out was put together again from its parts, so that no parser after us can
    read it differently (CVE-2025-6514 began with an `authorization_endpoint`).
    """
    return urlunsplit(_check_url(text, label))


def endpoint_url(text: str, label: str, issuer: str) -> str:
    """Return the safe URL of an issuer's endpoint; raises UnsafeUrl, also for one on loopback alone.

    Else a server far away could have this machine's browser ask something of this machine.
    """
    url = safe_url(text, label)
    if is_loopback_host(host_of(url)) and not is_loopback_host(host_of(issuer)):
        raise UnsafeUrl(f"The {label} is on this machine, but the issuer is not.")
    return url


def is_safe_url(text: str) -> bool:
    """True where `safe_url` takes it."""
    try:
        return bool(safe_url(text, "address"))
    except UnsafeUrl:
        return False


def is_uri(text: str) -> bool:
    """True where it can be taken apart and has a scheme, any scheme: what a redirect URI must at least be."""
    try:
        parts = split_url(text)
        return bool(parts.scheme) and (parts.port is None or parts.port >= 0)
    except ValueError:
        return False


def split_url(text: str) -> SplitResult:
    """Split a URL of any shape as urlsplit does, in bounded time; raises ValueError, also for a long host."""
    authority = _AUTHORITY.match(_IGNORED_CHARS.sub("", text))
    if authority is not None and len(authority[1]) > _MAX_AUTHORITY_CHARS:
        message = "a URL's host is too long"
        raise ValueError(message)
    return urlsplit(text)


def _check_url(text: str, label: str) -> SplitResult:
    if len(text) > MAX_URL_CHARS:
        raise UnsafeUrl(f"The {label} is longer than {MAX_URL_CHARS} characters.")
    if _FORBIDDEN_CHARS.search(text):
        raise UnsafeUrl(f"The {label} contains characters that no URL may hold.")
    taken_apart = _parse_url(text)
    if taken_apart is None:
        raise UnsafeUrl(f"The {label} is not a URL.")
    parts, host, port = taken_apart
    scheme = parts.scheme.lower()
    if not host or (scheme not in {"https", "http"}):
        raise UnsafeUrl(f"The {label} is not an https URL.")
    if scheme == "http" and not is_loopback_host(host):
        raise UnsafeUrl(f"The {label} is plain http; only https is safe away from this machine.")
    if parts.username is not None or parts.password is not None:
        raise UnsafeUrl(f"The {label} carries user information before its host.")
    if not _is_valid_host(host):
        raise UnsafeUrl(f"The {label} names no host that every program reads alike.")
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != {"https": 443, "http": 80}[scheme]:
        netloc += f":{port}"
    path, query, fragment = (
        quote(part, safe=_SAFE_CHARS) for part in (parts.path, parts.query, parts.fragment)
    )
    return SplitResult(scheme, netloc, path, query, fragment)


def _parse_url(text: str) -> tuple[SplitResult, str, int | None] | None:
    """Return a URL's parts, host and port; None if it is no URL.

    The library's ValueError quotes the URL: it must not become the context of an error of ours.
    """
    try:
        parts = split_url(text)
        text.encode()  # lone surrogates are in no encoding
        return parts, _ascii_host(parts), parts.port
    except ValueError:
        return None


def _ascii_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    # NFKC is the first step of IDNA, and the quick one.
    labels = _DOT_CHARS.split(host if host.isascii() else normalize("NFKC", host[: MAX_HOST_CHARS + 1]))
    if len(host) > MAX_HOST_CHARS or any(len(label) > MAX_LABEL_CHARS for label in labels):
        message = "a URL's host is too long"
        raise ValueError(message)
    # IDNA maps full-width letters and the like, and may leave capitals.
    return host if host.isascii() else host.encode("idna").decode("ascii").lower()


def _is_valid_host(host: str) -> bool:
    if ":" not in host:
        return _HOST_NAME.fullmatch(host) is not None
    try:
        return IPv6Address(host).scope_id is None
    except ValueError:
        return False


def host_of(url: str) -> str:
    """Return a URL's host (ASCII, without port), for people to compare; "" where there is none."""
    try:
        # ASCII, or a Cyrillic letter passes for a Latin one.
        return _ascii_host(split_url(url))
    except ValueError:
        return ""


def origin_of(url: str) -> str:
    """Return scheme, host and port of a safe URL, in lower case and without a default port."""
    parts = _check_url(url, "address")
    return f"{parts.scheme}://{parts.netloc}"


def is_trusted_issuer(published_issuer: str, requested_issuer: str, trusted_issuers: frozenset[str]) -> bool:
    """True where `asked` may speak as `named`: that is listed, and `asked` is too or is of its origin.

    Whom we ask is named by a server that may be hostile. If the issuer it claims to be were enough, any
    server could borrow the name of one that its operator trusts, and have the codes and secrets meant for it.
    """
    asked_spellings, named_spellings = (
        {url, safe_url(url, "issuer")} for url in (requested_issuer, published_issuer)
    )
    if not named_spellings & trusted_issuers:
        return False
    return origin_of(published_issuer) == origin_of(requested_issuer) or bool(
        asked_spellings & trusted_issuers
    )


def canonical_resource(url: str) -> str:
    """Return the resource indicator of a server's URL (RFC 8707 section 2): no fragment, no bare slash."""
    parts = _check_url(url, "server address")
    path = "" if parts.path == "/" else parts.path
    return urlunsplit(parts._replace(path=path, fragment=""))


def covers_url(resource: str, url: str) -> bool:
    """True where a protected resource's identifier is the server's URL, its origin, or a parent path.

    RFC 9728 section 3.3 wants equality; servers with several endpoints publish their origin (quirk 10).
    """
    ours, theirs = urlsplit(canonical_resource(url)), urlsplit(canonical_resource(resource))
    if (ours.scheme, ours.netloc) != (theirs.scheme, theirs.netloc):
        return False
    if theirs.query and theirs.query != ours.query:
        return False
    parent = theirs.path.rstrip("/")
    return ours.path.rstrip("/") == parent or ours.path.startswith(parent + "/")


def well_known_url(url: str, name: str) -> str:
    """Insert `/.well-known/<name>` between host and path, keeping both (RFC 8414 §3.1, RFC 9728 §3.1)."""
    parts = _check_url(url, "address")
    return urlunsplit(parts._replace(path=f"/.well-known/{name}{parts.path.rstrip('/')}", fragment=""))


def appended_well_known_url(url: str, name: str) -> str:
    """Append `/.well-known/<name>` to the path (OpenID Connect Discovery 1.0 section 4)."""
    parts = _check_url(url, "address")
    path = f"{parts.path.rstrip('/')}/.well-known/{name}"
    return urlunsplit(parts._replace(path=path, query="", fragment=""))


def protected_resource_urls(server_url: str) -> tuple[str, ...]:
    """List the well-known places of a server's protected resource metadata, in the MCP specification's order.

    RFC 9728 section 3.1 keeps the query, but many a server files by path alone (quirk 12).
    """
    by_path = well_known_url(server_url, "oauth-protected-resource")
    root = well_known_url(origin_of(server_url), "oauth-protected-resource")
    return tuple(dict.fromkeys((by_path, by_path.partition("?")[0], root)))


def authorization_server_urls(issuer: str) -> tuple[str, ...]:
    """List the places of an issuer's metadata, in the order that the MCP specification demands."""
    rfc8414 = well_known_url(issuer, "oauth-authorization-server")
    inserted = well_known_url(issuer, "openid-configuration")
    appended = appended_well_known_url(issuer, "openid-configuration")
    return tuple(dict.fromkeys((rfc8414, inserted, appended)))
