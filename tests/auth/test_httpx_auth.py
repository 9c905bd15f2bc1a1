"""Requests carry the token, with httpx and with httpx2."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import TextContent

import hermes_mcp_auth_remote.auth.httpx
import hermes_mcp_auth_remote.auth.httpx2
from hermes_mcp_auth_remote.config import server_from_url
from hermes_mcp_auth_remote.errors import AuthorizationRequired, NetworkError, ServerNotFound
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.default import default_service
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.values import Server
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo, Fault, Gate
from tests.requirements import covers
from tests.service.helpers import log_in
from tests.store.builders import ROOT

pytestmark = pytest.mark.slow

LIBRARIES = [
    (httpx, hermes_mcp_auth_remote.auth.httpx),
    (httpx2, hermes_mcp_auth_remote.auth.httpx2),
]


class HttpLibrary:
    """One of the two HTTP libraries, with our auth class for it."""

    def __init__(self, library: ModuleType, ours: ModuleType) -> None:
        self.library: Any = library
        self.auth: Any = ours.__dict__["McpAuth"]

    def client_options(self, session: Session | str, options: dict[str, Any]) -> dict[str, Any]:
        """Return the client options. The option `connections` is the size of the client's pool."""
        limits = self.library.Limits(max_connections=options.pop("connections", 100))
        return {"auth": self.auth(session), "timeout": 20, "limits": limits, **options}

    @asynccontextmanager
    async def client(self, session: Session | str, **options: Any) -> AsyncIterator[Any]:
        async with self.library.AsyncClient(**self.client_options(session, options)) as client:
            yield client

    def ask(self, session: Session | str, method: str, url: str, **options: Any) -> Any:
        """Send one request with a new client. The option `client` holds the client's options."""

        async def main() -> Any:
            async with self.client(session, **options.pop("client", {})) as client:
                return await client.request(method, url, **options)

        return asyncio.run(main())

    def ask_blocking(self, session: Session | str, method: str, url: str, **options: Any) -> Any:
        with self.library.Client(**self.client_options(session, options.pop("client", {}))) as client:
            return client.request(method, url, **options)


@pytest.fixture(params=LIBRARIES, ids=["httpx", "httpx2"])
def http_library(request: pytest.FixtureRequest) -> HttpLibrary:
    return HttpLibrary(*request.param)


@pytest.fixture(params=["ask", "ask_blocking"], ids=["async", "sync"])
def ask(request: pytest.FixtureRequest, http_library: HttpLibrary) -> Any:
    return getattr(http_library, request.param)


@pytest.fixture
def session(logged_in_service: AuthService, server: Server) -> Session:
    return logged_in_service.session(server)


def request_steps(demo: Demo) -> list[tuple[str, bool]]:
    """Return the step of each request, and whether it carried a token."""
    return [
        (request.step, "bearer" in request.headers.get("authorization", "").lower())
        for request in demo.authorization_server.requests
    ]


def test_a_request_carries_the_token(ask: Any, session: Session, demo: Demo) -> None:
    assert ask(session, "GET", demo.ping_url).json()["pong"] is True
    assert request_steps(demo) == [("ping", True)]


