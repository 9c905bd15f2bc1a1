"""Two workers share a store: each continues what the other one began. Run against every store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import AuthorizationRequired, TimedOut
from hermes_mcp_auth_remote.oauth.wire import Request, Response
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.leases import acquire_lease
from hermes_mcp_auth_remote.service.refresh import SENT_REQUEST_SECONDS
from hermes_mcp_auth_remote.store.protocol import Lease, LeaseStore
from hermes_mcp_auth_remote.values import Secret, Server
from tests.consent_form import approve, approve_device
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Behaviour, Demo
from tests.requirements import covers
from tests.service.fakes import EXPIRED_AT, FakeServer, get_header, grant_tokens
from tests.service.helpers import CHAT, KEY, TERMINAL
from tests.store.builders import build_credentials
from tests.store.stores import STORES, WITH_TIMED_LEASES

pytestmark = pytest.mark.slow


@pytest.fixture(params=STORES)
def workers(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> list[AuthService]:
    """Two services with a store object each, over the same data."""
    return [AuthService(store=STORES[request.param](tmp_path, clock), clock=clock) for _ in range(2)]


@covers("shared-store")
def test_a_session_lives_from_login_to_logout_in_two_workers(
    workers: list[AuthService], server: Server, demo: Demo, clock: ManualClock
) -> None:
    first, second = workers
    second.register_server(server)

    async def main() -> None:
        login = await first.start_login(server, CHAT)
        assert [each.id for each in await second.waiting_logins()] == [login.id]
        await second.save_prompt_message(login.id, "7")
        waiter = asyncio.create_task(first.wait_for_login(login.id))
        address = await asyncio.to_thread(approve, login.authorization_url)
        await second.complete_login(login.id, address, CHAT)
        ended = await waiter
        assert (ended.status, ended.message_ids) == ("done", ("7",))
        assert await first.connection(server) == await second.connection(server)
        header = await first.session(server).header()
        assert header == await second.session(server).header()
        assert await first.keys() == [KEY]

        # Both find the token expired at the same time: one of them refreshes it.
        clock.now += 3600
        demo.authorization_server.requests.clear()
        headers = await asyncio.gather(*(each.session(server).header() for each in workers))
        assert len({header, *headers}) == 2
        assert demo.authorization_server.count_requests("refresh") == 1

        # A token that the server refuses is replaced once, too.
        demo.authorization_server.ledger.access_tokens.clear()
        replaced = await first.session(server).handle_challenge(headers[0], 401, ["Bearer"])
        assert replaced not in {None, headers[0]}
        assert await second.session(server).handle_challenge(headers[0], 401, ["Bearer"]) == replaced
        assert demo.authorization_server.count_requests("refresh") == 2

        # A logout in one worker ends the session of the other one.
        assert await second.logout(server)
        clock.now += 2
        with pytest.raises(AuthorizationRequired):
            await first.session(server).header()
        assert await first.keys() == await second.keys() == []

    asyncio.run(main())


@covers("shared-store")
def test_a_login_can_be_switched_and_cancelled_in_the_other_worker(
    workers: list[AuthService], server: Server
) -> None:
    first, second = workers
    second.register_server(server)

    async def main() -> None:
        login = await first.start_login(server, TERMINAL)
        switched = await second.switch_flow(login.id, "paste")
        assert switched.request.state != login.request.state
        assert await first.login(login.id) == switched
        await second.cancel(login.id)
        assert (await first.wait_for_login(login.id)).status == "cancelled"

    asyncio.run(main())


@covers("shared-store", "bridge-optional-login")
def test_a_session_knows_whether_tokens_are_stored(
    workers: list[AuthService], server: Server, clock: ManualClock
) -> None:
    first, second = workers

    async def have_tokens() -> list[bool]:
        clock.now += 2
        return [await worker.session(server).has_tokens() for worker in workers]

    async def main() -> None:
        assert await have_tokens() == [False, False]
        login = await first.start_login(server, TERMINAL)
        address = await asyncio.to_thread(approve, login.authorization_url)
        await first.complete_login(login.id, address, TERMINAL)
        assert await have_tokens() == [True, True]
        await second.logout(server)
        assert await have_tokens() == [False, False]

    asyncio.run(main())


@covers("shared-store")
def test_only_one_worker_polls_a_device_login_and_both_see_its_end(
    workers: list[AuthService], server: Server, demo: Demo
) -> None:
    demo.authorization_server.behaviour = Behaviour(with_device=True, device_interval_seconds=1)
    first, second = workers
    second.register_server(server)

    async def main() -> None:
        login = await first.start_login(server, TERMINAL, flow="device")
        device = login.device_authorization
        assert device is not None
        await asyncio.to_thread(approve_device, device.verification_uri, device.user_code)
        ended = await asyncio.gather(*(each.wait_for_login(login.id) for each in workers))
        assert [each.status for each in ended] == ["done", "done"]
        assert await first.session(server).header() == await second.session(server).header()

    asyncio.run(main())
    assert demo.authorization_server.count_requests("device_poll") == 1


@covers("shared-store")
def test_the_session_of_a_worker_that_holds_the_lease_is_not_refreshed_by_the_other_one(
    workers: list[AuthService], server: Server, demo: Demo, clock: ManualClock
) -> None:
    first, second = workers

    async def main() -> None:
        login = await first.start_login(server, TERMINAL)
        address = await asyncio.to_thread(approve, login.authorization_url)
        await first.complete_login(login.id, address, TERMINAL)
        demo.authorization_server.requests.clear()
        clock.now += 3600
        async with acquire_lease(first._deps.store, KEY, 5, in_flight=False):
            refresh = asyncio.create_task(second.session(server).header())
            await asyncio.wait({refresh}, timeout=0.3)
            assert not refresh.done()
            assert demo.authorization_server.count_requests("token") == 0
        assert await refresh == await first.session(server).header()

    asyncio.run(main())


def expire_lease(leases: LeaseStore, clock: ManualClock) -> None:
    """Let the clock end the lease of KEY, as if its holder were dead or stopped."""
    for _ in range(20):
        clock.now += 5
        if not leases.is_leased(KEY):
            return
    raise AssertionError("The lease has not ended in 100 seconds.")


with_timed_leases = pytest.mark.parametrize("workers", WITH_TIMED_LEASES, indirect=True)


@covers("shared-store")
@with_timed_leases
def test_a_refresh_token_that_a_dead_worker_may_have_spent_is_sent_later(
    workers: list[AuthService], clock: ManualClock
) -> None:
    authorization_server = FakeServer()
    stores = [worker._deps.store for worker in workers]
    stores[0].save_login(KEY, build_credentials())
    clock.now = EXPIRED_AT
    lease = stores[0].try_lease(KEY)
    assert lease is not None
    lease.record_request()
    expire_lease(stores[1], clock)
    service = AuthService(store=stores[1], run_exchange=authorization_server.run_exchange, clock=clock)
    # The second try comes after the first one has released its lease.
    for _ in range(2):
        with pytest.raises(TimedOut):
            get_header(service)
    assert authorization_server.requests == []
    clock.now = EXPIRED_AT + SENT_REQUEST_SECONDS
    assert get_header(service) == "Bearer new"
    assert len(authorization_server.requests) == 1


@covers("shared-store")
@with_timed_leases
def test_a_worker_that_loses_its_lease_during_a_refresh_stores_the_new_tokens(
    workers: list[AuthService], clock: ManualClock
) -> None:
    stores, leases = [worker._deps.store for worker in workers], list[Lease]()
    stores[0].save_login(KEY, build_credentials())
    clock.now = EXPIRED_AT

    def grant_late(token_request: Request) -> Response:
        expire_lease(stores[1], clock)
        lease = stores[1].try_lease(KEY)
        assert lease is not None
        leases.append(lease)
        return grant_tokens(token_request)

    service = AuthService(store=stores[0], run_exchange=FakeServer(grant_late).run_exchange, clock=clock)
    assert get_header(service) == "Bearer new"
    stored_tokens = stores[1].read(KEY).credentials.tokens
    assert stored_tokens is not None
    assert stored_tokens.refresh_token == Secret("rotated")
    # The end of the refresh leaves the lease of its successor as it is.
    assert stores[1].is_leased(KEY)
    leases[0].release()
