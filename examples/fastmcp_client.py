"""FastMCP: the framework's client with our auth. Run: python fastmcp_client.py URL."""

import asyncio
import sys

from fastmcp import Client

from hermes_mcp_auth_remote import McpAuth


async def main(url: str) -> None:
    async with Client(url, auth=McpAuth(url)) as client:
        print((await client.call_tool("add", {"a": 2, "b": 3})).content)


asyncio.run(main(sys.argv[1]))
