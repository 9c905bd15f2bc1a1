"""Choose the redirect URI of a login. A bot loads this module at its start, so it imports no flow."""

from __future__ import annotations

from urllib.parse import urlsplit

from hermes_mcp_auth_remote.oauth.client import CONFIGURED_CLIENT_PORT, Client
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host
from hermes_mcp_auth_remote.values import Entropy, Server, ServerOptions

CALLBACK_PATH = "/callback"
# RFC 6335 section 6: ports from 49152 are never assigned to a service. Linux gives those below 61000 to
# outgoing connections, and no program can listen on a port that a connection uses.
_FIRST_PORT = 61000


_DEFAULT_HOST = ServerOptions().redirect_host
_REDIRECT_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


def redirect_uri_for(server: Server, client: Client | None, entropy: Entropy) -> str:
    """Return the redirect URI to use for a login; `client` is the stored client.

    Some authorization servers accept only the registered port (quirk 18), so a registered port is reused. If
    no process listens on it, the browser ends on an error page, and the user pastes its URL.
    """
    options = server.options
    if options.redirect_uri is not None:
        return options.redirect_uri
    if client is not None and client.is_registered and not options.redirect_port and not options.client_id:
        for registered_uri in client.redirect_uris:
            if _is_own_redirect_uri(registered_uri, options.redirect_host):
                return registered_uri
    return new_redirect_uri(server, entropy)


def _is_own_redirect_uri(uri: str, redirect_host: str) -> bool:
    """True if this package may have requested a redirect URI; a server must not choose where to listen."""
    registered = urlsplit(uri)
    host = registered.hostname or ""
    # A configured host takes precedence; the default host does not replace the registered one.
    is_allowed_host = redirect_host in {host, _DEFAULT_HOST} and host in {*_REDIRECT_HOSTS, redirect_host}
    is_plain = registered.scheme == "http" and registered.path == CALLBACK_PATH and not registered.query
    return is_plain and bool(registered.port) and is_loopback_host(host) and is_allowed_host


def new_redirect_uri(server: Server, entropy: Entropy) -> str:
    """Return a loopback redirect URI on the configured port, or else on a random port.

    A client that the operator registered by hand has one redirect URI, so its port is always the same.
    """
    options, host = server.options, server.options.redirect_host
    port = options.redirect_port
    if not port and has_manual_client(options):
        port = CONFIGURED_CLIENT_PORT
    port = port or _FIRST_PORT + int.from_bytes(entropy(8).encode(), "big") % (65536 - _FIRST_PORT)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{CALLBACK_PATH}"


def has_manual_client(options: ServerOptions) -> bool:
    """True if the operator configured the client: its redirect URIs cannot be changed by a login."""
    return options.client_id is not None or options.client_metadata_url is not None
