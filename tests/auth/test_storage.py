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
from tests.auth.sdk import CALLBACK, Person, files, provider_of, steps, storage_of
from tests.browserless import deny
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.given import logged_in

pytestmark = pytest.mark.slow


def ask(provider: OAuthClientProvider, url: str, times: int = 1) -> list[int]:
    """Send `times` requests at once, as an app does. Return their statuses."""

    async def main() -> list[int]:
        async with httpx2.AsyncClient(auth=provider, timeout=20) as client:
            answers = await asyncio.gather(*(client.get(url) for _ in range(times)))
            return [answer.status_code for answer in answers]

    return asyncio.run(main())


def another(home: Path, clock: MovedClock) -> AuthService:
    """Return the service of another process, with empty caches."""
    return AuthService(home, clock=clock)


@covers("sdk-storage")
@pytest.mark.parametrize("kind", [OAuthClientProvider, None], ids=["storage alone", "shared provider"])
def test_what_the_sdk_logged_in_is_everybodys_and_renews_itself(
    service: AuthService,
    server: Server,
    demo: Demo,
    clock: MovedClock,
    tmp_path: Path,
    kind: type[OAuthClientProvider] | None,
) -> None:
    person = Person()
    provider = provider_of(storage_of(service, server, clock), person, server.url, kind=kind)
    assert ask(provider, server.url) == [200]
    assert len(person.asked) == 1
    assert sorted(files(tmp_path)) == [
        "notes.binding.json",
        "notes.client.json",
        "notes.json",
        "notes.meta.json",
    ]
    ours = another(tmp_path, clock)
    found = ours.connection(server)
    assert found is not None
    assert found.issuer == demo.authorization_server.issuer
    assert found.can_refresh
    stored = ours.read_credentials(server)
    assert stored.tokens is not None
    assert stored.binding is not None
    assert stored.binding.resource == server.url
    token = asyncio.run(ours.session(server).header())
    assert token == stored.tokens.authorization_header
    clock.now += 4000
    assert asyncio.run(ours.session(server).header()) != token
    assert demo.authorization_server.count_requests("refresh") == 1


