"""The MCP SDK 1.x in Hermes's environment (Hermes pins this version), with McpAuth as its httpx auth."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Origin, Server
from tests import leak_check
from tests.consent_form import approve
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.store.builders import ROOT

pytestmark = [pytest.mark.hermes, pytest.mark.real_hermes]

PYTHON = ROOT / ".venvs" / "hermes" / "bin" / "python"

CALL_SCRIPT = """
import asyncio, sys
from importlib.metadata import version
import httpx
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from hermes_mcp_auth_remote.auth.httpx import McpAuth

async def main(url):
    async with (
        httpx.AsyncClient(auth=McpAuth("notes"), timeout=20) as http_client,
        streamable_http_client(url, http_client=http_client) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        await session.initialize()
        result = await session.call_tool("add", {"a": 2, "b": 3.5})
        print(version("mcp").partition(".")[0], result.content[0].text)

asyncio.run(main(sys.argv[1]))
"""


def call_tool(home: Path, demo: Demo) -> str:
    command = [str(PYTHON), "-c", CALL_SCRIPT, demo.mcp_url]
    environ = {**os.environ, "HERMES_HOME": str(home)}
    result = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=home, env=environ, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_mcp_sdk_1_calls_a_tool_and_refreshes_a_revoked_token(tmp_path: Path) -> None:
    with serve_demo(Behaviour(auto_approve=True)) as demo:
        leak_check.watch_secrets(demo.authorization_server.minted_secrets)
        entry = f"mcp_servers:\n  notes:\n    url: {demo.mcp_url}\n    auth: oauth\n"
        (tmp_path / "config.yaml").write_text(entry)

        async def log_in() -> None:
            service = AuthService(tmp_path)
            login = await service.start_login(Server("notes", demo.mcp_url), Origin("terminal"))
            await service.complete_login(
                login.id, await asyncio.to_thread(approve, login.authorization_url), Origin("terminal")
            )

        asyncio.run(log_in())
        assert call_tool(tmp_path, demo) == "1 5.5"
        assert demo.authorization_server.count_requests("refresh") == 0
        demo.authorization_server.ledger.revoke_access_tokens()
        assert call_tool(tmp_path, demo) == "1 5.5"
        assert (
            demo.authorization_server.count_requests("refresh"),
            demo.authorization_server.count_requests("token"),
        ) == (1, 1)
