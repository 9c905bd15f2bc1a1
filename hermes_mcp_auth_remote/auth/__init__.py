"""Put the token on requests: `auth.httpx.McpAuth`, and `auth.httpx2.McpAuth` for the MCP SDK 2.x."""
