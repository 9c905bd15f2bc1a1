"""Choose the proxy for a request: HTTPS_PROXY, ALL_PROXY and NO_PROXY, read as curl and Go read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from ipaddress import ip_network
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.http.addresses import parse_ip_literal
from hermes_mcp_auth_remote.installation import install_command
from hermes_mcp_auth_remote.oauth.urls import host_of, is_loopback_host

if TYPE_CHECKING:
    import httpcore

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


def proxy_for(url: str, environ: Mapping[str, str]) -> httpcore.Proxy | None:
    """Return the proxy for a URL, None for a direct connection; raises ConfigError.

    A loopback URL never uses a proxy: the proxy would connect to its own machine. HTTP_PROXY is never read:
    only loopback URLs use plain http, and a header of a CGI request can set that variable (httpoxy).
    """
    proxy = read_proxy(url, environ)
    if proxy is None:
        return None
    if proxy.is_socks:
        check_socks_package("socksio", "httpcore[socks]")
    # A bot reads proxies at its start, and httpcore is not needed before the first request.
    import httpcore  # noqa: PLC0415

    return httpcore.Proxy(
        httpcore.URL(
            scheme=proxy.scheme.removesuffix("h").encode() if proxy.is_socks else proxy.scheme.encode(),
            host=proxy.host.encode("ascii"),
            port=proxy.port,
            target=b"/",
        ),
        auth=(proxy.user.encode(), proxy.password.encode()) if proxy.user or proxy.password else None,
    )


@dataclass(frozen=True, slots=True)
class ProxyAddress:
    """A proxy of the environment, for a library that connects by itself."""

    scheme: str
    host: str
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def is_socks(self) -> bool:
        """True if the proxy speaks SOCKS: libraries need another package for that."""
        return self.scheme.startswith("socks")

    def to_url(self) -> str:
        """Return the proxy's URL with its user and password."""
        credentials = (
            f"{quote(self.user, '')}:{quote(self.password, '')}@" if self.user or self.password else ""
        )
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{credentials}{host}:{self.port}"


def read_proxy(url: str, environ: Mapping[str, str]) -> ProxyAddress | None:
    """Return the address of the proxy for a URL, as `proxy_for` chooses it; raises ConfigError."""
    if is_loopback_host(host_of(url)) or _is_exempt(url, _read_variable("no_proxy", environ)):
        return None
    text = _read_variable("https_proxy", environ) or _read_variable("all_proxy", environ)
    if not text:
        return None
    if "://" not in text:
        text = f"http://{text}"
    try:
        proxy_url = urlsplit(text)
        default_port = _DEFAULT_PORTS[proxy_url.scheme]
        port = default_port if proxy_url.port is None else proxy_url.port
        host = (proxy_url.hostname or "").encode("ascii").decode("ascii")
    except (ValueError, KeyError):
        raise _unusable_proxy_error() from None
    if not host or not port:
        raise _unusable_proxy_error()
    user, password = (unquote(part or "") for part in (proxy_url.username, proxy_url.password))
    return ProxyAddress(proxy_url.scheme, host, port, user, password)


def check_socks_package(package: str, requirement: str) -> None:
    """Raise ConfigError with the pip command if the package for SOCKS proxies is missing."""
    if find_spec(package) is None:
        raise ConfigError(
            "The proxy in the environment is a SOCKS proxy.", f"Run `{install_command(requirement)}`."
        )


def check_httpx_proxies(environ: Mapping[str, str]) -> None:
    """Raise ConfigError if httpx would fail to start because of a proxy in the environment.

    httpx reads all of these variables at the start, even those that no request will use.
    """
    for name in ("https_proxy", "all_proxy", "http_proxy"):
        text = _read_variable(name, environ)
        if text and "://" in text:
            scheme = text.partition("://")[0].lower()
            if scheme not in _DEFAULT_PORTS:
                raise _unusable_proxy_error()
            if scheme.startswith("socks"):
                check_socks_package("socksio", "httpx[socks]")


def _unusable_proxy_error() -> ConfigError:
    return ConfigError(
        "The proxy in the environment is not an address that can be used.",
        "Set HTTPS_PROXY to an address such as http://proxy.example:3128.",
    )


def _read_variable(name: str, environ: Mapping[str, str]) -> str:
    # The lower-case variable wins even if it is empty: this is how a user turns a proxy off.
    return environ.get(name, environ.get(name.upper(), "")).strip()


def _is_exempt(url: str, no_proxy: str) -> bool:
    host, port = host_of(url).rstrip("."), urlsplit(url).port or 443
    return any(_matches(entry, host, port) for entry in re.split(r"[\s,]+", no_proxy.lower()) if entry)


def _matches(entry: str, host: str, port: int) -> bool:
    """True if an entry of NO_PROXY matches: `*`, a domain, an address or a network, with or without a port.

    A leading `*` or dot of a domain is ignored.
    """
    if entry == "*":
        return True
    address = parse_ip_literal(host)
    try:
        # strict=False accepts host bits, as in 10.1.2.3/8.
        network = ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    else:
        return address is not None and address in network
    name, colon, entry_port = entry.rpartition(":")
    if not colon:
        name = entry
    elif entry_port != str(port):
        return False
    if address is not None:
        return parse_ip_literal(name) == address
    suffix = host_of(f"https://{name.lstrip('*').strip('.')}")
    return suffix != "" and (host == suffix or host.endswith(f".{suffix}"))
