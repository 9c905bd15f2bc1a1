"""smolagents: pass the tools to `CodeAgent(tools=tools, …)`. Run: python smolagents_tools.py URL."""

import sys

from smolagents import ToolCollection

from hermes_mcp_auth_remote import McpAuth


def main(url: str) -> None:
    server = {"url": url, "transport": "streamable-http", "auth": McpAuth(url)}
    with ToolCollection.from_mcp(server, trust_remote_code=True, structured_output=False) as collection:
        [add] = [tool for tool in collection.tools if tool.name == "add"]
        print(add(a=2, b=3))


main(sys.argv[1])
