"""Put the token on each request of an httpx2 client, such as that of the MCP SDK 2.x."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import httpx2

from hermes_mcp_auth_remote.auth.flow import (
    Session,
    bearer_flow,
    bearer_flow_blocking,
    resolve_session,
    url_origin,
)
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals


class McpAuth(httpx2.Auth):
    """Auth for httpx2 clients: `httpx2.AsyncClient(auth=McpAuth("linear"))`.

    `server` is a server's name in config.yaml, its URL, or a session.
    """

    @with_hidden_locals
    def __init__(self, server: str | Session) -> None:
        self._session = resolve_session(server)
        self._server_origin = url_origin(httpx2.URL(self._session.server.url))

    def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Send a request with the token; httpx2 calls this for each request."""
        return bearer_flow(self._session, self._server_origin, request)

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        """Send a request with the token; synchronous httpx2 clients call this for each request."""
        return bearer_flow_blocking(self._session, self._server_origin, request)
