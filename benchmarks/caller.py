"""One process of those that share a login: `python -m benchmarks.caller <kind> <url> <home>`.

For each number on standard input it makes that many calls at once, and says how many were answered.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2


async def _ours(url: str, home: Path) -> Any:  # noqa: ANN401
    from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
    from hermes_mcp_auth_remote.service import AuthService
    from hermes_mcp_auth_remote.values import Server

    return McpAuth(AuthService(home).session(Server("bench", url)))


async def _sdk(url: str, home: Path) -> Any:  # noqa: ANN401
    from benchmarks.sdk import FileStorage, provider

    return provider(url, FileStorage(home), _nobody, _nobody)


async def _told_sdk(url: str, home: Path) -> Any:  # noqa: ANN401
    from benchmarks.sdk import FileStorage, told_provider

    return await told_provider(url, FileStorage(home), _nobody)


async def _fastmcp(url: str, home: Path) -> Any:  # noqa: ANN401
    from benchmarks.fastmcp_peer import shared

    return await shared(url, home)


async def _nobody(*_: object) -> Any:  # noqa: ANN401
    raise PermissionError("A login is needed, and nobody can be asked here.")


KINDS: dict[str, Callable[[str, Path], Awaitable[Any]]] = {
    "ours": _ours,
    "mcp 2.x": _sdk,
    "mcp 2.x, told the expiry": _told_sdk,
    "fastmcp": _fastmcp,
}


async def _calls(auth: Any, url: str, count: int) -> int:  # noqa: ANN401
    async with httpx2.AsyncClient(auth=auth, timeout=60, trust_env=False) as client:
        answers = await asyncio.gather(*(client.get(url) for _ in range(count)), return_exceptions=True)
    return sum(isinstance(answer, httpx2.Response) and answer.status_code == 200 for answer in answers)


async def _main(kind: str, url: str, home: str) -> None:
    # What a peer has to say of its failures is counted, not read.
    logging.disable()
    auth = await KINDS[kind](url, Path(home))
    print("ready", flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        print(await _calls(auth, url, int(line)), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:4]))
