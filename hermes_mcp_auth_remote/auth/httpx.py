"""The token on every request of an httpx client (the MCP SDK 1.x among them)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import httpx

from hermes_mcp_auth_remote.auth.flow import Session, bearer_flow, blocking_bearer_flow, place, session_of
from hermes_mcp_auth_remote.traceback_redaction import hides_locals


class McpAuth(httpx.Auth):
    """`httpx.AsyncClient(auth=McpAuth("linear"))`: a server of config.yaml, a URL, or a session."""

    @hides_locals
    def __init__(self, server: str | Session) -> None:
        self._session = session_of(server)
        self._where = place(httpx.URL(self._session.server.url))

    def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Run by httpx for each request."""
        return bearer_flow(self._session, self._where, request)

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Run by httpx for each request of a synchronous client."""
        return blocking_bearer_flow(self._session, self._where, request)
