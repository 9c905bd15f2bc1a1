"""Which redirect URI a login uses: configured, registered before, or on a new port. RFC 8252 §7.3."""

from __future__ import annotations

from urllib.parse import urlsplit

from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host
from hermes_mcp_auth_remote.values import Entropy, Server, ServerOptions

CALLBACK_PATH = "/callback"
_DEFAULT_HOST = ServerOptions().redirect_host


def redirect_uri_for(server: Server, client: Client | None, entropy: Entropy) -> str:
    """Return the redirect URI to use for a login; `client` is the stored one.

    Some providers admit only the very port that was registered (quirk 18), so a port once registered is
    kept. Where nobody listens on it the browser ends on an error page, and its address is pasted.
    """
    options = server.options
    if options.redirect_uri is not None:
        return options.redirect_uri
    if client is not None and client.registered and client.redirect_uris and not options.redirect_port:
        known = urlsplit(client.redirect_uris[0])
        host = known.hostname or ""
        # A host that was configured since counts; the default gives way to what the provider took.
        is_asked = options.redirect_host in {host, _DEFAULT_HOST}
        if known.port and is_loopback_host(host) and is_asked:
            return client.redirect_uris[0]
    return new_redirect_uri(server, entropy)


def new_redirect_uri(server: Server, entropy: Entropy) -> str:
    """Return a loopback redirect URI on the configured port, else on a random one."""
    # RFC 6335 section 6: the dynamic ports, which no service may claim.
    dynamic = 49152 + int.from_bytes(entropy(8).encode(), "big") % 16384
    port, host = server.options.redirect_port or dynamic, server.options.redirect_host
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{CALLBACK_PATH}"
