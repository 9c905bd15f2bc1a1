"""The login of the MCP SDK, with handlers whose user approves at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata
from pydantic import AnyUrl

from hermes_mcp_auth_remote.auth.provider import shared_provider
from hermes_mcp_auth_remote.auth.storage import SharedTokenStorage
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests.consent_form import approve
from tests.parts.authorization_server import Demo

CALLBACK = "http://localhost:3030/callback"


class FakeUser:
    """The redirect handler and the callback handler of the SDK."""

    def __init__(self, answer_login: Callable[[str], str] = approve) -> None:
        self.answer_login = answer_login
        self.opened_urls: list[str] = []

    async def redirect(self, url: str) -> None:
        self.opened_urls.append(url)

    async def callback(self) -> AuthorizationCodeResult:
        address = await asyncio.to_thread(self.answer_login, self.opened_urls[-1])
        query = dict(parse_qsl(urlsplit(address).query))
        return AuthorizationCodeResult(
            code=query.get("code", ""), state=query.get("state"), iss=query.get("iss")
        )


def metadata(redirect_uri: str = CALLBACK) -> OAuthClientMetadata:
    return OAuthClientMetadata(client_name="An app", redirect_uris=[AnyUrl(redirect_uri)])


def make_provider(
    storage: Any,
    user: FakeUser,
    url: str,
    *,
    kind: type[OAuthClientProvider] | None = None,
    redirect_uri: str = CALLBACK,
) -> OAuthClientProvider:
    """Create a provider as an app does. `kind` is the SDK's class or, by default, the shared one."""
    kind = shared_provider(OAuthClientProvider) if kind is None else kind
    return kind(url, metadata(redirect_uri), storage, user.redirect, user.callback)


def make_storage(
    service: AuthService, server: Server, clock: Callable[[], float], **options: Any
) -> SharedTokenStorage:
    return SharedTokenStorage(server, service=service, clock=clock, **options)


def read_credential_files(home: Path) -> dict[str, bytes]:
    """Return the content of each stored credential file, by name."""
    return {path.name: path.read_bytes() for path in (home / "mcp-tokens").glob("*.json")}


def request_steps(demo: Demo) -> list[str]:
    """Return the step of each request to the demo, in order."""
    return [request.step for request in demo.authorization_server.requests]
