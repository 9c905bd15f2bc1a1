"""The MCP SDK 2.x with our store: the SDK logs in, our service refreshes, and both share a session."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Literal

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken

from hermes_mcp_auth_remote.auth.storage import SharedTokenStorage
from hermes_mcp_auth_remote.errors import AuthorizationRequired, ConfigError, NetworkError, ServerError
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Secret, Server, ServerOptions
from tests.auth.sdk import (
    CALLBACK,
    FakeUser,
    make_provider,
    make_storage,
    read_credential_files,
    request_steps,
)
from tests.consent_form import deny
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import make_logged_in_service

pytestmark = pytest.mark.slow


def send_requests(provider: OAuthClientProvider, url: str, times: int = 1) -> list[int]:
    """Send `times` requests at once, as an app does. Return their statuses."""

    async def main() -> list[int]:
        async with httpx2.AsyncClient(auth=provider, timeout=20) as client:
            answers = await asyncio.gather(*(client.get(url) for _ in range(times)))
            return [answer.status_code for answer in answers]

    return asyncio.run(main())


def open_service(home: Path, clock: ManualClock) -> AuthService:
    """Return the service of another process, with empty caches."""
    return AuthService(home, clock=clock)


@covers("sdk-storage")
@pytest.mark.parametrize("kind", [OAuthClientProvider, None], ids=["storage alone", "shared provider"])
def test_a_login_of_the_sdk_is_shared_and_refreshed_by_the_service(
    service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    tmp_path: Path,
    kind: type[OAuthClientProvider] | None,
) -> None:
    user = FakeUser()
    provider = make_provider(make_storage(service, server, clock), user, server.url, kind=kind)
    assert send_requests(provider, server.url) == [200]
    assert len(user.opened_urls) == 1
    assert sorted(read_credential_files(tmp_path)) == [
        "notes.binding.json",
        "notes.client.json",
        "notes.json",
        "notes.meta.json",
    ]
    other_service = open_service(tmp_path, clock)
    connection = other_service.blocking.connection(server)
    assert connection is not None
    assert connection.issuer == demo.authorization_server.issuer
    assert connection.can_refresh
    stored = other_service.blocking.read_credentials(server)
    assert stored.tokens is not None
    assert stored.binding is not None
    assert stored.binding.resource == server.url
    token = asyncio.run(other_service.session(server).header())
    assert token == stored.tokens.authorization_header
    clock.now += 4000
    assert asyncio.run(other_service.session(server).header()) != token
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("sdk-storage")
def test_a_login_of_the_service_is_used_by_the_sdk_from_its_first_request(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    user = FakeUser()
    assert send_requests(
        make_provider(make_storage(logged_in_service, server, clock), user, server.url), server.url
    ) == [200]
    assert (request_steps(demo), user.opened_urls) == (["ping"], [])


@covers("sdk-storage")
@pytest.mark.parametrize("kind", [OAuthClientProvider, None], ids=["storage alone", "shared provider"])
def test_an_expired_token_is_refreshed_before_the_first_request_of_the_sdk(
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    kind: type[OAuthClientProvider] | None,
) -> None:
    clock.now += 4000
    user = FakeUser()
    storage = make_storage(logged_in_service, server, clock)
    assert send_requests(make_provider(storage, user, server.url, kind=kind), server.url) == [200]
    assert (request_steps(demo), user.opened_urls) == (["refresh", "ping"], [])


@covers("sdk-provider")
def test_a_token_that_expires_or_is_revoked_while_the_sdk_runs_is_refreshed(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    user = FakeUser()
    provider = make_provider(make_storage(logged_in_service, server, clock), user, server.url)
    assert send_requests(provider, server.url) == [200]
    demo.authorization_server.ledger.revoke_access_tokens()
    assert send_requests(provider, server.url, 10) == [200] * 10
    assert demo.authorization_server.count_requests("refresh") == 1
    clock.now += 4000
    assert send_requests(provider, server.url, 10) == [200] * 10
    assert demo.authorization_server.count_requests("refresh") == 2
    assert user.opened_urls == []


@covers("sdk-provider")
def test_a_token_that_another_process_refreshed_is_used(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    user = FakeUser()
    provider = make_provider(make_storage(logged_in_service, server, clock), user, server.url)
    assert send_requests(provider, server.url) == [200]
    clock.now += 4000
    asyncio.run(open_service(tmp_path, clock).session(server).header())
    assert send_requests(provider, server.url) == [200]
    assert (demo.authorization_server.count_requests("refresh"), user.opened_urls) == (1, [])


@covers("sdk-provider")
@pytest.mark.parametrize("before", ["no session", "an ended session"])
def test_ten_requests_that_need_a_login_prompt_once(
    service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path, before: str
) -> None:
    if before != "no session":
        make_logged_in_service(tmp_path, demo, clock)
        demo.authorization_server.ledger.revoke_everything()
    user = FakeUser()
    provider = make_provider(make_storage(service, server, clock), user, server.url)
    assert send_requests(provider, server.url, 10) == [200] * 10
    assert len(user.opened_urls) == 1
    assert demo.authorization_server.count_requests("token") == 1
    demo.authorization_server.requests.clear()
    clock.now += 4000
    assert send_requests(provider, server.url, 10) == [200] * 10
    assert (len(user.opened_urls), demo.authorization_server.count_requests("refresh")) == (1, 1)


def test_a_refused_request_is_repeated_once(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    demo.authorization_server.ledger.revoke_everything()
    provider = make_provider(make_storage(logged_in_service, server, clock), FakeUser(), server.url)
    assert send_requests(provider, server.url) == [200]
    # The server refused the first request and answered the second.
    assert (
        demo.authorization_server.count_requests("ping"),
        demo.authorization_server.count_requests("refresh"),
    ) == (2, 1)


@covers("sdk-provider")
def test_a_failed_login_leaves_the_stored_credentials_unchanged(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    demo.authorization_server.ledger.revoke_everything()
    before = read_credential_files(tmp_path)
    provider = make_provider(make_storage(logged_in_service, server, clock), FakeUser(deny), server.url)
    with pytest.raises(OAuthFlowError):
        send_requests(provider, server.url)
    after = read_credential_files(tmp_path)
    assert {name: after[name] for name in after if "binding" not in name} == {
        name: before[name] for name in before if "binding" not in name
    }
    connection = open_service(tmp_path, clock).blocking.connection(server)
    assert connection is not None
    assert connection.login_needed is not None


def test_a_server_that_is_down_raises_an_error_and_does_not_prompt(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    clock.now += 4000
    demo.authorization_server.fail_next("refresh", status=503, times=None)
    user = FakeUser()
    provider = make_provider(make_storage(logged_in_service, server, clock), user, server.url)
    with pytest.raises((ServerError, NetworkError)):
        send_requests(provider, server.url)
    assert user.opened_urls == []


@covers("sdk-provider")
def test_the_sdk_requests_more_scope_in_addition_to_the_granted_scope(
    logged_in_service: AuthService, demo: Demo, clock: ManualClock, server: Server
) -> None:
    demo.authorization_server.change_behaviour(required_scope=frozenset({"mcp:write"}))
    user = FakeUser()
    provider = make_provider(make_storage(logged_in_service, server, clock), user, server.url)
    assert send_requests(provider, server.url) == [200]
    assert len(user.opened_urls) == 1
    connection = logged_in_service.blocking.connection(server)
    assert connection is not None
    assert connection.scope is not None
    assert {"mcp:write", "mcp:tools"} <= connection.scope


@covers("sdk-storage")
@pytest.mark.parametrize("uri_source", ["provider", "storage"])
def test_a_client_with_another_redirect_uri_is_not_used(
    logged_in_service: AuthService, server: Server, clock: ManualClock, uri_source: str
) -> None:
    async def main() -> None:
        alone = make_storage(logged_in_service, server, clock)
        assert await alone.get_client_info() is not None
        if uri_source == "provider":
            provider = make_provider(alone, FakeUser(), server.url)
            async with httpx2.AsyncClient(auth=provider) as client:
                await client.get(server.url)
            storage = alone
        else:
            storage = make_storage(logged_in_service, server, clock, redirect_uri=CALLBACK)
        assert await storage.get_client_info() is None

    asyncio.run(main())


def test_the_sdk_logs_in_again_with_the_client_that_it_registered(
    service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    user = FakeUser()
    assert send_requests(
        make_provider(make_storage(service, server, clock), user, server.url), server.url
    ) == [200]
    demo.authorization_server.ledger.revoke_everything()
    fresh = make_storage(open_service(tmp_path, clock), server, clock)
    assert send_requests(make_provider(fresh, user, server.url), server.url) == [200]
    assert (len(user.opened_urls), demo.authorization_server.count_requests("registration")) == (2, 1)


def test_a_configured_client_is_returned_to_the_sdk(
    service: AuthService, server: Server, clock: ManualClock
) -> None:
    options = ServerOptions(client_id="ours", client_secret=Secret("a-client-secret"))
    storage = make_storage(service, Server(server.name, server.url, options), clock, redirect_uri=CALLBACK)
    info = asyncio.run(storage.get_client_info())
    assert info is not None
    assert (info.client_id, info.client_secret) == ("ours", "a-client-secret")
    assert info.token_endpoint_auth_method == "client_secret_post"
    assert [str(uri) for uri in info.redirect_uris or ()] == [CALLBACK]


@covers("sdk-storage")
def test_the_refresh_token_is_not_returned_to_the_sdk(
    logged_in_service: AuthService, server: Server, clock: ManualClock
) -> None:
    tokens = asyncio.run(make_storage(logged_in_service, server, clock).get_tokens())
    assert tokens is not None
    assert tokens.refresh_token is None
    assert tokens.expires_in is not None
    assert 3500 < tokens.expires_in <= 3600
    assert tokens.scope is not None


def test_a_client_that_the_sdk_registers_is_not_stored_before_its_tokens(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    before = read_credential_files(tmp_path)

    def abandon_login(url: str) -> str:
        raise TimeoutError

    demo.authorization_server.ledger.revoke_everything()
    provider = make_provider(
        make_storage(logged_in_service, server, clock), FakeUser(abandon_login), server.url
    )
    with pytest.raises(TimeoutError):
        send_requests(provider, server.url)
    assert demo.authorization_server.count_requests("registration") == 1
    assert read_credential_files(tmp_path)["notes.client.json"] == before["notes.client.json"]


def test_tokens_are_stored_even_if_the_authorization_server_is_not_found(
    service: AuthService, server: Server, demo: Demo, clock: ManualClock, tmp_path: Path
) -> None:
    user = FakeUser()

    def approve_and_break_discovery(url: str) -> str:
        from tests.consent_form import approve

        ended = approve(url)
        demo.authorization_server.fail_next("protected_resource_metadata", status=503, times=None)
        return ended

    user.answer_login = approve_and_break_discovery
    storage = make_storage(service, server, clock)
    provider = make_provider(storage, user, server.url, kind=OAuthClientProvider)
    assert send_requests(provider, server.url) == [200]
    assert sorted(read_credential_files(tmp_path)) == ["notes.client.json", "notes.json"]
    assert asyncio.run(open_service(tmp_path, clock).session(server).header())


@covers("server-query")
@pytest.mark.parametrize("resource", [None, False, "api://notes"])
def test_a_login_of_the_sdk_stores_the_same_resource_as_one_of_the_service(
    service: AuthService, demo: Demo, clock: ManualClock, resource: str | Literal[False] | None
) -> None:
    options = ServerOptions(resource=resource)
    server = Server("notes", f"{demo.ping_url}?project_ref=1&key=k", options)
    storage = make_storage(service, server, clock)

    async def main() -> None:
        await storage.set_client_info(
            OAuthClientInformationFull.model_validate({"client_id": "an-app", "redirect_uris": [CALLBACK]})
        )
        # At the second call, the store already has everything but the resource.
        for token in ("a-first-token", "a-second-token"):
            await storage.set_tokens(OAuthToken(access_token=token, expires_in=3600))
            binding = service.blocking.read_credentials(server).binding
            assert binding is not None
            assert binding.resource == (demo.ping_url if resource is None else resource or None)

    asyncio.run(main())


def test_a_name_of_another_address_is_refused_before_any_request(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    with pytest.raises(ConfigError, match="already belongs to"):
        make_storage(logged_in_service, Server(server.name, demo.mcp_url), clock)


@covers("token-address")
def test_another_address_gets_no_token_and_starts_no_login(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    user = FakeUser()
    provider = make_provider(make_storage(logged_in_service, server, clock), user, server.url)
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    assert send_requests(provider, elsewhere) == [401]
    assert user.opened_urls == []


def test_a_synchronous_client_gets_a_token(
    logged_in_service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    provider = make_provider(make_storage(logged_in_service, server, clock), FakeUser(), server.url)
    demo.authorization_server.ledger.revoke_access_tokens()
    with httpx2.Client(auth=provider, timeout=20) as client:
        assert client.get(server.url).status_code == 200


def test_a_synchronous_client_that_needs_a_login_raises_an_error(
    service: AuthService, server: Server, clock: ManualClock
) -> None:
    provider = make_provider(make_storage(service, server, clock), FakeUser(), server.url)
    with httpx2.Client(auth=provider) as client, pytest.raises(AuthorizationRequired):
        client.get(server.url)


def test_a_provider_with_its_own_storage_uses_the_shared_one(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERMES_HOME", str(tmp_path / "another"))
    provider = make_provider({}, FakeUser(), demo.ping_url)
    assert send_requests(provider, demo.ping_url) == [200]
    assert isinstance(provider.context.storage, SharedTokenStorage)
    assert len(read_credential_files(tmp_path / "another")) == 4


def test_an_sdk_session_calls_tools_across_a_refresh(
    service: AuthService, demo: Demo, clock: ManualClock
) -> None:
    url, user = demo.mcp_url, FakeUser()
    provider = make_provider(make_storage(service, Server("tools", url), clock), user, url)

    async def main() -> list[str]:
        async with (
            httpx2.AsyncClient(auth=provider, timeout=20) as http_client,
            Client(streamable_http_client(url, http_client=http_client)) as client,
        ):
            results: list[str] = []
            for _ in range(2):
                result = await client.call_tool("add", {"a": 2, "b": 3})
                results.append(json.dumps(result.model_dump(mode="json")["content"][0]["text"]))
                clock.now += 4000
            return results

    first, second = asyncio.run(main())
    assert first == second
    assert (len(user.opened_urls), demo.authorization_server.count_requests("refresh") > 0) == (1, True)


class WatchedLock(asyncio.Lock):
    """A lock with an event that is set when a task acquires it."""

    def __init__(self) -> None:
        super().__init__()
        self.acquire_event = asyncio.Event()

    async def acquire(self) -> Literal[True]:
        self.acquire_event.set()
        return await super().acquire()


def test_a_login_elsewhere_is_used_by_a_request_that_waits_for_one(
    service: AuthService,
    server: Server,
    demo: Demo,
    clock: ManualClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    user = FakeUser()
    storage = make_storage(service, server, clock)
    provider = make_provider(storage, user, server.url)

    async def main() -> int:
        lock = WatchedLock()
        monkeypatch.setattr(storage, "login_lock", lambda: lock)
        await lock.acquire()
        lock.acquire_event.clear()
        async with httpx2.AsyncClient(auth=provider, timeout=20) as client:
            waiting = asyncio.create_task(client.get(server.url))
            await lock.acquire_event.wait()
            await asyncio.to_thread(make_logged_in_service, tmp_path, demo, clock)
            lock.release()
            return (await waiting).status_code

    assert asyncio.run(main()) == 200
    assert user.opened_urls == []


def test_a_provider_works_in_one_event_loop_after_another(
    service: AuthService, server: Server, demo: Demo, clock: ManualClock
) -> None:
    user = FakeUser()
    provider = make_provider(make_storage(service, server, clock), user, server.url)
    for times in (1, 2):
        assert send_requests(provider, server.url, 10) == [200] * 10
        assert len(user.opened_urls) == times
        demo.authorization_server.ledger.revoke_everything()
