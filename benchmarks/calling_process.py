"""Make calls with a login that other processes share: `python -m benchmarks.calling_process KIND URL HOME`.

For each number on standard input, make that many calls at once and print how many succeeded.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2


async def _make_our_auth(url: str, home: Path) -> Any:  # noqa: ANN401
    from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
    from hermes_mcp_auth_remote.service import AuthService
    from hermes_mcp_auth_remote.values import Server

    return McpAuth(AuthService(home).session(Server("bench", url)))


async def _make_sdk_auth(url: str, home: Path) -> Any:  # noqa: ANN401
    from benchmarks.sdk import FileStorage, make_provider

    return make_provider(url, FileStorage(home), _refuse_login, _refuse_login)


async def _make_sdk_auth_with_expiry(url: str, home: Path) -> Any:  # noqa: ANN401
    from benchmarks.sdk import FileStorage, make_provider_with_expiry

    return await make_provider_with_expiry(url, FileStorage(home), _refuse_login)


async def _make_fastmcp_auth(url: str, home: Path) -> Any:  # noqa: ANN401
    from benchmarks.fastmcp_peer import make_shared_auth

    return await make_shared_auth(url, home)


async def _refuse_login(*_: object) -> Any:  # noqa: ANN401
    raise PermissionError("A login is needed, but no user can be asked here.")


AUTH_FACTORIES: dict[str, Callable[[str, Path], Awaitable[Any]]] = {
    "ours": _make_our_auth,
    "mcp 2.x": _make_sdk_auth,
    "mcp 2.x with stored expiry": _make_sdk_auth_with_expiry,
    "fastmcp": _make_fastmcp_auth,
}


async def _count_successful_calls(auth: Any, url: str, count: int) -> int:  # noqa: ANN401
    async with httpx2.AsyncClient(auth=auth, timeout=60, trust_env=False) as client:
        responses = await asyncio.gather(*(client.get(url) for _ in range(count)), return_exceptions=True)
    return sum(
        isinstance(response, httpx2.Response) and response.status_code == 200 for response in responses
    )


async def _main(kind: str, url: str, home: str) -> None:
    # A peer may log its failures; this process only counts them.
    logging.disable()
    auth = await AUTH_FACTORIES[kind](url, Path(home))
    print("ready", flush=True)
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        print(await _count_successful_calls(auth, url, int(line)), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:4]))
