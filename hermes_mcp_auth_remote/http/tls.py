"""The operator's network: certificate authorities and proxies, from the configuration and the environment."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import certifi
import httpcore

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host
from hermes_mcp_auth_remote.values import ServerOptions


def tls_context(options: ServerOptions, environ: Mapping[str, str], *, own_host: bool) -> ssl.SSLContext:
    """Return the TLS context for a connection; raises ConfigError for files that cannot be used.

    Trusted are `ca_file`, else SSL_CERT_FILE and SSL_CERT_DIR, else the system's authorities and certifi's.
    `own_host` is True for the MCP server's own host: only there a client certificate is shown, and only
    there `ssl_verify: false` counts.
    """
    return _context(
        options.ca_file,
        environ.get("SSL_CERT_FILE") or None,
        environ.get("SSL_CERT_DIR") or None,
        (options.client_cert, options.client_key) if own_host else (None, None),
        verify=options.verify_tls or not own_host,
    )


@lru_cache(maxsize=32)  # 17 ms each, and shareable
def _context(
    ca_file: str | None,
    env_file: str | None,
    env_dir: str | None,
    client: tuple[str | None, str | None],
    *,
    verify: bool,
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        if ca_file:
            context.load_verify_locations(Path(ca_file).expanduser())
        elif env_file or env_dir:
            context.load_verify_locations(env_file, env_dir)
        else:
            # Either may be missing: a container has no system store, a company's CA is in no package.
            context.load_default_certs()
            context.load_verify_locations(certifi.where())
        if client[0]:
            key = Path(client[1]).expanduser() if client[1] else None
            context.load_cert_chain(Path(client[0]).expanduser(), key)
    except (OSError, ssl.SSLError):
        raise ConfigError(
            "A certificate file that this server is configured with cannot be used.",
            "Check `ssl_verify`, `client_cert`, `client_key`, SSL_CERT_FILE and SSL_CERT_DIR.",
        ) from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def proxy_for(url: str, environ: Mapping[str, str]) -> httpcore.Proxy | None:
    """Return the proxy for a URL by HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY; raises ConfigError.

    Loopback is never asked of a proxy: it means this machine, and the proxy would ask its own.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback_host(host) or _is_exempt(host, parts.port, environ):
        return None
    names = (f"{parts.scheme}_proxy", "all_proxy")
    proxy = next((v for n in names if (v := environ.get(n) or environ.get(n.upper()))), None)
    if proxy is None:
        return None
    where = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        port = where.port or {"http": 80, "https": 443}.get(where.scheme, 1080)
    except ValueError:
        port = 0
    if where.scheme not in {"http", "https", "socks5", "socks5h"} or not where.hostname or not port:
        raise ConfigError(
            "The proxy in the environment is not an address that can be used.",
            "Set HTTPS_PROXY to an address such as http://proxy.example:3128.",
        )
    if where.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ConfigError("The proxy in the environment speaks SOCKS.", "Run `pip install httpcore[socks]`.")
    shown = f"[{where.hostname}]" if ":" in where.hostname else where.hostname
    auth = (unquote(where.username), unquote(where.password or "")) if where.username else None
    return httpcore.Proxy(f"{where.scheme.removesuffix('h')}://{shown}:{port}", auth=auth)


def _is_exempt(host: str, port: int | None, environ: Mapping[str, str]) -> bool:
    entries = (environ.get("no_proxy") or environ.get("NO_PROXY") or "").split(",")
    for entry in (entry.strip().lower() for entry in entries):
        if not entry:
            continue
        name, _, wanted = entry.partition(":") if entry.count(":") == 1 else (entry, "", "")
        suffix = name.lstrip("*").lstrip(".")
        matches = entry == "*" or host == suffix or (bool(suffix) and host.endswith(f".{suffix}"))
        if matches and (not wanted or wanted == str(port)):
            return True
    return False
