"""Measure a peer in its own environment: FastMCP's OAuth client.

`python -m benchmarks.fastmcp_peer step COUNT` prints the CPU microseconds of the client's auth step. `burst
URL COUNT CONNECTIONS` prints the milliseconds of COUNT calls at once. `make bench` creates the environment.
If the environment is missing, the benchmarks leave these figures out.
"""

from __future__ import annotations

import asyncio
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import httpx2
from fastmcp.client.auth import OAuth  # type: ignore[import-not-found]
from key_value.aio.stores.filetree import (  # type: ignore[import-not-found]
    FileTreeStore,
    FileTreeV1CollectionSanitizationStrategy,
    FileTreeV1KeySanitizationStrategy,
)
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from benchmarks.auth_timing import measure_burst_milliseconds, measure_flow_microseconds
from benchmarks.server import TOKEN


class _NonInteractiveOAuth(OAuth):  # type: ignore[misc]
    """A client that fails if a login is needed. FastMCP's own client would open a browser."""

    async def redirect_handler(self, _: str) -> None:
        raise PermissionError("A login is needed, but no user can be asked here.")


async def make_shared_auth(url: str, home: Path) -> Any:  # noqa: ANN401
    """Return a client with a disk store in `home`. The first process writes the login to the store."""
    folder = home / "fastmcp"
    is_first = not folder.exists()
    folder.mkdir(exist_ok=True)
    store = FileTreeStore(
        data_directory=folder,
        key_sanitization_strategy=FileTreeV1KeySanitizationStrategy(directory=folder),
        collection_sanitization_strategy=FileTreeV1CollectionSanitizationStrategy(directory=folder),
    )
    auth = _NonInteractiveOAuth(url, token_storage=store)
    if is_first:
        login_document = json.loads((home / "login.json").read_bytes())
        storage = auth.token_storage_adapter
        await storage.set_client_info(OAuthClientInformationFull.model_validate(login_document["client"]))
        await storage.set_tokens(OAuthToken.model_validate(login_document["tokens"]))
    return auth


async def _make_auth_with_token(url: str) -> Any:  # noqa: ANN401
    """Return a client with a token in memory that is valid for an hour."""
    warnings.simplefilter("ignore")
    auth = _NonInteractiveOAuth(url)
    tokens = OAuthToken(access_token=TOKEN, token_type="Bearer", expires_in=3600)
    await auth.token_storage_adapter.set_tokens(tokens)
    return auth


async def _measure_step(count: str) -> float:
    request = httpx2.Request("POST", "http://127.0.0.1:9/mcp", json={})
    auth = await _make_auth_with_token(str(request.url))
    return await measure_flow_microseconds(auth, request, httpx2.Response(200, request=request), int(count))


async def _measure_burst(url: str, count: str, max_connections: str) -> float:
    return await measure_burst_milliseconds(
        httpx2, await _make_auth_with_token(url), url, int(count), int(max_connections)
    )


if __name__ == "__main__":
    print(
        asyncio.run(_measure_step(*sys.argv[2:]) if sys.argv[1] == "step" else _measure_burst(*sys.argv[2:]))
    )
