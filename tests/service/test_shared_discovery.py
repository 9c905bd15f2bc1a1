"""Logins that start at once share one discovery of their server."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from hermes_mcp_auth_remote.errors import RegistrationError, ServerError, TimedOut
from hermes_mcp_auth_remote.flows.discovery import DiscoveryResult, run_discovery
from hermes_mcp_auth_remote.http.client import run_exchange
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.shared_discovery import DiscoveryKey, SharedDiscovery
from hermes_mcp_auth_remote.values import Secret, Server
from tests.consent_form import approve
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import TERMINAL, log_in

pytestmark = pytest.mark.slow

LOGIN_COUNT = 10
PORTS = (50001, 50002)


def read_issuer(result: DiscoveryResult) -> Exchange[str]:
    """Continue after a discovery without another request."""
    yield from ()
    return result.discovery.authorization_server.issuer


def start_discoveries(
    shared_discovery: SharedDiscovery, server: Server, count: int = LOGIN_COUNT
) -> list[asyncio.Task[str]]:
    key, discover = (
        DiscoveryKey(server, None, None, "paste"),
        partial(run_discovery, server, None, None, "paste"),
    )
    return [
        asyncio.create_task(shared_discovery.discover_and_continue(run_exchange, key, discover, read_issuer))
        for _ in range(count)
    ]


def count_discoveries(demo: Demo) -> int:
    return demo.authorization_server.count_requests("protected_resource_metadata")


@covers("looks")
def test_simultaneous_logins_share_one_discovery_and_the_next_login_starts_another(
    server: Server, demo: Demo
) -> None:
    async def main() -> None:
        shared_discovery = SharedDiscovery()
        assert (
            await asyncio.gather(*start_discoveries(shared_discovery, server)) == [demo.issuer] * LOGIN_COUNT
        )
        assert count_discoveries(demo) == 1
        assert (
            await asyncio.gather(*start_discoveries(shared_discovery, server)) == [demo.issuer] * LOGIN_COUNT
        )
        assert count_discoveries(demo) == 2

    asyncio.run(main())


def test_a_discovery_with_other_options_is_not_shared(server: Server, demo: Demo) -> None:
    async def main() -> None:
        shared_discovery, other_server = (
            SharedDiscovery(),
            replace(server, headers={"x-tenant": Secret("another")}),
        )
        await asyncio.gather(
            *start_discoveries(shared_discovery, server),
            *start_discoveries(shared_discovery, other_server, 1),
        )
        assert count_discoveries(demo) == 2

    asyncio.run(main())


def test_an_error_of_the_discovery_reaches_all_logins_and_is_requested_once(
    server: Server, demo: Demo
) -> None:
    async def main() -> None:
        shared_discovery = SharedDiscovery()
        demo.authorization_server.fail_next("protected_resource_metadata", status=500, times=None)
        outcomes = await asyncio.gather(*start_discoveries(shared_discovery, server), return_exceptions=True)
        assert all(isinstance(outcome, ServerError) for outcome in outcomes)
        request_count = count_discoveries(demo)
        with pytest.raises(ServerError):
            await start_discoveries(SharedDiscovery(), server, 1)[0]
        assert count_discoveries(demo) == 2 * request_count
        demo.authorization_server.clear_faults()
        assert await start_discoveries(shared_discovery, server, 1)[0] == demo.issuer

    asyncio.run(main())


def test_a_cancelled_discovery_or_waiter_cancels_no_other_login(server: Server, demo: Demo) -> None:
    async def main() -> None:
        gate = demo.authorization_server.hold("protected_resource_metadata")
        first, second, *others = start_discoveries(SharedDiscovery(), server)
        await asyncio.to_thread(gate.arrived.wait)
        second.cancel()
        first.cancel()
        gate.open()
        outcomes = await asyncio.gather(first, second, *others, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes[:2]] == [asyncio.CancelledError] * 2
        assert outcomes[2:] == [demo.issuer] * (LOGIN_COUNT - 2)

    asyncio.run(main())


@covers("looks")
def test_simultaneous_logins_share_discovery_and_client_but_no_secret(
    service: AuthService, server: Server, demo: Demo
) -> None:
    logins = asyncio.run(start_logins(service, server))
    assert demo.authorization_server.count_requests("registration") == 1
    for secret in ("state", "code_verifier"):
        assert len({getattr(login.request, secret).reveal() for login in logins}) == LOGIN_COUNT
    (client,) = {login.request.client.client_id for login in logins}
    assert {login.request.redirect_uri for login in logins} == {logins[0].request.client.redirect_uris[0]}
    # Each login can be completed, and its credentials belong to its owner only.
    for number, login in enumerate(logins):
        asyncio.run(service.complete_login(login.id, approve(login.request.url), login.origin))
        stored = service.blocking.read_credentials(server, f"telegram:{number}")
        assert stored.client is not None
        assert stored.client.client_id == client


def test_a_login_with_its_own_port_registers_that_port(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def main() -> list[Login]:
        ports = [
            service.start_login(server, TERMINAL, owner=f"x:{port}", redirect_uri=redirect_uri_at(port))
            for port in PORTS
        ]
        return await asyncio.gather(*ports, service.start_login(server, TERMINAL))

    def redirect_uri_at(port: int) -> str:
        return f"http://127.0.0.1:{port}/callback"

    first, second, shared = asyncio.run(main())
    assert demo.authorization_server.count_requests("registration") == 3
    assert [login.request.redirect_uri for login in (first, second)] == [
        redirect_uri_at(port) for port in PORTS
    ]
    assert shared.request.redirect_uri not in {redirect_uri_at(port) for port in PORTS}


def test_an_owner_with_a_client_keeps_it_while_others_register(
    service: AuthService, server: Server, demo: Demo
) -> None:
    asyncio.run(log_in(service, server, owner="telegram:0"))
    own_client = service.blocking.read_credentials(server, "telegram:0").client
    logins = asyncio.run(start_logins(service, server))
    assert demo.authorization_server.count_requests("registration") == 2
    assert own_client is not None
    assert logins[0].request.client.client_id == own_client.client_id
    assert {login.request.client.client_id for login in logins[1:]} != {own_client.client_id}


def test_a_refused_registration_reaches_all_logins_and_is_sent_once(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def main() -> list[Login | BaseException]:
        return await asyncio.gather(*login_starts(service, server), return_exceptions=True)

    demo.authorization_server.fail_next("registration", status=403)
    outcomes = asyncio.run(main())
    assert {type(outcome) for outcome in outcomes} == {RegistrationError}
    assert demo.authorization_server.count_requests("registration") == 1


@covers("looks")
def test_a_waiting_login_repeats_a_cancelled_discovery_for_the_others(server: Server, demo: Demo) -> None:
    async def main() -> None:
        gate = demo.authorization_server.hold("protected_resource_metadata")
        first, *others = start_discoveries(SharedDiscovery(), server)
        await asyncio.to_thread(gate.arrived.wait)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gate.open()
        assert await asyncio.gather(*others) == [demo.issuer] * len(others)
        assert count_discoveries(demo) == 2

    asyncio.run(main())


@covers("begin-in-time")
def test_a_login_start_that_times_out_fails_for_all_waiting_logins(
    service: AuthService, server: Server, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> list[Login | BaseException]:
        return await asyncio.gather(*login_starts(service, server), return_exceptions=True)

    monkeypatch.setattr("hermes_mcp_auth_remote.service.start_login.LOGIN_START_SECONDS", 0.2)
    gate = demo.authorization_server.hold("registration")
    outcomes = asyncio.run(main())
    gate.open()
    assert {type(outcome) for outcome in outcomes} == {TimedOut}
    assert service.blocking.logins() == []


async def start_logins(service: AuthService, server: Server) -> list[Login]:
    return await asyncio.gather(*login_starts(service, server))


def login_starts(service: AuthService, server: Server) -> list[Coroutine[Any, Any, Login]]:
    return [
        service.start_login(server, TERMINAL, owner=f"telegram:{number}") for number in range(LOGIN_COUNT)
    ]
