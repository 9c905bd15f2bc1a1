"""Start-up: print a token, print `--help`, import the auth classes, and make the first call of a process."""

from __future__ import annotations

from benchmarks.login_home import (
    COMMAND,
    FASTMCP_PYTHON,
    MCP1_PYTHON,
    PYTHON,
    SERVER_NAME,
    environ_for,
    logged_in_home,
)
from benchmarks.measurement import Figure, Measure, Scale, command_time_measure, measure_interleaved
from benchmarks.server import TOKEN, run_server

_FIRST_CALL_CODE = """
import asyncio
import {library}
{setup}
async def main():
    async with {library}.AsyncClient({client}) as client:
        response = await client.post("{url}", json={{}})
        assert response.status_code == 200, response
asyncio.run(main())
"""
_OUR_SETUP_CODE = "from hermes_mcp_auth_remote.auth.{library} import McpAuth"
_SDK_SETUP_CODE = """
from pathlib import Path
from benchmarks.sdk import MemoryStorage, make_provider
auth = make_provider("{url}", MemoryStorage(Path("{file}")))
"""


def measure_figures(scale: Scale) -> list[Figure]:
    """Measure commands, imports and first responses."""
    return [*_measure_commands_and_imports(scale), *_measure_first_responses(scale)]


def _measure_commands_and_imports(scale: Scale) -> list[Figure]:
    with logged_in_home() as home:
        env = environ_for(home)

        def command_measure(*arguments: str) -> Measure:
            return command_time_measure(arguments, env)

        def python_measure(code: str) -> Measure:
            return command_measure(PYTHON, "-c", code)

        tokens_file = str(home / "mcp-tokens" / f"{SERVER_NAME}.json")
        quick = measure_interleaved(
            {
                "bare": python_measure("pass"),
                "print": python_measure(f"print(open({tokens_file!r}).read())"),
                "token": command_measure(COMMAND, "token", SERVER_NAME),
                "help": command_measure(COMMAND, "--help"),
                "httpx": python_measure("import httpx"),
                "ours.httpx": python_measure("import hermes_mcp_auth_remote.auth.httpx"),
                "httpx2": python_measure("import httpx2"),
                "ours.httpx2": python_measure("import hermes_mcp_auth_remote.auth.httpx2"),
            },
            # Use more rounds: these measures are as short as the noise of a process start.
            scale,
            rounds_factor=3,
        )
        slow = {
            "ours": python_measure("import hermes_mcp_auth_remote.auth.httpx2"),
            "mcp 2.x": python_measure("import mcp.client.auth"),
        }
        if MCP1_PYTHON.exists():
            slow["mcp 1.x"] = command_measure(str(MCP1_PYTHON), "-c", "import mcp.client.auth")
        if FASTMCP_PYTHON.exists():
            slow["fastmcp"] = command_measure(str(FASTMCP_PYTHON), "-c", "import fastmcp.client.auth")
        peers = measure_interleaved(slow, scale)
    bare = quick["bare"]
    ours = peers.pop("ours")
    return [
        Figure("print a stored token", "ms", quick["token"], "python prints the file", quick["print"], 4),
        Figure("--help", "ms", quick["help"], "import httpx", quick["httpx"], 0.6),
        *(
            Figure(
                what, "ms", quick[f"ours.{library}"] - less, f"import {library}", quick[library] - less, 1.3
            )
            for library in ("httpx", "httpx2")
            for what, less in (
                (f"import auth.{library}", 0.0),
                (f"import auth.{library}, over bare python", bare),
            )
        ),
        Figure("import auth.httpx2", "ms", ours, "import mcp.client.auth 2.x", peers["mcp 2.x"], 0.25, peers),
    ]


def _measure_first_responses(scale: Scale) -> list[Figure]:
    figures: list[Figure] = []
    with run_server() as origin, logged_in_home(f"{origin}/delay/0") as home:
        env, url = environ_for(home), f"{origin}/delay/0"

        def first_response_measure(library: str, setup: str, client: str) -> Measure:
            code = _FIRST_CALL_CODE.format(library=library, setup=setup, client=client, url=url)
            return command_time_measure((PYTHON, "-c", code), env)

        sdk = first_response_measure(
            "httpx2", _SDK_SETUP_CODE.format(url=url, file=home / "sdk.json"), "auth=auth"
        )
        for library, others in (("httpx", {}), ("httpx2", {"mcp 2.x": sdk})):
            medians = measure_interleaved(
                {
                    "floor": first_response_measure(
                        library, "", f'headers={{"Authorization": "Bearer {TOKEN}"}}'
                    ),
                    "ours": first_response_measure(
                        library, _OUR_SETUP_CODE.format(library=library), f'auth=McpAuth("{SERVER_NAME}")'
                    ),
                },
                scale,
                rounds_factor=2,
            )
            peers = measure_interleaved(others, scale) if others else {}
            what = f"process start to the first 200, {library}"
            figures.append(
                Figure(what, "ms", medians["ours"], "a fixed header", medians["floor"], 1.4, peers)
            )
    return figures
