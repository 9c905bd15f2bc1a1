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
from tests.demo.manual_client import ManualClock
from tests.error_trackers import ErrorTrackers, catch_error
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.test_traceback_redaction import GRANTED, InjectedError, inject_error

pytestmark = pytest.mark.slow

LIBRARIES = {
    "httpx": (httpx, hermes_mcp_auth_remote.auth.httpx.McpAuth),
    "httpx2": (httpx2, hermes_mcp_auth_remote.auth.httpx2.McpAuth),
}
FAILING_FUNCTIONS = (
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
def trackers(demo: Demo) -> Iterator[ErrorTrackers]:
    trackers = ErrorTrackers(
        demo.authorization_server.minted_secrets, {GRANTED["access_token"], GRANTED["refresh_token"]}
    )
    with trackers.capture_error_logs():
        yield trackers
    assert trackers.find_sent_leaks() == []


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
def test_a_failing_refresh_leaks_nothing(
    ask: Any,
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    trackers: ErrorTrackers,
) -> None:
    clock.now += 3600
    body = json.dumps({**GRANTED, "token_type": "mac"})
    demo.authorization_server.fail_next("refresh", times=None, status=200, body=body)
    error = catch_error(lambda: ask(logged_in_service.session(server), demo.ping_url))
    assert isinstance(error, McpAuthError)
    assert trackers.find_leaks(error) == []


@covers("tracebacks-masked")
@pytest.mark.parametrize("function_path", FAILING_FUNCTIONS)
def test_an_error_during_a_refused_request_leaks_nothing(
    ask: Any,
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    trackers: ErrorTrackers,
    monkeypatch: pytest.MonkeyPatch,
    function_path: str,
) -> None:
    # Cache a token: the flow holds it while it waits for another token.
    asyncio.run(logged_in_service.session(server).header())
    demo.authorization_server.ledger.revoke_access_tokens()
    leaking_frames = inject_error(monkeypatch, trackers, function_path)
    error = catch_error(lambda: ask(logged_in_service.session(server), demo.ping_url))
    assert isinstance(error, InjectedError)
    assert trackers.find_leaks(error) == []
    assert [frame for frame in leaking_frames if ".auth." in frame or ".service." in frame] == []


def make_provider(service: AuthService, server: Server) -> OAuthClientProvider:
    metadata = OAuthClientMetadata.model_validate({"redirect_uris": ["http://127.0.0.1:51234/callback"]})
    storage = SharedTokenStorage(server, service=service)
    return shared_provider(OAuthClientProvider)(server.url, metadata, storage)


@covers("tracebacks-masked")
@pytest.mark.parametrize(
    "function_path", ["service.sessions.Session.header", "store.files.credential_files.FileStore.save_tokens"]
)
def test_an_error_in_the_sdk_provider_or_its_storage_leaks_nothing(
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    trackers: ErrorTrackers,
    monkeypatch: pytest.MonkeyPatch,
    function_path: str,
) -> None:
    async def main() -> None:
        async with httpx2.AsyncClient(auth=make_provider(logged_in_service, server)) as client:
            await client.get(demo.ping_url)

    clock.now += 3600
    inject_error(monkeypatch, trackers, function_path)
    assert trackers.find_leaks(catch_error(main())) == []
    storage = SharedTokenStorage(server, service=logged_in_service)
    assert trackers.find_leaks(catch_error(storage.get_tokens())) == []


@covers("tracebacks-masked")
def test_an_unreadable_config_leaks_nothing(
    trackers: ErrorTrackers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "hermes"
    home.mkdir()
    secret = "configured-client-secret"
    entry = {"url": "https://mcp.example/mcp", "oauth": {"client_id": "c", "client_secret": secret}}
    trackers.extra_secrets.add(secret)
    monkeypatch.setenv("HERMES_HOME", str(home))
    (home / "config.yaml").write_text(json.dumps({"mcp_servers": {"notes": entry}}))
    with monkeypatch.context() as patch:
        inject_error(patch, trackers, "config.configuration.read_server")
        for _, auth in LIBRARIES.values():
            error = catch_error(lambda auth=auth: auth("notes"))  # type: ignore[misc]
            assert isinstance(error, InjectedError)
            assert trackers.find_leaks(error) == []
    for broken in ("mcp_servers: {notes: {oauth: {client_secret: " + secret + ", a: [}}}", f"{secret}: {{"):
        (home / "config.yaml").write_text(broken)
        error = catch_error(lambda: LIBRARIES["httpx"][1]("notes"))
        assert isinstance(error, McpAuthError)
        assert trackers.find_leaks(error) == []
