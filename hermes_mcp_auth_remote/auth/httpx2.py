"""The token on every request of an httpx2 client (the MCP SDK 2.x among them)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import httpx2

from hermes_mcp_auth_remote.auth.flow import Session, bearer_flow, blocking_bearer_flow, place, session_of
from hermes_mcp_auth_remote.traceback_redaction import hides_locals


class McpAuth(httpx2.Auth):
    """`httpx2.AsyncClient(auth=McpAuth("linear"))`: a server of config.yaml, a URL, or a session."""

    @hides_locals
    def __init__(self, server: str | Session) -> None:
        self._session = session_of(server)
        self._where = place(httpx2.URL(self._session.server.url))

    def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Run by httpx2 for each request."""
        return bearer_flow(self._session, self._where, request)

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response]:
        """Run by httpx2 for each request of a synchronous client."""
        return blocking_bearer_flow(self._session, self._where, request)
