"""Which proxy a request goes through: HTTPS_PROXY, ALL_PROXY and NO_PROXY, as curl and Go read them."""

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

    Loopback is never asked of a proxy: it means this machine, and the proxy would ask its own. Nothing else
    is fetched over plain http, so HTTP_PROXY is never read, which a CGI request's header can set (httpoxy).
    """
    if is_loopback_host(host_of(url)) or _is_exempt(url, _read_variable("no_proxy", environ)):
        return None
    text = _read_variable("https_proxy", environ) or _read_variable("all_proxy", environ)
    if not text:
        return None
    if "://" not in text:
        text = f"http://{text}"
    try:
        where = urlsplit(text)
        usual_port = _DEFAULT_PORTS[where.scheme]
        port = usual_port if where.port is None else where.port
        host = (where.hostname or "").encode("ascii")
    except (ValueError, KeyError):
        raise _unusable_proxy_error() from None
    if not host or not port:
        raise _unusable_proxy_error()
    scheme = where.scheme.removesuffix("h") if where.scheme.startswith("socks") else where.scheme
    if scheme == "socks5" and find_spec("socksio") is None:
        raise ConfigError("The proxy in the environment speaks SOCKS.", "Run `pip install httpcore[socks]`.")
    user, password = (unquote(part or "").encode() for part in (where.username, where.password))
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
    # The lower-case spelling wins, also where it is empty: that is how a user turns one off.
    return environ.get(name, environ.get(name.upper(), "")).strip()


def _is_exempt(url: str, no_proxy: str) -> bool:
    host, port = host_of(url).rstrip("."), urlsplit(url).port or 443
    return any(_matches(entry, host, port) for entry in re.split(r"[\s,]+", no_proxy.lower()) if entry)


def _matches(entry: str, host: str, port: int) -> bool:
    """True for `*`, a domain (leading `*` and dots say nothing), an address, a network; a port may follow."""
    if entry == "*":
        return True
    address = parse_ip_literal(host)
    try:
        # Host bits are forgiven, as in 10.1.2.3/8.
        network = ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    else:
        return address is not None and address in network
    name, colon, wanted = entry.rpartition(":")
    if not colon:
        name = entry
    elif wanted != str(port):
        return False
    if address is not None:
        return parse_ip_literal(name) == address
    suffix = host_of(f"https://{name.lstrip('*').strip('.')}")
    return suffix != "" and (host == suffix or host.endswith(f".{suffix}"))
