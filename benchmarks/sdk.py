"""The peer: the OAuthClientProvider of the MCP SDK. This interpreter's environment has version 1.x or 2.x.

`python -m benchmarks.sdk 10000` prints the CPU microseconds of the provider's auth step.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mcp.client.auth import OAuthClientProvider, oauth2
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthMetadata, OAuthToken

REDIRECT_URI = "http://127.0.0.1:51234/callback"


class MemoryStorage:
    """Stores tokens and client in memory; can read the first tokens from a file."""

    def __init__(self, file: Path | None = None) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None
        if file is not None:
            self.tokens = OAuthToken.model_validate_json(file.read_bytes())

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class FileStorage:
    """Stores tokens in a file that it replaces atomically. The client comes from `login.json`."""

    def __init__(self, home: Path) -> None:
        self.login_document: Any = json.loads((home / "login.json").read_bytes())
        self._file = home / "sdk.json"

    async def get_tokens(self) -> OAuthToken | None:
        if self._file.exists():
            return OAuthToken.model_validate_json(self._file.read_bytes())
        return OAuthToken.model_validate(self.login_document["tokens"])

    async def set_tokens(self, tokens: OAuthToken) -> None:
        temporary = self._file.with_suffix(f".{os.getpid()}")
        temporary.write_text(tokens.model_dump_json(), encoding="utf-8")
        temporary.replace(self._file)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return OAuthClientInformationFull.model_validate(self.login_document["client"])

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        """Do nothing: the client does not change."""


async def make_provider_with_expiry(
    url: str, storage: FileStorage, refuse_login: Callable[..., Awaitable[Any]]
) -> Any:  # noqa: ANN401
    """Return a provider with the token's expiry and the metadata, which the SDK does not store."""
    auth: Any = make_provider(url, storage, refuse_login, refuse_login)
    await auth._initialize()  # noqa: SLF001  as FastMCP does
    auth.context.token_expiry_time = storage.login_document["expires_at"]
    auth.context.oauth_metadata = OAuthMetadata.model_validate(storage.login_document["metadata"])
    return auth


def make_provider(
    url: str,
    storage: MemoryStorage | FileStorage,
    redirect_handler: Callable[[str], Awaitable[None]] | None = None,
    callback_handler: Callable[[], Awaitable[Any]] | None = None,
    client_metadata_url: str | None = None,
) -> OAuthClientProvider:
    """Return a provider for the server at `url`."""
    metadata = OAuthClientMetadata.model_validate(
        {"client_name": "bench", "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none"}
    )
    return OAuthClientProvider(
        url, metadata, storage, redirect_handler, callback_handler, client_metadata_url=client_metadata_url
    )


def make_storage_with_token(access_token: str) -> MemoryStorage:
    """Return a storage with a token that is valid for an hour."""
    storage = MemoryStorage()
    storage.tokens = OAuthToken(access_token=access_token, token_type="Bearer", expires_in=3600)
    return storage


def main() -> None:
    """Print the CPU time of the auth step, in microseconds."""
    from benchmarks.auth_timing import measure_flow_microseconds

    library: Any = getattr(oauth2, "httpx2", None) or oauth2.httpx  # type: ignore[attr-defined]
    request = library.Request("POST", "http://127.0.0.1:9/mcp", json={})
    auth = make_provider("http://127.0.0.1:9/mcp", make_storage_with_token("an-access-token"))
    print(
        asyncio.run(
            measure_flow_microseconds(auth, request, library.Response(200, request=request), int(sys.argv[1]))
        )
    )


if __name__ == "__main__":
    main()
