"""Check which URLs may be shown, opened or fetched: https, or http on loopback (MCP security practices)."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from unicodedata import normalize
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from hermes_mcp_auth_remote.errors import UnsafeUrl
from hermes_mcp_auth_remote.oauth.host_names import is_strict_host, unmap_ipv4

# Not all browsers and proxies accept longer URLs.
MAX_URL_CHARS = 8192
# RFC 1035 section 2.3.4. urlsplit applies NFKC to a host, which turns one character into up to 18 characters.
# IDNA takes a millisecond for each hundred characters. So refuse longer hosts before both steps.
MAX_HOST_CHARS = 253
MAX_LABEL_CHARS = 63
# Host, brackets, colon and port. The limit leaves room for user information, which has its own error message.
_MAX_AUTHORITY_CHARS = 2 * MAX_HOST_CHARS
# The authority as urlsplit finds it: the text after the first "//", up to a path, query or fragment.
_AUTHORITY = re.compile(r"[^/?#]*//([^/?#]*)")
# urlsplit removes these first.
_IGNORED_CHARS = re.compile(r"[\t\r\n]")
# IDNA reads these characters as a dot (RFC 3490 section 3.1).
_DOT_CHARS = re.compile("[.\u3002\uff0e\uff61]")
_SAFE_CHARS = "!$%&'()*+,-./:;=?@_~[]"
_FORBIDDEN_CHARS = re.compile(r'[\x00-\x20\x7f\\<>"^`{|}]')
# The part of the host syntax of RFC 3986 section 3.2.2 that all browsers accept. It has no percent sign,
# because browsers decode percent signs.
_HOST_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*\.?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_DAMAGED_SCHEME = re.compile(r"https?:/?|https?//|//", re.IGNORECASE)


def is_loopback_host(host: str) -> bool:
    """True for localhost, *.localhost, 127.0.0.0/8 and ::1 (RFC 6761 section 6.3, RFC 8252 section 8.3).

    Also true for mapped addresses (::ffff:127.0.0.1). `safe_url` refuses other spellings (127.1).
    """
    name = host.lower().strip("[]").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return unmap_ipv4(ip_address(name)).is_loopback
    except ValueError:
        return False


def safe_url(text: str, label: str) -> str:
    """Return a normalized URL that may be shown, opened and fetched; raises UnsafeUrl otherwise.

    A safe URL is https, or http on loopback. It has no user information, no control characters, no white
    space and at most 8192 characters. `label` names the URL in the error. The result is built from the
    parsed parts, so that no later parser reads it differently (CVE-2025-6514 used an
    `authorization_endpoint`).
    """
    return urlunsplit(_check_url(text, label))


def endpoint_url(text: str, label: str, issuer: str) -> str:
    """Return the safe URL of an issuer's endpoint; raises UnsafeUrl.

    Also raises UnsafeUrl if only the endpoint is on loopback: a remote server must not make the user's
    browser send requests to this machine.
    """
    url = safe_url(text, label)
    if is_loopback_host(host_of(url)) and not is_loopback_host(host_of(issuer)):
        raise UnsafeUrl(f"The {label} is on this machine, but the issuer is not.")
    return url


def is_safe_url(text: str) -> bool:
    """True if `safe_url` accepts the text."""
    try:
        return bool(safe_url(text, "address"))
    except UnsafeUrl:
        return False


def add_scheme(text: str) -> str | None:
    """Return the safe URL that an address without its scheme means (`host/path`).

    Returns None if the text has a scheme or is no address. A single word is an address only if it has a port
    or looks like the name of a host with a domain.
    """
    text = text.strip()
    if _SCHEME.match(text):
        return None
    rest = _DAMAGED_SCHEME.sub("", text, count=1) if _DAMAGED_SCHEME.match(text) else text
    if not is_safe_url(f"https://{rest}"):
        return None
    parts, host = split_url(f"https://{rest}"), host_of(f"https://{rest}")
    top_level_domain = host.rpartition(".")[2] if "." in host else ""
    is_domain = top_level_domain.isalpha() and len(top_level_domain) > 1
    is_host = "." in host or is_loopback_host(host)
    if not (is_domain or parts.port is not None or (is_host and (parts.path or parts.query))):
        return None
    return f"{'http' if is_loopback_host(host) else 'https'}://{rest}"


def is_uri(text: str) -> bool:
    """True if the text is a URI with any scheme, the minimum for a redirect URI."""
    try:
        parts = split_url(text)
        return bool(parts.scheme) and (parts.port is None or parts.port >= 0)
    except ValueError:
        return False


def split_url(text: str) -> SplitResult:
    """Split any URL like urlsplit, in bounded time; raises ValueError, also for a host that is too long."""
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
    parsed = _parse_url(text)
    if parsed is None:
        raise UnsafeUrl(f"The {label} is not a URL.")
    parts, host, port = parsed
    scheme = parts.scheme.lower()
    if not host or (scheme not in {"https", "http"}):
        raise UnsafeUrl(f"The {label} is not an https URL.")
    if scheme == "http" and not is_loopback_host(host):
        raise UnsafeUrl(f"The {label} is plain http; only https is safe away from this machine.")
    if parts.username is not None or parts.password is not None:
        raise UnsafeUrl(f"The {label} carries user information before its host.")
    if not _is_valid_host(host) or not is_strict_host(host):
        raise UnsafeUrl(f"The {label} has a host that programs read in different ways.")
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != {"https": 443, "http": 80}[scheme]:
        netloc += f":{port}"
    path, query, fragment = (
        quote(part, safe=_SAFE_CHARS) for part in (parts.path, parts.query, parts.fragment)
    )
    return SplitResult(scheme, netloc, path, query, fragment)


def _parse_url(text: str) -> tuple[SplitResult, str, int | None] | None:
    """Return a URL's parts, host and port; None if it is no URL.

    The library's ValueError quotes the URL, so it must not become the context of this package's errors.
    """
    try:
        parts = split_url(text)
        text.encode()  # raises for lone surrogates
        return parts, _ascii_host(parts), parts.port
    except ValueError:
        return None


def _ascii_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    # NFKC is the first step of IDNA, and it is fast.
    labels = _DOT_CHARS.split(host if host.isascii() else normalize("NFKC", host[: MAX_HOST_CHARS + 1]))
    if len(host) > MAX_HOST_CHARS or any(len(label) > MAX_LABEL_CHARS for label in labels):
        message = "a URL's host is too long"
        raise ValueError(message)
    # IDNA maps full-width and similar letters, and may return capitals.
    return host if host.isascii() else host.encode("idna").decode("ascii").lower()


def _is_valid_host(host: str) -> bool:
    if ":" not in host:
        return _HOST_NAME.fullmatch(host) is not None
    try:
        return IPv6Address(host).scope_id is None
    except ValueError:
        return False


def host_of(url: str) -> str:
    """Return a URL's host (ASCII, without port), for people to compare; "" if it has none."""
    try:
        # In ASCII, a Cyrillic letter cannot look like a Latin one.
        return _ascii_host(split_url(url))
    except ValueError:
        return ""


