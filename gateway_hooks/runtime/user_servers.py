"""The servers that one user sees: those of the operator, and those that were connected by their address.

An administrator may connect a server that the operator has not configured (`dialog.policy.UrlPolicy`). The
name of its entry is the host. Only the stored credentials record it: a login creates the entry, and a
disconnect removes it. An address that the configuration or a stored login knows means that entry.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256

from gateway_hooks.dialog.servers import ServerEntries, Servers, StaticServers, resolve_server
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError, ServerNotFound
from hermes_mcp_auth_remote.hermes_home import file_stem
from hermes_mcp_auth_remote.http.addresses import AddressPolicy, parse_ip_literal
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.urls import add_scheme, host_of, is_loopback_host, is_same_address
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Owner, Server

# Leaves room for a suffix in a name of 60 characters, which no card cuts.
MAX_HOST_NAME_CHARS = 50


def is_url(text: str) -> bool:
    """Return True if a user has typed an address instead of a name."""
    return "://" in text


def lacks_scheme(text: str) -> bool:
    """Return True if a user has typed an address without https://."""
    return add_scheme(text) is not None


def has_secret_part(text: str) -> bool:
    """Return True if an address may contain a key: it has a query, or a name and a password."""
    return "?" in text or "@" in text


class UserServers:
    """The servers of one owner. Reads files: do not call it on the event loop.

    It implements `Servers`. With `includes_stored`, it has the servers that users have connected by their
    address, beside the configured ones. The owner's users may also name the servers of their recent `logins`.
    """

    def __init__(
        self,
        configured: Servers,
        service: AuthService,
        owner: Owner,
        *,
        includes_stored: bool,
        logins: Iterable[Login] = (),
    ) -> None:
        self._configured = configured
        self._service = service
        self._owner = owner
        self._includes_stored = includes_stored
        self._logins = [login for login in logins if login.is_public_only and login.key.owner == owner]

    def names(self) -> list[str]:
        """Return the names, the configured ones first; raises ConfigError, StoreError."""
        configured_names = self._configured.names()
        return [*configured_names, *self._connected_servers()]

    def find(self, name: str) -> Server:
        """Return one server; raises ServerNotFound, or ConfigError if its entry is invalid."""
        try:
            return self._configured.find(name)
        except ServerNotFound:
            server = self._connected_servers().get(name)
            if server is None:
                raise
            return server

    def is_configured(self, server: Server) -> bool:
        """Return True if the operator has configured this server."""
        return server.name in self._configured.names()

    def resolve(self, name: str, server_tag: str = "") -> Server | None:
        """Return the server with this tag, name or address; None if there is none.

        Raises ConfigError if its entry is invalid or several servers have the address, and StoreError.
        """
        if not server_tag and is_url(name):
            return self.find_at(name)
        server = resolve_server(self._configured, name, server_tag)
        if server is not None:
            return server
        servers = {**self._recent_servers(), **self._connected_servers()}
        return resolve_server(StaticServers(servers.values()), name, server_tag)

    def find_at(self, url: str) -> Server | None:
        """Return the configured or stored server at an address, None if there is none.

        Of several servers with the address, it chooses as a command does (`server_lookup.names_meant`), among
        the servers that the owner's users may see. Raises StoreError, and ConfigError if it cannot choose.
        """
        configured_servers = _servers_at(url, self._configured_servers())
        stored_servers = _servers_at(url, self._stored_servers())
        if not configured_servers and not stored_servers:
            stored_servers = _servers_at(url, self._recent_servers())
        names = self._service.blocking.names_meant(configured_servers, stored_servers, self._owner)
        if len(names) > 1:
            raise ConfigError(
                "Several servers have this address.", f"Use one of their names: {', '.join(names)}."
            )
        if not names:
            return None
        [name] = names
        if name in stored_servers:
            # From now on the entry belongs to the chat, also if a terminal has created it.
            return replace(stored_servers[name], is_public_only=True)
        return configured_servers[name]

    def new_server(self, url: str) -> Server:
        """Return a server at an address that no entry has, which `safe_url` has checked.

        Raises ConfigError if it may not be reached: it is not on the public internet, or config.yaml has an
        entry for it that chats do not offer.
        """
        check_public_url(url)
        if isinstance(self._configured, ServerEntries):
            for name in self._configured.entry_names():
                entry = self._configured.find_entry(name)
                if entry is not None and is_same_address(entry.url, url):
                    raise ConfigError(
                        f"That address belongs to {name} in config.yaml, which this bot does not offer.",
                        f"The operator can set `auth: oauth` for {name}, or `enabled: true`.",
                    )
        known_stems = self.configured_stems() | {
            file_stem(name) for name in (*self._recent_servers(), *self._stored_servers())
        }
        return Server(_name_for(url, known_stems), url, is_public_only=True)

    def _configured_servers(self) -> dict[str, Server]:
        """Return the configured servers with a valid entry, by name."""
        servers = dict[str, Server]()
        for name in self._configured.names():
            with contextlib.suppress(McpAuthError):
                servers[name] = self._configured.find(name)
        return servers

    def _recent_servers(self) -> dict[str, Server]:
        """Return the servers of recent logins that no configured server has replaced since, by name."""
        configured_stems = self.configured_stems()
        return {
            login.key.server_name: Server(login.key.server_name, login.server_url, is_public_only=True)
            for login in self._logins
            if file_stem(login.key.server_name) not in configured_stems
        }

    def _connected_servers(self) -> dict[str, Server]:
        """Return the servers that users have connected by their address, by name; raises StoreError."""
        return {name: server for name, server in self._stored_servers().items() if server.is_public_only}

    def _stored_servers(self) -> dict[str, Server]:
        """Return the servers that only the owner's stored credentials know, by name; raises StoreError."""
        servers = dict[str, Server]()
        if not self._includes_stored:
            return servers
        configured_stems = self.configured_stems()
        for key in self._service.blocking.keys(self._owner):
            if file_stem(key.server_name) in configured_stems:
                continue
            with contextlib.suppress(McpAuthError):
                server = stored_server(self._service, key.server_name, self._owner)
                if server is not None:
                    servers[server.name] = server
        return servers

    def configured_stems(self) -> set[str]:
        """Return the file stems of the configured servers: two servers with one stem share their files."""
        names = self._configured.names()
        if isinstance(self._configured, ServerEntries):
            names = [*names, *self._configured.entry_names()]
        return {file_stem(name) for name in names}


