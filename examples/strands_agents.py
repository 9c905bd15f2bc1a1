"""Strands: pass the client to `Agent(tools=[client])`. Run: python strands_agents.py URL."""

import sys

from strands.tools.mcp import MCPClient

from hermes_mcp_auth_remote import McpAuth


def main(url: str) -> None:
    with MCPClient(url=url, auth_provider=McpAuth(url)) as client:
        print([tool.tool_name for tool in client.list_tools_sync()])
        print(client.call_tool_sync("1", "add", {"a": 2, "b": 3})["content"])


main(sys.argv[1])
