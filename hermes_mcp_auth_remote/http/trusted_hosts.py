"""The hosts that the operator has configured, unlike those that a server's metadata names."""

from __future__ import annotations

from contextlib import suppress

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.oauth.host_names import normalize_host_name
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.values import Server


def trusted_hosts(server: Server) -> frozenset[str]:
    """Return the host names in this server's configuration, in the form of `normalize_host_name`.

    These are the hosts of the server, of `oauth.authorization_server`, of the identity provider's token
    endpoint, and `oauth.allow_hosts`. The result is empty if a chat user named the server. Raises ConfigError
    if `allow_hosts` contains anything but host names.
    """
    if server.is_public_only:
        return frozenset()
    options = server.options
    urls = [server.url, options.authorization_server or ""]
    if options.identity_provider is not None:
        urls.append(options.identity_provider.token_endpoint)
    try:
        names = {normalize_host_name(text) for text in options.allow_hosts}
    except ValueError:
        raise ConfigError(
            "`oauth.allow_hosts` contains an entry that is not a host name.",
            "Write host names such as auth.example.com; put addresses into `oauth.allow_addresses`.",
        ) from None
    for url in urls:
        # Skip IP addresses: only the address policy decides about them.
        with suppress(ValueError):
            names.add(normalize_host_name(host_of(url)))
    return frozenset(names)
