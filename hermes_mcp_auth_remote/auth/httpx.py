"""Put the token on each request of an httpx client, such as that of the MCP SDK 1.x."""

from __future__ import annotations

import httpx

from hermes_mcp_auth_remote.auth.library_auth import LibraryAuth


class McpAuth(LibraryAuth, httpx.Auth):
    """Auth for httpx clients: `httpx.AsyncClient(auth=McpAuth("linear"))`; see `LibraryAuth`."""

    _parse_url = staticmethod(httpx.URL)
