"""Pydantic AI with the tokens of the run's user. Run: python pydantic_ai_toolset.py URL [OWNER]."""

import asyncio
import sys

from pydantic_ai import Agent, RunContext
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.models.test import TestModel

from hermes_mcp_auth_remote import McpAuth

# A chat bot passes the user of the message as `deps`: "telegram:42". None: the shared tokens.
Owner = str | None


def make_agent(url: str) -> Agent[Owner, str]:
    agent = Agent(TestModel(call_tools=["whoami"]), deps_type=Owner)

    @agent.toolset
    def demo(context: RunContext[Owner]) -> MCPToolset[Owner]:
        return MCPToolset(url, auth=McpAuth(url, context.deps))

    return agent


async def main(url: str, owner: Owner) -> None:
    print((await make_agent(url).run("Who am I?", deps=owner)).output)
    async with MCPToolset(url, auth=McpAuth(url, owner)) as toolset:
        print(await toolset.direct_call_tool("add", {"a": 2, "b": 3}))


asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))