@covers("sdk-storage")
def test_what_we_logged_in_is_the_sdks_from_its_first_request(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    person = Person()
    assert ask(provider_of(storage_of(session_kept, server, clock), person, server.url), server.url) == [200]
    assert (steps(demo), person.asked) == (["ping"], [])


@covers("sdk-storage")
@pytest.mark.parametrize("kind", [OAuthClientProvider, None], ids=["storage alone", "shared provider"])
def test_an_ended_token_is_refreshed_before_the_sdks_first_request_and_nobody_is_asked(
    session_kept: AuthService,
    server: Server,
    demo: Demo,
    clock: MovedClock,
    kind: type[OAuthClientProvider] | None,
) -> None:
    clock.now += 4000
    person = Person()
    storage = storage_of(session_kept, server, clock)
    assert ask(provider_of(storage, person, server.url, kind=kind), server.url) == [200]
    assert (steps(demo), person.asked) == (["refresh", "ping"], [])


@covers("sdk-provider")
def test_a_token_that_ends_or_is_revoked_while_the_sdk_runs_is_renewed_by_us(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    person = Person()
    provider = provider_of(storage_of(session_kept, server, clock), person, server.url)
    assert ask(provider, server.url) == [200]
    demo.authorization_server.ledger.revoke_access_tokens()
    assert ask(provider, server.url, 10) == [200] * 10
    assert demo.authorization_server.count_requests("refresh") == 1
    clock.now += 4000
    assert ask(provider, server.url, 10) == [200] * 10
    assert demo.authorization_server.count_requests("refresh") == 2
    assert person.asked == []


@covers("sdk-provider")
def test_what_another_process_refreshed_is_used(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    person = Person()
    provider = provider_of(storage_of(session_kept, server, clock), person, server.url)
    assert ask(provider, server.url) == [200]
    clock.now += 4000
    asyncio.run(another(tmp_path, clock).session(server).header())
    assert ask(provider, server.url) == [200]
    assert (demo.authorization_server.count_requests("refresh"), person.asked) == (1, [])


@covers("sdk-provider")
@pytest.mark.parametrize("before", ["no session", "an ended session"])
def test_ten_requests_that_need_a_person_ask_one_once(
    service: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path, before: str
) -> None:
    if before != "no session":
        logged_in(tmp_path, demo, clock)
        demo.authorization_server.ledger.revoke_everything()
    person = Person()
    provider = provider_of(storage_of(service, server, clock), person, server.url)
    assert ask(provider, server.url, 10) == [200] * 10
    assert len(person.asked) == 1
    assert demo.authorization_server.count_requests("token") == 1
    demo.authorization_server.requests.clear()
    clock.now += 4000
    assert ask(provider, server.url, 10) == [200] * 10
    assert (len(person.asked), demo.authorization_server.count_requests("refresh")) == (1, 1)


def test_the_refused_answer_is_not_asked_for_again(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    demo.authorization_server.ledger.revoke_everything()
    provider = provider_of(storage_of(session_kept, server, clock), Person(), server.url)
    assert ask(provider, server.url) == [200]
    # The server refused the first request and answered the second.
    assert (
        demo.authorization_server.count_requests("ping"),
        demo.authorization_server.count_requests("refresh"),
    ) == (2, 1)


@covers("sdk-provider")
def test_a_login_that_fails_leaves_what_was_stored(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    demo.authorization_server.ledger.revoke_everything()
    before = files(tmp_path)
    provider = provider_of(storage_of(session_kept, server, clock), Person(deny), server.url)
    with pytest.raises(OAuthFlowError):
        ask(provider, server.url)
    after = files(tmp_path)
    assert {name: after[name] for name in after if "binding" not in name} == {
        name: before[name] for name in before if "binding" not in name
    }
    found = another(tmp_path, clock).connection(server)
    assert found is not None
    assert found.login_needed is not None


def test_a_provider_that_is_down_is_an_error_and_no_reason_to_ask_a_person(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    clock.now += 4000
    demo.authorization_server.fail_next("refresh", status=503, times=None)
    person = Person()
    provider = provider_of(storage_of(session_kept, server, clock), person, server.url)
    with pytest.raises((ServerError, NetworkError)):
        ask(provider, server.url)
    assert person.asked == []


@covers("sdk-provider")
def test_more_scope_is_asked_for_by_the_sdk_on_top_of_what_was_granted(
    session_kept: AuthService, demo: Demo, clock: MovedClock, server: Server
) -> None:
    demo.authorization_server.change_behaviour(required_scope=frozenset({"mcp:write"}))
    person = Person()
    provider = provider_of(storage_of(session_kept, server, clock), person, server.url)
    assert ask(provider, server.url) == [200]
    assert len(person.asked) == 1
    found = session_kept.connection(server)
    assert found is not None
    assert found.scope is not None
    assert {"mcp:write", "mcp:tools"} <= found.scope


@covers("sdk-storage")
@pytest.mark.parametrize("told_by", ["provider", "storage"])
def test_a_client_that_was_registered_for_another_redirect_uri_is_not_used(
    session_kept: AuthService, server: Server, clock: MovedClock, told_by: str
) -> None:
    async def main() -> None:
        alone = storage_of(session_kept, server, clock)
        assert await alone.get_client_info() is not None
        if told_by == "provider":
            provider = provider_of(alone, Person(), server.url)
            async with httpx2.AsyncClient(auth=provider) as client:
                await client.get(server.url)
            told = alone
        else:
            told = storage_of(session_kept, server, clock, redirect_uri=CALLBACK)
        assert await told.get_client_info() is None

    asyncio.run(main())


def test_the_sdk_logs_in_again_with_the_client_that_it_registered(
    service: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    person = Person()
    assert ask(provider_of(storage_of(service, server, clock), person, server.url), server.url) == [200]
    demo.authorization_server.ledger.revoke_everything()
    fresh = storage_of(another(tmp_path, clock), server, clock)
    assert ask(provider_of(fresh, person, server.url), server.url) == [200]
    assert (len(person.asked), demo.authorization_server.count_requests("registration")) == (2, 1)


def test_a_configured_client_is_handed_out(service: AuthService, server: Server, clock: MovedClock) -> None:
    options = ServerOptions(client_id="ours", client_secret=Secret("a-client-secret"))
    storage = storage_of(service, Server(server.name, server.url, options), clock, redirect_uri=CALLBACK)
    info = asyncio.run(storage.get_client_info())
    assert info is not None
    assert (info.client_id, info.client_secret) == ("ours", "a-client-secret")
    assert info.token_endpoint_auth_method == "client_secret_post"
    assert [str(uri) for uri in info.redirect_uris or ()] == [CALLBACK]


@covers("sdk-storage")
def test_the_refresh_token_stays_with_us(
    session_kept: AuthService, server: Server, clock: MovedClock
) -> None:
    tokens = asyncio.run(storage_of(session_kept, server, clock).get_tokens())
    assert tokens is not None
    assert tokens.refresh_token is None
    assert tokens.expires_in is not None
    assert 3500 < tokens.expires_in <= 3600
    assert tokens.scope is not None


def test_a_client_of_the_sdks_is_not_stored_before_its_tokens_are(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    before = files(tmp_path)

    def goes_away(url: str) -> str:
        raise TimeoutError

    demo.authorization_server.ledger.revoke_everything()
    provider = provider_of(storage_of(session_kept, server, clock), Person(goes_away), server.url)
    with pytest.raises(TimeoutError):
        ask(provider, server.url)
    assert demo.authorization_server.count_requests("registration") == 1
    assert files(tmp_path)["notes.client.json"] == before["notes.client.json"]


def test_tokens_are_kept_also_where_nobody_finds_the_authorization_server(
    service: AuthService, server: Server, demo: Demo, clock: MovedClock, tmp_path: Path
) -> None:
    person = Person()

    def approves_and_breaks(url: str) -> str:
        from tests.browserless import approve

        ended = approve(url)
        demo.authorization_server.fail_next("protected_resource_metadata", status=503, times=None)
        return ended

    person.does = approves_and_breaks
    storage = storage_of(service, server, clock)
    provider = provider_of(storage, person, server.url, kind=OAuthClientProvider)
    assert ask(provider, server.url) == [200]
    assert sorted(files(tmp_path)) == ["notes.client.json", "notes.json"]
    assert asyncio.run(another(tmp_path, clock).session(server).header())


@covers("server-query")
@pytest.mark.parametrize("resource", [None, False, "api://notes"])
def test_a_server_whose_metadata_is_known_is_named_as_a_login_of_ours_names_it(
    service: AuthService, demo: Demo, clock: MovedClock, resource: str | Literal[False] | None
) -> None:
    options = ServerOptions(resource=resource)
    server = Server("notes", f"{demo.ping_url}?project_ref=1&key=k", options)
    storage = storage_of(service, server, clock)

    async def main() -> None:
        await storage.set_client_info(
            OAuthClientInformationFull.model_validate({"client_id": "an-app", "redirect_uris": [CALLBACK]})
        )
        # At the second call, the store already has everything but the resource.
        for token in ("a-first-token", "a-second-token"):
            await storage.set_tokens(OAuthToken(access_token=token, expires_in=3600))
            binding = service.read_credentials(server).binding
            assert binding is not None
            assert binding.resource == (demo.ping_url if resource is None else resource or None)

    asyncio.run(main())


def test_a_name_that_stands_for_another_address_is_refused_before_anything_is_asked(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    with pytest.raises(ConfigError, match="already stands for"):
        storage_of(session_kept, Server(server.name, demo.mcp_url), clock)


@covers("token-address")
def test_another_address_gets_no_token_and_starts_no_login(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    person = Person()
    provider = provider_of(storage_of(session_kept, server, clock), person, server.url)
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    assert ask(provider, elsewhere) == [401]
    assert person.asked == []


def test_a_synchronous_client_is_served_too(
    session_kept: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    provider = provider_of(storage_of(session_kept, server, clock), Person(), server.url)
    demo.authorization_server.ledger.revoke_access_tokens()
    with httpx2.Client(auth=provider, timeout=20) as client:
        assert client.get(server.url).status_code == 200


def test_a_synchronous_client_that_needs_a_person_says_so(
    service: AuthService, server: Server, clock: MovedClock
) -> None:
    provider = provider_of(storage_of(service, server, clock), Person(), server.url)
    with httpx2.Client(auth=provider) as client, pytest.raises(AuthorizationRequired):
        client.get(server.url)


def test_a_provider_with_a_storage_of_its_own_is_given_ours(
    tmp_path: Path, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERMES_HOME", str(tmp_path / "another"))
    provider = provider_of({}, Person(), demo.ping_url)
    assert ask(provider, demo.ping_url) == [200]
    assert isinstance(provider.context.storage, SharedTokenStorage)
    assert len(files(tmp_path / "another")) == 4


def test_a_session_of_the_sdk_calls_tools_over_a_refresh(
    service: AuthService, demo: Demo, clock: MovedClock
) -> None:
    url, person = demo.mcp_url, Person()
    provider = provider_of(storage_of(service, Server("tools", url), clock), person, url)

    async def main() -> list[str]:
        async with (
            httpx2.AsyncClient(auth=provider, timeout=20) as http_client,
            Client(streamable_http_client(url, http_client=http_client)) as client,
        ):
            said: list[str] = []
            for _ in range(2):
                result = await client.call_tool("add", {"a": 2, "b": 3})
                said.append(json.dumps(result.model_dump(mode="json")["content"][0]["text"]))
                clock.now += 4000
            return said

    first, second = asyncio.run(main())
    assert first == second
    assert (len(person.asked), demo.authorization_server.count_requests("refresh") > 0) == (1, True)


class Watched(asyncio.Lock):
    """A lock with an event that is set when a task acquires it."""

    def __init__(self) -> None:
        super().__init__()
        self.waited = asyncio.Event()

    async def acquire(self) -> Literal[True]:
        self.waited.set()
        return await super().acquire()


def test_a_login_elsewhere_while_a_request_waits_for_one_is_used(
    service: AuthService,
    server: Server,
    demo: Demo,
    clock: MovedClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    person = Person()
    storage = storage_of(service, server, clock)
    provider = provider_of(storage, person, server.url)

    async def main() -> int:
        lock = Watched()
        monkeypatch.setattr(storage, "login_lock", lambda: lock)
        await lock.acquire()
        lock.waited.clear()
        async with httpx2.AsyncClient(auth=provider, timeout=20) as client:
            waiting = asyncio.create_task(client.get(server.url))
            await lock.waited.wait()
            await asyncio.to_thread(logged_in, tmp_path, demo, clock)
            lock.release()
            return (await waiting).status_code

    assert asyncio.run(main()) == 200
    assert person.asked == []


def test_a_provider_serves_one_event_loop_after_another(
    service: AuthService, server: Server, demo: Demo, clock: MovedClock
) -> None:
    person = Person()
    provider = provider_of(storage_of(service, server, clock), person, server.url)
    for times in (1, 2):
        assert ask(provider, server.url, 10) == [200] * 10
        assert len(person.asked) == times
        demo.authorization_server.ledger.revoke_everything()
