"""CrewAI: pass the tools to `Agent(tools=tools, …)`. Run: python crewai_tools_adapter.py URL."""

import sys

from crewai_tools import MCPServerAdapter

from hermes_mcp_auth_remote import McpAuth


def main(url: str) -> None:
    with MCPServerAdapter({"url": url, "transport": "streamable-http", "auth": McpAuth(url)}) as tools:
        print(tools["add"].run(a=2, b=3))


main(sys.argv[1])
