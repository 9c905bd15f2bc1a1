"""The peer: the MCP SDK's OAuthClientProvider, 1.x or 2.x, whichever this interpreter has.

`python -m benchmarks.sdk 10000` prints the microseconds of CPU of its auth step.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from mcp.client.auth import OAuthClientProvider, oauth2
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

REDIRECT_URI = "http://127.0.0.1:51234/callback"


class Storage:
    """Tokens and client in memory, or at first from a file; counts nothing, checks nothing."""

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


def provider(
    url: str,
    storage: Storage,
    show: Callable[[str], Awaitable[None]] | None = None,
    answer: Callable[[], Awaitable[Any]] | None = None,
    document_url: str | None = None,
) -> OAuthClientProvider:
    """Return a provider for the server at `url`."""
    metadata = OAuthClientMetadata.model_validate(
        {"client_name": "bench", "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none"}
    )
    return OAuthClientProvider(url, metadata, storage, show, answer, client_metadata_url=document_url)


def stored(access_token: str) -> Storage:
    """Return a storage with a token that is good for an hour."""
    storage = Storage()
    storage.tokens = OAuthToken(access_token=access_token, token_type="Bearer", expires_in=3600)
    return storage


def main() -> None:
    """Print the cost of the auth step."""
    from benchmarks.driving import microseconds

    library: Any = getattr(oauth2, "httpx2", None) or oauth2.httpx  # type: ignore[attr-defined]
    request = library.Request("POST", "http://127.0.0.1:9/mcp", json={})
    auth = provider("http://127.0.0.1:9/mcp", stored("an-access-token"))
    print(asyncio.run(microseconds(auth, request, library.Response(200, request=request), int(sys.argv[1]))))


if __name__ == "__main__":
    main()
