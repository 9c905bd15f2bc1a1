"""LangChain: the tools of a remote MCP server. Run: python langchain_tools.py URL."""

import asyncio
import sys

from langchain_mcp_adapters.client import MultiServerMCPClient

from hermes_mcp_auth_remote import McpAuth


async def main(url: str) -> None:
    connection = {"transport": "streamable_http", "url": url, "auth": McpAuth(url)}
    tools = {tool.name: tool for tool in await MultiServerMCPClient({"demo": connection}).get_tools()}
    print(await tools["add"].ainvoke({"a": 2, "b": 3}))


asyncio.run(main(sys.argv[1]))
