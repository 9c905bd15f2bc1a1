"""The servers that this process knows by name, with their options."""

from __future__ import annotations

from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.urls import is_same_address
from hermes_mcp_auth_remote.values import Server


class KnownServers:
    """The servers that callers have passed to the service. Any thread may use it."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}

    def add(self, server: Server) -> None:
        """Use this server's options for logins that another process started under its name."""
        self._servers[server.name] = server

    def server_of(self, login: Login) -> Server:
        """Return the server of a login. If this process does not know its URL, the result has no options."""
        server = self._servers.get(login.key.server_name)
        if server is None or not is_same_address(server.url, login.server_url):
            return Server(login.key.server_name, login.server_url, is_public_only=login.is_public_only)
        return server
