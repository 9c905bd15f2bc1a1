"""Google ADK: pass the toolset to `Agent(tools=[toolset])`. Run: python google_adk_toolset.py URL."""

import asyncio
import sys
from unittest.mock import MagicMock

from google.adk.tools.mcp_tool import McpToolset, StreamableHTTPConnectionParams

from hermes_mcp_auth_remote import McpAuth


async def main(url: str) -> None:
    auth = McpAuth(url)
    # ADK calls the function for each tool call, so the header is always valid.
    toolset = McpToolset(
        connection_params=StreamableHTTPConnectionParams(url=url), header_provider=lambda _: auth.headers()
    )
    context = MagicMock()  # an agent brings its own
    [add] = [tool for tool in await toolset.get_tools(context) if tool.name == "add"]
    print(await add.run_async(args={"a": 2, "b": 3}, tool_context=context))
    await toolset.close()


asyncio.run(main(sys.argv[1]))
