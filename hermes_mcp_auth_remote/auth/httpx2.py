"""Put the token on each request of an httpx2 client, such as that of the MCP SDK 2.x."""

from __future__ import annotations

import httpx2

from hermes_mcp_auth_remote.auth.library_auth import LibraryAuth


class McpAuth(LibraryAuth, httpx2.Auth):
    """Auth for httpx2 clients: `httpx2.AsyncClient(auth=McpAuth("linear"))`; see `LibraryAuth`."""

    _parse_url = staticmethod(httpx2.URL)
