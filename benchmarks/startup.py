"""Start-up: printing a token, `--help`, importing the auth classes, and process start to the first 200."""

from __future__ import annotations

from benchmarks.given import BENCH_PYTHON, COMMAND, NAME, OTHER_PYTHON, PYTHON, environ, home
from benchmarks.measuring import Extent, Figure, Measure, command_milliseconds, interleaved
from benchmarks.server import TOKEN, serving

_FIRST = """
import asyncio
import {library}
{setup}
async def main():
    async with {library}.AsyncClient({client}) as client:
        response = await client.post("{url}", json={{}})
        assert response.status_code == 200, response
asyncio.run(main())
"""
_OURS = "from hermes_mcp_auth_remote.auth.{library} import McpAuth"
_SDK = """
from pathlib import Path
from benchmarks.sdk import Storage, provider
auth = provider("{url}", Storage(Path("{file}")))
"""


def figures(extent: Extent) -> list[Figure]:
    """Measure all of start-up."""
    return [*_commands_and_imports(extent), *_first_answers(extent)]


def _commands_and_imports(extent: Extent) -> list[Figure]:
    with home() as place:
        env = environ(place)

        def command(*arguments: str) -> Measure:
            return command_milliseconds(arguments, env)

        def python(code: str) -> Measure:
            return command(PYTHON, "-c", code)

        tokens_file = str(place / "mcp-tokens" / f"{NAME}.json")
        quick = interleaved(
            {
                "bare": python("pass"),
                "print": python(f"print(open({tokens_file!r}).read())"),
                "token": command(COMMAND, "token", NAME),
                "help": command(COMMAND, "--help"),
                "httpx": python("import httpx"),
                "ours.httpx": python("import hermes_mcp_auth_remote.auth.httpx"),
                "httpx2": python("import httpx2"),
                "ours.httpx2": python("import hermes_mcp_auth_remote.auth.httpx2"),
            },
            # They are quick, and the noise of a process start is of their own size.
            extent,
            times=3,
        )
        slow = {
            "ours": python("import hermes_mcp_auth_remote.auth.httpx2"),
            "mcp 2.x": python("import mcp.client.auth"),
        }
        if OTHER_PYTHON.exists():
            slow["mcp 1.x"] = command(str(OTHER_PYTHON), "-c", "import mcp.client.auth")
        if BENCH_PYTHON.exists():
            slow["fastmcp"] = command(str(BENCH_PYTHON), "-c", "import fastmcp.client.auth")
        peers = interleaved(slow, extent)
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


def _first_answers(extent: Extent) -> list[Figure]:
    found: list[Figure] = []
    with serving() as origin, home(f"{origin}/delay/0") as place:
        env, url = environ(place), f"{origin}/delay/0"

        def first(library: str, setup: str, client: str) -> Measure:
            code = _FIRST.format(library=library, setup=setup, client=client, url=url)
            return command_milliseconds((PYTHON, "-c", code), env)

        sdk = first("httpx2", _SDK.format(url=url, file=place / "sdk.json"), "auth=auth")
        for library, others in (("httpx", {}), ("httpx2", {"mcp 2.x": sdk})):
            medians = interleaved(
                {
                    "floor": first(library, "", f'headers={{"Authorization": "Bearer {TOKEN}"}}'),
                    "ours": first(library, _OURS.format(library=library), f'auth=McpAuth("{NAME}")'),
                },
                extent,
                times=2,
            )
            peers = interleaved(others, extent) if others else {}
            what = f"process start to the first 200, {library}"
            found.append(Figure(what, "ms", medians["ours"], "a fixed header", medians["floor"], 1.4, peers))
    return found
