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
from tests.browserless import approve
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.given import TERMINAL, log_in

pytestmark = pytest.mark.slow

PEOPLE = 10
PORTS = (50001, 50002)


def issuer_of(found: DiscoveryResult) -> Exchange[str]:
    """Continue after a discovery without another request."""
    yield from ()
    return found.discovery.authorization_server.issuer


def looking(looks: SharedDiscovery, server: Server, people: int = PEOPLE) -> list[asyncio.Task[str]]:
    question, look = (
        DiscoveryKey(server, None, None, "paste"),
        partial(run_discovery, server, None, None, "paste"),
    )
    return [
        asyncio.create_task(looks.discover_and_continue(run_exchange, question, look, issuer_of))
        for _ in range(people)
    ]


def counted(demo: Demo) -> int:
    return demo.authorization_server.count_requests("protected_resource_metadata")


@covers("looks")
def test_one_looks_for_all_who_come_meanwhile_and_the_next_one_looks_again(
    server: Server, demo: Demo
) -> None:
    async def main() -> None:
        looks = SharedDiscovery()
        assert await asyncio.gather(*looking(looks, server)) == [demo.issuer] * PEOPLE
        assert counted(demo) == 1
        assert await asyncio.gather(*looking(looks, server)) == [demo.issuer] * PEOPLE
        assert counted(demo) == 2

    asyncio.run(main())


def test_a_look_at_the_same_name_by_other_options_is_another_one(server: Server, demo: Demo) -> None:
    async def main() -> None:
        looks, other = SharedDiscovery(), replace(server, headers={"x-tenant": Secret("another")})
        await asyncio.gather(*looking(looks, server), *looking(looks, other, 1))
        assert counted(demo) == 2

    asyncio.run(main())


def test_what_stops_the_one_who_looks_is_told_to_all_and_asked_once(server: Server, demo: Demo) -> None:
    async def main() -> None:
        looks = SharedDiscovery()
        demo.authorization_server.fail_next("protected_resource_metadata", status=500, times=None)
        outcomes = await asyncio.gather(*looking(looks, server), return_exceptions=True)
        assert all(isinstance(each, ServerError) for each in outcomes)
        asked = counted(demo)
        with pytest.raises(ServerError):
            await looking(SharedDiscovery(), server, 1)[0]
        assert counted(demo) == 2 * asked
        demo.authorization_server.clear_faults()
        assert await looking(looks, server, 1)[0] == demo.issuer

    asyncio.run(main())


def test_who_looks_or_waits_and_is_cancelled_stops_nobody_else(server: Server, demo: Demo) -> None:
    async def main() -> None:
        gate = demo.authorization_server.hold("protected_resource_metadata")
        first, second, *others = looking(SharedDiscovery(), server)
        await asyncio.to_thread(gate.arrived.wait)
        second.cancel()
        first.cancel()
        gate.open()
        outcomes = await asyncio.gather(first, second, *others, return_exceptions=True)
        assert [type(each) for each in outcomes[:2]] == [asyncio.CancelledError] * 2
        assert outcomes[2:] == [demo.issuer] * (PEOPLE - 2)

    asyncio.run(main())


@covers("looks")
def test_logins_that_begin_at_once_share_a_look_and_a_client_and_nothing_secret(
    service: AuthService, server: Server, demo: Demo
) -> None:
    logins = asyncio.run(begun_at_once(service, server))
    assert demo.authorization_server.count_requests("registration") == 1
    for secret in ("state", "code_verifier"):
        assert len({getattr(login.request, secret).reveal() for login in logins}) == PEOPLE
    (client,) = {login.request.client.client_id for login in logins}
    assert {login.request.redirect_uri for login in logins} == {logins[0].request.client.redirect_uris[0]}
    # Each login can be completed, and its credentials belong to its owner only.
    for number, login in enumerate(logins):
        asyncio.run(service.complete_login(login.id, approve(login.request.url), login.origin))
        stored = service.read_credentials(server, f"telegram:{number}")
        assert stored.client is not None
        assert stored.client.client_id == client


def test_who_listens_on_a_port_of_their_own_registers_it(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def main() -> list[Login]:
        ports = [
            service.start_login(server, TERMINAL, owner=f"x:{port}", redirect_uri=at(port)) for port in PORTS
        ]
        return await asyncio.gather(*ports, service.start_login(server, TERMINAL))

    def at(port: int) -> str:
        return f"http://127.0.0.1:{port}/callback"

    first, second, shared = asyncio.run(main())
    assert demo.authorization_server.count_requests("registration") == 3
    assert [login.request.redirect_uri for login in (first, second)] == [at(port) for port in PORTS]
    assert shared.request.redirect_uri not in {at(port) for port in PORTS}


def test_who_has_a_client_keeps_it_while_others_register(
    service: AuthService, server: Server, demo: Demo
) -> None:
    asyncio.run(log_in(service, server, owner="telegram:0"))
    mine = service.read_credentials(server, "telegram:0").client
    logins = asyncio.run(begun_at_once(service, server))
    assert demo.authorization_server.count_requests("registration") == 2
    assert mine is not None
    assert logins[0].request.client.client_id == mine.client_id
    assert {login.request.client.client_id for login in logins[1:]} != {mine.client_id}


def test_a_registration_that_is_refused_is_told_to_all_and_asked_once(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def main() -> list[Login | BaseException]:
        return await asyncio.gather(*beginning(service, server), return_exceptions=True)

    demo.authorization_server.fail_next("registration", status=403)
    outcomes = asyncio.run(main())
    assert {type(each) for each in outcomes} == {RegistrationError}
    assert demo.authorization_server.count_requests("registration") == 1


@covers("looks")
def test_where_who_looks_gives_up_one_of_those_who_wait_looks_for_the_rest(
    server: Server, demo: Demo
) -> None:
    async def main() -> None:
        gate = demo.authorization_server.hold("protected_resource_metadata")
        first, *others = looking(SharedDiscovery(), server)
        await asyncio.to_thread(gate.arrived.wait)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        gate.open()
        assert await asyncio.gather(*others) == [demo.issuer] * len(others)
        assert counted(demo) == 2

    asyncio.run(main())


@covers("begin-in-time")
def test_a_login_that_servers_keep_waiting_ends_for_all_who_wait(
    service: AuthService, server: Server, demo: Demo, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> list[Login | BaseException]:
        return await asyncio.gather(*beginning(service, server), return_exceptions=True)

    monkeypatch.setattr("hermes_mcp_auth_remote.service.start_login.LOGIN_START_SECONDS", 0.2)
    gate = demo.authorization_server.hold("registration")
    outcomes = asyncio.run(main())
    gate.open()
    assert {type(each) for each in outcomes} == {TimedOut}
    assert service.logins() == []


async def begun_at_once(service: AuthService, server: Server) -> list[Login]:
    return await asyncio.gather(*beginning(service, server))


def beginning(service: AuthService, server: Server) -> list[Coroutine[Any, Any, Login]]:
    return [service.start_login(server, TERMINAL, owner=f"telegram:{number}") for number in range(PEOPLE)]