def origin_of(url: str) -> str:
    """Return scheme, host and port of a safe URL, in lower case and without a default port."""
    parts = _check_url(url, "address")
    return f"{parts.scheme}://{parts.netloc}"


def is_trusted_issuer(published_issuer: str, requested_issuer: str, trusted_issuers: frozenset[str]) -> bool:
    """True if `requested_issuer` may publish metadata with `published_issuer` as its issuer.

    The published issuer must be trusted. The requested issuer must be trusted too, or have the same origin.
    A hostile MCP server can choose the requested issuer. If trust in the published issuer were enough, any
    server could claim a trusted issuer and receive the codes and secrets meant for it.
    """
    requested_spellings, published_spellings = (
        {url, safe_url(url, "issuer")} for url in (requested_issuer, published_issuer)
    )
    if not published_spellings & trusted_issuers:
        return False
    return origin_of(published_issuer) == origin_of(requested_issuer) or bool(
        requested_spellings & trusted_issuers
    )


def canonical_resource(url: str) -> str:
    """Return the resource indicator of a URL, without fragment or bare slash (RFC 8707 section 2)."""
    parts = _check_url(url, "server address")
    path = "" if parts.path == "/" else parts.path
    return urlunsplit(parts._replace(path=path, fragment=""))


def is_same_address(url: str, other_url: str) -> bool:
    """True if two URLs are the address of one server; False if one of them is no safe URL.

    The letter case of the host, a default port, a bare slash and a fragment make no difference. The query
    makes one: some servers select a project or an account by it, and RFC 8707 section 2 lets a resource have
    a query. Tokens for one query must not go to another. Even the order of parameters can matter to a server,
    so the queries are compared as text.
    """
    try:
        canonical_url = canonical_resource(url)
        return url == other_url or canonical_url == canonical_resource(other_url)
    except UnsafeUrl:
        return False


def covers_url(resource: str, url: str) -> bool:
    """True if a protected resource's identifier is the server's URL, its origin, or a parent path.

    RFC 9728 section 3.3 requires equality, but servers with several endpoints publish their origin (quirk
    10).
    """
    url_parts, resource_parts = urlsplit(canonical_resource(url)), urlsplit(canonical_resource(resource))
    if (url_parts.scheme, url_parts.netloc) != (resource_parts.scheme, resource_parts.netloc):
        return False
    if resource_parts.query and resource_parts.query != url_parts.query:
        return False
    parent = resource_parts.path.rstrip("/")
    return url_parts.path.rstrip("/") == parent or url_parts.path.startswith(parent + "/")


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
    """List the well-known URLs of a server's protected resource metadata, in the MCP specification's order.

    RFC 9728 section 3.1 keeps the query, but many servers publish by path alone (quirk 12).
    """
    by_path = well_known_url(server_url, "oauth-protected-resource")
    root = well_known_url(origin_of(server_url), "oauth-protected-resource")
    return tuple(dict.fromkeys((by_path, by_path.partition("?")[0], root)))


def authorization_server_urls(issuer: str) -> tuple[str, ...]:
    """List the well-known URLs of an issuer's metadata, in the MCP specification's order."""
    rfc8414 = well_known_url(issuer, "oauth-authorization-server")
    inserted = well_known_url(issuer, "openid-configuration")
    appended = appended_well_known_url(issuer, "openid-configuration")
    return tuple(dict.fromkeys((rfc8414, inserted, appended)))
