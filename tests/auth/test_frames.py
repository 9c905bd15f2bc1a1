"""Error trackers see no secret of a request that got no token: httpx, httpx2 and the MCP SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import OAuthClientMetadata

import hermes_mcp_auth_remote.auth.httpx
import hermes_mcp_auth_remote.auth.httpx2
from hermes_mcp_auth_remote.auth.provider import shared_provider
from hermes_mcp_auth_remote.auth.storage import SharedTokenStorage
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.test_frames import GRANTED, Boom, boom
from tests.trackers import Trackers, caught

pytestmark = pytest.mark.slow

LIBRARIES = {
    "httpx": (httpx, hermes_mcp_auth_remote.auth.httpx.McpAuth),
    "httpx2": (httpx2, hermes_mcp_auth_remote.auth.httpx2.McpAuth),
}
FAULTS = (
    "service.refresh.refresh_tokens",
    "oauth.token.read_token_response",
    "http.client.read_body",
    "store.files.credential_files.FileStore.save_tokens",
    "service.refresh.make_cached_token",
    "service.sessions.Session._set_cached_token",
    "auth.flow._limit_body",
    "auth.flow._send_with_token",
)


@pytest.fixture
def trackers(demo: Demo) -> Iterator[Trackers]:
    one = Trackers(
        demo.authorization_server.minted_secrets, {GRANTED["access_token"], GRANTED["refresh_token"]}
    )
    with one.logging():
        yield one
    assert one.sent_leaks() == []


@pytest.fixture(params=[(name, kind) for name in LIBRARIES for kind in ("async", "sync")], ids="-".join)
def ask(request: pytest.FixtureRequest) -> Any:
    """Send one request with a new client. The frames of this function hold no secret."""
    (library, auth), kind = LIBRARIES[request.param[0]], request.param[1]

    def ask_blocking(session: Any, url: str) -> None:
        with library.Client(auth=auth(session)) as client:
            client.get(url)

    async def ask(session: Any, url: str) -> None:
        async with library.AsyncClient(auth=auth(session)) as client:
            await client.get(url)

    if kind == "sync":
        return ask_blocking
    return lambda session, url: asyncio.run(ask(session, url))


@covers("tracebacks-masked")
def test_a_refresh_that_fails_at_a_request(
    ask: Any, session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, trackers: Trackers
) -> None:
    clock.now += 3600
    body = json.dumps({**GRANTED, "token_type": "mac"})
    demo.authorization_server.fail_next("refresh", times=None, status=200, body=body)
    error = caught(lambda: ask(session_kept.session(server), demo.ping_url))
    assert isinstance(error, McpAuthError)
    assert trackers.leaks(error) == []


@covers("tracebacks-masked")
@pytest.mark.parametrize("where", FAULTS)
def test_a_fault_at_a_request_that_is_refused(
    ask: Any,
    session_kept: AuthService,
    server: Server,
    demo: Demo,
    trackers: Trackers,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    # With a cached token, which the flow holds while it waits for another one.
    asyncio.run(session_kept.session(server).header())
    demo.authorization_server.ledger.revoke_access_tokens()
    held = boom(monkeypatch, trackers, where)
    error = caught(lambda: ask(session_kept.session(server), demo.ping_url))
    assert isinstance(error, Boom)
    assert trackers.leaks(error) == []
    assert [each for each in held if ".auth." in each or ".service." in each] == []


def provider_of(service: AuthService, server: Server) -> OAuthClientProvider:
    metadata = OAuthClientMetadata.model_validate({"redirect_uris": ["http://127.0.0.1:51234/callback"]})
    storage = SharedTokenStorage(server, service=service)
    return shared_provider(OAuthClientProvider)(server.url, metadata, storage)


@covers("tracebacks-masked")
@pytest.mark.parametrize(
    "where", ["service.sessions.Session.header", "store.files.credential_files.FileStore.save_tokens"]
)
def test_a_fault_at_the_sdk_s_provider_and_its_storage(
    session_kept: AuthService,
    server: Server,
    demo: Demo,
    clock: MovedClock,
    trackers: Trackers,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    async def main() -> None:
        async with httpx2.AsyncClient(auth=provider_of(session_kept, server)) as client:
            await client.get(demo.ping_url)

    clock.now += 3600
    boom(monkeypatch, trackers, where)
    assert trackers.leaks(caught(main())) == []
    storage = SharedTokenStorage(server, service=session_kept)
    assert trackers.leaks(caught(storage.get_tokens())) == []


@covers("tracebacks-masked")
def test_a_config_that_cannot_be_read(
    trackers: Trackers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "hermes"
    home.mkdir()
    secret = "configured-client-secret"
    entry = {"url": "https://mcp.example/mcp", "oauth": {"client_id": "c", "client_secret": secret}}
    trackers.more.add(secret)
    monkeypatch.setenv("HERMES_HOME", str(home))
    (home / "config.yaml").write_text(json.dumps({"mcp_servers": {"notes": entry}}))
    with monkeypatch.context() as patch:
        boom(patch, trackers, "config._read_server")
        for _, auth in LIBRARIES.values():
            error = caught(lambda auth=auth: auth("notes"))  # type: ignore[misc]
            assert isinstance(error, Boom)
            assert trackers.leaks(error) == []
    for broken in ("mcp_servers: {notes: {oauth: {client_secret: " + secret + ", a: [}}}", f"{secret}: {{"):
        (home / "config.yaml").write_text(broken)
        error = caught(lambda: LIBRARIES["httpx"][1]("notes"))
        assert isinstance(error, McpAuthError)
        assert trackers.leaks(error) == []