@covers("bearer-case")
def test_quirk_21_the_header_says_bearer_with_a_capital_letter(
    ask: Any, session: Session, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(exact_bearer=True, token_overrides={"token_type": "bearer"})
    assert ask(session, "GET", demo.ping_url).status_code == 200


def test_after_a_401_the_request_is_repeated_with_its_body_and_a_new_token(
    ask: Any, session: Session, demo: Demo
) -> None:
    demo.authorization_server.ledger.revoke_access_tokens()
    answer = ask(session, "POST", demo.ping_url, json={"text": "twice the same"}, headers={"X-Mine": "kept"})
    assert answer.status_code == 200
    first, refresh, second = demo.authorization_server.requests
    assert (first.step, refresh.step, second.step) == ("ping", "refresh", "ping")
    assert first.body == second.body != b""
    assert first.headers["x-mine"] == second.headers["x-mine"] == "kept"
    assert first.headers["authorization"] != second.headers["authorization"]
    # A header of the caller is not sent to the authorization server.
    assert "x-mine" not in refresh.headers


def test_a_repeated_401_ends_the_call_after_two_attempts(ask: Any, session: Session, demo: Demo) -> None:
    demo.authorization_server.fail_next(
        "ping", status=401, headers={"WWW-Authenticate": "Bearer"}, times=None
    )
    assert ask(session, "GET", demo.ping_url).status_code == 401
    assert request_steps(demo) == [("ping", True), ("refresh", False), ("ping", True)]


@covers("body-read")
def test_a_pool_of_one_connection_does_not_deadlock(ask: Any, session: Session, demo: Demo) -> None:
    demo.authorization_server.fail_next("ping", status=401, body=b"x" * 300_000)
    assert ask(session, "GET", demo.ping_url, client={"connections": 1}).status_code == 200
    assert request_steps(demo) == [("ping", True), ("refresh", False), ("ping", True)]


@covers("body-read")
def test_a_request_that_waits_for_a_token_holds_no_connection(
    http_library: HttpLibrary, session: Session, demo: Demo
) -> None:
    demo.authorization_server.fail_next("ping", status=401, body=b"x" * 300_000)
    gate = demo.authorization_server.hold("refresh")

    async def main() -> None:
        async with http_library.client(session, connections=1) as client:
            waiting = asyncio.create_task(client.get(demo.ping_url))
            await asyncio.to_thread(gate.arrived.wait, 20)
            # During the wait, the pool's only connection is free.
            assert (await client.get(demo.ping_url, auth=None)).status_code == 401
            gate.open()
            assert (await waiting).status_code == 200

    asyncio.run(main())


def test_a_403_is_returned_unless_insufficient_scope_requires_a_login(
    ask: Any, session: Session, demo: Demo
) -> None:
    demo.authorization_server.fail_next("ping", status=403, body=b"not for you")
    answer = ask(session, "GET", demo.ping_url)
    assert (answer.status_code, answer.content) == (403, b"not for you")
    demo.authorization_server.change_behaviour(required_scope=frozenset({"mcp:tools", "mcp:write"}))
    with pytest.raises(AuthorizationRequired, match="this request needs more access") as caught:
        ask(session, "GET", demo.ping_url)
    # The server chose the scope names, so a language model must not read them.
    assert "mcp:write" not in str(caught.value)
    assert "mcp:write" in (caught.value.server_message or "")
    assert demo.authorization_server.count_requests("refresh") == 0


@covers("no-address")
def test_the_error_that_asks_for_a_login_contains_no_address(ask: Any, session: Session, demo: Demo) -> None:
    demo.authorization_server.ledger.revoke_everything()
    with pytest.raises(AuthorizationRequired) as caught:
        ask(session, "GET", demo.ping_url)
    error = caught.value
    error_text = f"{error} {error.advice} {error!r} {error.reason}"
    assert "://" not in error_text
    assert demo.ping_url not in error_text
    assert (error.server_name, error.login_id) == ("notes", None)


@covers("token-address")
@pytest.mark.parametrize(
    "url", ["{issuer}/somewhere", "http://localhost:{port}/api/ping"], ids=["port", "host"]
)
def test_a_request_to_another_origin_carries_no_token(
    ask: Any, session: Session, demo: Demo, url: str
) -> None:
    port = httpx.URL(demo.ping_url).port
    ask(session, "GET", url.format(issuer=demo.issuer, port=port), headers={"Authorization": "Basic mine"})
    assert demo.authorization_server.requests[-1].headers["authorization"] == "Basic mine"
    assert ("refresh", False) not in request_steps(demo)


@covers("token-address")
def test_a_redirect_to_another_origin_carries_no_token_and_its_401_is_ignored(
    ask: Any, session: Session, demo: Demo
) -> None:
    demo.authorization_server.fail_next(
        "ping", status=307, headers={"Location": f"{demo.issuer}/elsewhere"}, times=None
    )
    demo.authorization_server.fail_next(
        "other", status=401, headers={"WWW-Authenticate": "Bearer"}, times=None
    )
    answer = ask(session, "POST", demo.ping_url, content=b"x", client={"follow_redirects": True})
    assert answer.status_code == 401
    assert request_steps(demo) == [("ping", True), ("other", False)]


def test_a_redirect_on_the_same_server_keeps_the_token(ask: Any, session: Session, demo: Demo) -> None:
    demo.authorization_server.fail_next("ping", status=307, headers={"Location": "/api/ping?again=1"})
    answer = ask(session, "GET", demo.ping_url, client={"follow_redirects": True})
    assert answer.status_code == 200
    assert request_steps(demo) == [("ping", True), ("ping", True)]


def test_a_refresh_with_a_network_error_raises_that_error(
    ask: Any, session: Session, demo: Demo, clock: ManualClock
) -> None:
    clock.now += 3600
    demo.authorization_server.fail_next("refresh", hang_up=True)
    with pytest.raises(NetworkError):
        ask(session, "GET", demo.ping_url)
    assert request_steps(demo) == [("refresh", False)]


@covers("side-by-side")
def test_a_hundred_simultaneous_requests_are_all_sent_before_one_is_answered(
    http_library: HttpLibrary, session: Session, demo: Demo
) -> None:
    gate = demo.authorization_server.hold("ping")

    async def main() -> set[int]:
        async with http_library.client(session) as client:
            calls = [asyncio.create_task(client.get(demo.ping_url)) for _ in range(100)]
            async with asyncio.timeout(30):
                while demo.authorization_server.count_requests("ping") < 100:
                    await asyncio.wait(calls, timeout=0.02)
            assert not any(call.done() for call in calls)
            gate.open()
            return {answer.status_code for answer in await asyncio.gather(*calls)}

    assert asyncio.run(main()) == {200}


def test_a_hundred_requests_with_an_expired_token_wait_for_one_refresh(
    http_library: HttpLibrary, session: Session, demo: Demo, clock: ManualClock
) -> None:
    clock.now += 3600

    async def main() -> set[int]:
        async with http_library.client(session) as client:
            calls = (client.get(demo.ping_url) for _ in range(100))
            return {answer.status_code for answer in await asyncio.gather(*calls)}

    assert asyncio.run(main()) == {200}
    assert (
        demo.authorization_server.count_requests("refresh"),
        demo.authorization_server.count_requests("ping"),
    ) == (1, 100)


@covers("side-by-side")
def test_a_slow_response_does_not_block_other_requests(
    http_library: HttpLibrary, session: Session, demo: Demo
) -> None:
    gate = Gate()
    demo.authorization_server.record.add_fault("ping", Fault(gate=gate))

    async def main() -> None:
        async with http_library.client(session) as client:
            slow = asyncio.create_task(client.get(demo.ping_url))
            await asyncio.to_thread(gate.arrived.wait, 20)
            assert (await client.get(demo.ping_url)).status_code == 200
            # Another request succeeds even if the token is revoked during the wait.
            demo.authorization_server.ledger.revoke_access_tokens()
            assert (await client.get(demo.ping_url)).status_code == 200
            assert not slow.done()
            gate.open()
            assert (await slow).status_code == 200

    asyncio.run(main())


def test_a_flow_that_is_closed_early_leaves_the_session_usable(
    http_library: HttpLibrary, session: Session, demo: Demo
) -> None:
    async def main() -> None:
        auth, request = http_library.auth(session), http_library.library.Request("GET", demo.ping_url)
        flow = auth.async_auth_flow(request)
        await anext(flow)
        await flow.aclose()
        gate = demo.authorization_server.hold("ping")
        async with http_library.client(session) as client:
            call = asyncio.create_task(client.get(demo.ping_url))
            await asyncio.to_thread(gate.arrived.wait, 20)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            demo.authorization_server.clear_faults()
            assert (await client.get(demo.ping_url)).status_code == 200

    asyncio.run(main())
    blocking = http_library.auth(session).sync_auth_flow(http_library.library.Request("GET", demo.ping_url))
    next(blocking)
    blocking.close()


def test_a_server_is_found_by_its_config_name_its_address_or_its_login(
    ask: Any, demo: Demo, tmp_path: Path
) -> None:
    home = tmp_path / "hermes"
    home.mkdir()
    entry = f"mcp_servers:\n  notes:\n    url: {demo.ping_url}\n    auth: oauth\n"
    (home / "config.yaml").write_text(entry)
    asyncio.run(log_in(default_service(), Server("notes", demo.ping_url)))
    # `login --url` derives a name from an address that config.yaml does not have.
    derived_name = server_from_url(f"{demo.ping_url}?a").name
    asyncio.run(log_in(default_service(), server_from_url(f"{demo.ping_url}?a")))
    demo.authorization_server.requests.clear()
    for name in ("notes", demo.ping_url, derived_name):
        assert ask(name, "GET", demo.ping_url).status_code == 200
    assert request_steps(demo) == [("ping", True)] * 3
    with pytest.raises(ServerNotFound):
        ask("note", "GET", demo.ping_url)


def test_the_mcp_sdk_2_calls_a_tool_again_after_its_token_is_revoked(
    service: AuthService, demo: Demo
) -> None:
    server = Server("demo", demo.mcp_url)
    asyncio.run(log_in(service, server))
    auth = hermes_mcp_auth_remote.auth.httpx2.McpAuth(service.session(server))

    async def main() -> list[str]:
        async with (
            httpx2.AsyncClient(auth=auth, timeout=20) as http_client,
            Client(streamable_http_client(demo.mcp_url, http_client=http_client)) as client,
        ):
            texts: list[str] = []
            for _ in range(2):
                (content,) = (await client.call_tool("whoami", {})).content
                assert isinstance(content, TextContent)
                texts.append(content.text)
                demo.authorization_server.ledger.revoke_access_tokens()
            return texts

    assert asyncio.run(main()) == ["ada@example.com"] * 2
    assert demo.authorization_server.count_requests("refresh") == 1
    assert demo.authorization_server.count_requests("token") == 1


ONE_LIBRARY_PROGRAM = """
import sys
other, mine, home, url = sys.argv[1:]
sys.modules[other] = None
from pathlib import Path
from importlib import import_module
from hermes_mcp_auth_remote import AuthService, Server
library, ours = import_module(mine), import_module(f"hermes_mcp_auth_remote.auth.{mine}")
session = AuthService(Path(home), clock=lambda: float(CLOCK)).session(Server("notes", url))
with library.Client(auth=ours.McpAuth(session), timeout=20) as client:
    print(client.get(url).status_code)
unneeded = {"mcp", "starlette", "telegram", "discord", "qrcode"} & set(sys.modules)
print(sorted(unneeded))
"""


@covers("either-library")
@pytest.mark.parametrize(("other", "mine"), [("httpx2", "httpx"), ("httpx", "httpx2")])
def test_either_library_works_without_the_other_even_for_a_refresh(
    session: Session, demo: Demo, clock: ManualClock, tmp_path: Path, other: str, mine: str
) -> None:
    clock.now += 3600
    code = ONE_LIBRARY_PROGRAM.replace("CLOCK", repr(clock.now))
    command = [sys.executable, "-c", code, other, mine, str(tmp_path), demo.ping_url]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert completed.stdout == "200\n[]\n", completed.stderr
    assert request_steps(demo) == [("refresh", False), ("ping", True)]
