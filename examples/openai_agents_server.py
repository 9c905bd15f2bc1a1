"""OpenAI Agents: for `Agent(mcp_servers=[server])`. Run: python openai_agents_server.py URL."""

import asyncio
import sys

from agents.mcp import MCPServerStreamableHttp

from hermes_mcp_auth_remote import McpAuth


async def main(url: str) -> None:
    async with MCPServerStreamableHttp(params={"url": url, "auth": McpAuth(url)}) as server:
        print([tool.name for tool in await server.list_tools()])
        print((await server.call_tool("add", {"a": 2, "b": 3})).content)


asyncio.run(main(sys.argv[1]))
