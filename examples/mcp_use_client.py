"""mcp-use: pass the client to `MCPAgent(client=client)`. Run: python mcp_use_client.py URL."""

import asyncio
import sys

from mcp_use import MCPClient

from hermes_mcp_auth_remote import McpAuth


async def main(url: str) -> None:
    client = MCPClient({"mcpServers": {"demo": {"url": url, "auth": McpAuth(url)}}})
    session = await client.create_session("demo")
    print((await session.call_tool("add", {"a": 2, "b": 3})).content)
    await client.close_all_sessions()


asyncio.run(main(sys.argv[1]))
