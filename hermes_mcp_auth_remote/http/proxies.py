"""Choose the proxy for a request: HTTPS_PROXY, ALL_PROXY and NO_PROXY, read as curl and Go read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from ipaddress import ip_network
from urllib.parse import unquote, urlsplit

import httpcore

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.http.addresses import parse_ip_literal
from hermes_mcp_auth_remote.oauth.urls import host_of, is_loopback_host

_DEFAULT_PORTS = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


def proxy_for(url: str, environ: Mapping[str, str]) -> httpcore.Proxy | None:
    """Return the proxy for a URL, None for a direct connection; raises ConfigError.

    A loopback URL never uses a proxy: the proxy would connect to its own machine. HTTP_PROXY is never read:
    only loopback URLs use plain http, and a header of a CGI request can set that variable (httpoxy).
    """
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
        host = (proxy_url.hostname or "").encode("ascii")
    except (ValueError, KeyError):
        raise _unusable_proxy_error() from None
    if not host or not port:
        raise _unusable_proxy_error()
    scheme = proxy_url.scheme
    if scheme.startswith("socks"):
        scheme = scheme.removesuffix("h")
    if scheme == "socks5" and find_spec("socksio") is None:
        raise ConfigError(
            "The proxy in the environment is a SOCKS proxy.", "Run `pip install 'httpcore[socks]'`."
        )
    user, password = (unquote(part or "").encode() for part in (proxy_url.username, proxy_url.password))
    return httpcore.Proxy(
        httpcore.URL(scheme=scheme.encode(), host=host, port=port, target=b"/"),
        auth=(user, password) if user or password else None,
    )


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
