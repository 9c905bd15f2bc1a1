"""LlamaIndex: the tools of a remote MCP server. Run: python llama_index_tools.py URL."""

import asyncio
import sys

from llama_index.tools.mcp import BasicMCPClient, McpToolSpec

from hermes_mcp_auth_remote import McpAuth


async def main(url: str) -> None:
    tools = await McpToolSpec(client=BasicMCPClient(url, auth=McpAuth(url))).to_tool_list_async()
    [add] = [tool for tool in tools if tool.metadata.name == "add"]
    print((await add.acall(a=2, b=3)).content)


asyncio.run(main(sys.argv[1]))
