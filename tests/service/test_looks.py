"""Many who begin a login of one server at once: one of them looks at its documents."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from hermes_mcp_auth_remote.demo.serving import Demo
from hermes_mcp_auth_remote.errors import ServerError
from hermes_mcp_auth_remote.http.client import run
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.finding import Found
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.looks import Looks, Question
from hermes_mcp_auth_remote.values import Secret, Server
from tests.requirements import covers
from tests.service.given import TERMINAL

PEOPLE = 10


def issuer_of(found: Found) -> Exchange[str]:
    """Go on without asking for more."""
    yield from ()
    return found.discovery.authorization_server.issuer


def looking(looks: Looks, server: Server, people: int = PEOPLE) -> list[asyncio.Task[str]]:
    question = Question(server, None, None, "paste")
    return [asyncio.create_task(looks.run(run, question, issuer_of)) for _ in range(people)]


def counted(demo: Demo) -> int:
    return demo.server.count("protected_resource_metadata")


@covers("looks")
def test_one_looks_for_all_who_come_meanwhile_and_the_next_one_looks_again(
    server: Server, demo: Demo
) -> None:
    async def main() -> None:
        looks = Looks()
        assert await asyncio.gather(*looking(looks, server)) == [demo.issuer] * PEOPLE
        assert counted(demo) == 1
        assert await asyncio.gather(*looking(looks, server)) == [demo.issuer] * PEOPLE
        assert counted(demo) == 2

    asyncio.run(main())


def test_a_look_at_the_same_name_by_other_options_is_another_one(server: Server, demo: Demo) -> None:
    async def main() -> None:
        looks, other = Looks(), replace(server, headers={"x-tenant": Secret("another")})
        await asyncio.gather(*looking(looks, server), *looking(looks, other, 1))
        assert counted(demo) == 2

    asyncio.run(main())


def test_what_stops_the_one_who_looks_is_told_to_all_and_asked_once(server: Server, demo: Demo) -> None:
    async def main() -> None:
        looks = Looks()
        demo.server.fail_next("protected_resource_metadata", status=500, times=None)
        outcomes = await asyncio.gather(*looking(looks, server), return_exceptions=True)
        assert all(isinstance(each, ServerError) for each in outcomes)
        asked = counted(demo)
        with pytest.raises(ServerError):
            await looking(Looks(), server, 1)[0]
        assert counted(demo) == 2 * asked
        demo.server.heal()
        assert await looking(looks, server, 1)[0] == demo.issuer

    asyncio.run(main())


def test_who_looks_or_waits_and_is_cancelled_stops_nobody_else(server: Server, demo: Demo) -> None:
    async def main() -> None:
        gate = demo.server.hold("protected_resource_metadata")
        first, second, *others = looking(Looks(), server)
        await asyncio.to_thread(gate.arrived.wait)
        second.cancel()
        first.cancel()
        gate.open()
        outcomes = await asyncio.gather(first, second, *others, return_exceptions=True)
        assert [type(each) for each in outcomes[:2]] == [asyncio.CancelledError] * 2
        assert outcomes[2:] == [demo.issuer] * (PEOPLE - 2)

    asyncio.run(main())


@covers("looks")
def test_logins_that_begin_at_once_share_nothing_but_the_look(
    service: AuthService, server: Server, demo: Demo
) -> None:
    async def main() -> None:
        asked = (service.begin(server, TERMINAL, owner=f"telegram:{number}") for number in range(PEOPLE))
        logins: list[Login] = await asyncio.gather(*asked)
        assert demo.server.count("registration") == PEOPLE
        for secret in ("state", "code_verifier"):
            assert len({getattr(login.request, secret).reveal() for login in logins}) == PEOPLE
        assert len({login.request.client.client_id for login in logins}) == PEOPLE

    asyncio.run(main())