def _servers_at(url: str, servers: Mapping[str, Server]) -> dict[str, Server]:
    return {name: server for name, server in servers.items() if is_same_address(server.url, url)}


def stored_server(service: AuthService, name: str, owner: Owner) -> Server | None:
    """Return the server that stored credentials were issued for; None if they do not say it.

    Raises StoreError.
    """
    binding = service.blocking.read_credentials(Server(name, ""), owner).binding
    if binding is None:
        return None
    return Server(name, binding.server_url, is_public_only=binding.is_public_only)


def check_public_url(url: str) -> None:
    """Raise ConfigError unless a URL is https and can be on the public internet.

    A name is resolved later, and its addresses are checked for each connection (`http.ssrf_guard`).
    """
    host = host_of(url)
    address = parse_ip_literal(host)
    is_internal = is_loopback_host(host) or (address is not None and not AddressPolicy().allows(address))
    if is_internal or not url.startswith("https:"):
        raise ConfigError(
            "Only an https address on the public internet can be connected from a chat.",
            "The operator can add another server to config.yaml.",
        )


def has_lost_name(service: AuthService, login: Login) -> bool:
    """Return True if the name of a new login also is the name of a server with another address.

    Two users may connect two new servers of one host at the same time. Reads files. Raises StoreError.
    """
    bound_server = stored_server(service, login.key.server_name, login.key.owner)
    if bound_server is not None and not is_same_address(bound_server.url, login.server_url):
        return True
    return any(
        other.key == login.key
        and not other.is_over
        and not is_same_address(other.server_url, login.server_url)
        for other in service.blocking.logins()
    )


def unique_name_for(url: str) -> str:
    """Return a name for a server that no server of another address has: its host, and a hash.

    The name holds no other part of the address: a path or a query may contain a key.
    """
    return f"{_host_name_of(url)}-{sha256(url.encode()).hexdigest()[:8]}"


def _name_for(url: str, known_stems: set[str]) -> str:
    """Return a name for a server: its host, with a suffix if another server has that name."""
    name = _host_name_of(url)
    if name and file_stem(name) not in known_stems and len(host_of(url)) <= MAX_HOST_NAME_CHARS:
        return name
    return unique_name_for(url)


def _host_name_of(url: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", host_of(url)).strip("-.")[-MAX_HOST_NAME_CHARS:].strip("-.")
