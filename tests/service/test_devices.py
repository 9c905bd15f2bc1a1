"""Device logins: one polling process at a time, switching flows, and turning the device flow off."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hermes_mcp_auth_remote.errors import (
    ConfigError,
    DeviceAuthorizationError,
    LoginAlreadyUsed,
    LoginCancelled,
    PasteRefused,
    PkceNotSupported,
)
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import Origin, Server, ServerOptions
from tests.browserless import approve, approve_device, deny_device
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers
from tests.service.actor import start
from tests.service.given import CHAT, TERMINAL, eventually
from tests.tripwire import guard

pytestmark = pytest.mark.slow

SECONDS = 30
SLOW_DOWN = json.dumps({"error": "slow_down"})


@pytest.fixture(scope="module")
def going() -> Iterator[Demo]:
    # With the system clock, because the poll timers use it.
    with serve_demo() as demo:
        yield demo


@pytest.fixture
def demo(going: Demo) -> Iterator[Demo]:
    going.authorization_server.behaviour = Behaviour(with_device=True, device_interval_seconds=1)
    going.authorization_server.clear_faults()
    going.authorization_server.requests.clear()
    going.authorization_server.devices.by_device_code.clear()
    going.authorization_server.ledger.revoke_everything()
    guard(going.authorization_server.minted_secrets)
    yield going
    going.authorization_server.clear_faults()


@pytest.fixture
def service(tmp_path: Path) -> AuthService:
    return AuthService(tmp_path)


@pytest.fixture
def server(demo: Demo) -> Server:
    return Server("notes", demo.ping_url)


def begun(service: AuthService, server: Server, origin: Origin = TERMINAL, **more: Any) -> Login:
    return asyncio.run(service.start_login(server, origin, **{"flow": "auto", **more}))


def code_of(login: Login) -> DeviceAuthorization:
    assert login.device_authorization is not None
    return login.device_authorization


def entered(login: Login, decide: Any = approve_device) -> None:
    decide(code_of(login).verification_uri_complete)


def settled(service: AuthService, login: Login) -> Login:
    async def main() -> Login:
        async with asyncio.timeout(SECONDS):
            return await service.wait_for_login(login.id)

    return asyncio.run(main())


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(SECONDS * 20):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("The condition did not become true in time.")


def interval_of(service: AuthService, login: Login) -> float | None:
    device = service.login(login.id).poll_state
    return None if device is None else device.interval_seconds


def answers(demo: Demo) -> list[str]:
    """Return the HTTP status of each poll."""
    return [f"{each.status}" for each in demo.authorization_server.requests if each.step == "device_poll"]


def no_poll_was_early(demo: Demo) -> bool:
    return all(
        device.interval_seconds == 1 for device in demo.authorization_server.devices.by_device_code.values()
    )


@covers("flow-choice", "device-grant")
def test_a_code_that_is_approved_connects_and_leaves_no_secret(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    login = begun(service, server)
    entered(login)
    over = settled(service, login)
    assert (over.status, answers(demo)) == ("done", ["200"])
    connection = service.connection(server)
    assert connection is not None
    assert (connection.account, connection.can_refresh) == ("ada@example.com", True)
    session = service.session(server)
    assert asyncio.run(session.header()).startswith("Bearer ")
    record = (tmp_path / "mcp-tokens" / "logins" / f"{login.id}.json").read_text()
    code = code_of(login)
    kept = [
        s for s in (code.device_code.reveal(), code.user_code, login.request.state.reveal()) if s in record
    ]
    assert not kept
    assert (tmp_path / "mcp-tokens" / "logins" / f"{login.id}.json").stat().st_mode & 0o777 == 0o600


@covers("device-poll")
def test_a_login_that_is_over_is_not_polled_again_by_a_late_watcher(
    service: AuthService, server: Server, demo: Demo
) -> None:
    login = begun(service, server)
    entered(login)
    assert settled(service, login).status == "done"
    ended = threading.Event()
    # `wait_for_login` would not ask the poller. This caller read the login before it ended.
    service._logins._device_logins.subscribe(login, lambda _: ended.set())
    assert ended.wait(SECONDS)
    assert answers(demo) == ["200"]


@covers("device-poll")
def test_a_code_that_is_denied_fails_and_old_credentials_stay(
    service: AuthService, server: Server, demo: Demo
) -> None:
    first = begun(service, server)
    entered(first)
    assert settled(service, first).status == "done"
    before = service.connection(server)
    login = begun(service, server)
    entered(login, deny_device)
    over = settled(service, login)
    assert (over.status, over.failure_code) == ("failed", "authorization_denied")
    assert service.connection(server) == before
    assert demo.authorization_server.count_requests("registration") == 1


@pytest.mark.parametrize("seconds", [1, 2], ids=["before the first poll", "after one"])
def test_a_code_that_nobody_enters_expires(
    service: AuthService, server: Server, demo: Demo, seconds: int
) -> None:
    demo.authorization_server.change_behaviour(device_seconds=seconds)
    over = settled(service, begun(service, server))
    assert (over.status, over.failure_code) == ("expired", "login_expired")
    assert set(answers(demo)) <= {"400"}


def test_the_server_may_say_first_that_a_code_has_expired(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.fail_next(
        "device_poll", status=400, body=json.dumps({"error": "expired_token"})
    )
    assert settled(service, begun(service, server)).status == "expired"


@covers("device-one-poller")
def test_two_services_that_wait_for_one_login_poll_it_once_an_interval(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    others = [AuthService(tmp_path) for _ in range(3)]
    login = begun(service, server)

    async def main() -> list[Login]:
        polled = demo.authorization_server.hold("device_poll")
        waiting = [asyncio.create_task(each.wait_for_login(login.id)) for each in (service, *others, service)]
        assert await asyncio.to_thread(polled.arrived.wait, SECONDS)
        await asyncio.to_thread(entered, login)
        demo.authorization_server.clear_faults()
        async with asyncio.timeout(SECONDS):
            return await asyncio.gather(*waiting)

    assert {over.status for over in asyncio.run(main())} == {"done"}
    assert no_poll_was_early(demo)
    assert answers(demo).count("200") == 1


@covers("device-one-poller")
def test_a_poller_that_is_killed_is_followed_by_another_that_waits_an_interval_first(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    login = begun(service, server)
    polled = demo.authorization_server.hold("device_poll", after_processing=True)
    actor = start("wait", tmp_path, 0, login.id)
    try:
        assert polled.arrived.wait(SECONDS)

        async def main() -> Login:
            waiting = asyncio.create_task(service.wait_for_login(login.id))
            # Two processes wait for the login now. One of them is killed.
            await asyncio.to_thread(entered, login)
            actor.kill()
            await asyncio.to_thread(actor.wait)
            demo.authorization_server.clear_faults()
            async with asyncio.timeout(SECONDS):
                return await waiting

        assert asyncio.run(main()).status == "done"
    finally:
        actor.kill()
        actor.communicate()
    assert no_poll_was_early(demo)
    assert demo.authorization_server.count_requests("device_poll") == 2


@covers("device-one-poller", "device-poll")
def test_slow_down_is_not_forgotten_by_whoever_polls_next(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    login = begun(service, server)

    async def main() -> None:
        demo.authorization_server.fail_next("device_poll", status=400, body=SLOW_DOWN)
        waiting = asyncio.create_task(service.wait_for_login(login.id))
        await until(lambda: interval_of(service, login) != 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        # The poller releases the login and stores the time of the next poll.
        await until(lambda: service.login(login.id).polled_by is None)

    asyncio.run(main())
    left = AuthService(tmp_path).login(login.id).poll_state
    assert left is not None
    assert left.interval_seconds == 6
    assert left.next_at > time.time() + 3


def test_a_restart_neither_hurries_nor_waits_for_hours_after_the_clock_was_set_back(
    service: AuthService, server: Server, tmp_path: Path
) -> None:
    login = begun(service, server)
    devices = service._logins._device_logins
    logins = FileStore(tmp_path).logins

    def wait_of(next_at: float, polled_by: str | None = None) -> float:
        device = replace(login.poll_state, next_at=next_at)  # type: ignore[type-var]
        logins.change(login.id, lambda it: replace(it, poll_state=device, polled_by=polled_by))
        return devices._take_over(login)[1].next_poll_at - time.monotonic()

    try:
        assert wait_of(time.time() - 60) <= 0
        assert 0.5 < wait_of(time.time() - 60, "a-poller-that-is-dead") <= 1
        assert wait_of(time.time() + 7200) <= 8
        assert 3 < wait_of(time.time() + 4) <= 4
    finally:
        asyncio.run(devices.release_resources())


def test_a_forked_child_is_another_poller_and_leaves_the_parents_lock_alone(
    service: AuthService, server: Server, tmp_path: Path
) -> None:
    login = begun(service, server)
    devices = service._logins._device_logins
    devices._take_over(login)
    logins = FileStore(tmp_path).logins
    parent = logins.get(login.id).polled_by
    assert parent is not None
    assert logins.is_poller_alive(parent)
    lock = devices._poller_lock
    assert lock is not None
    # A forked child has a copy of the lock's descriptor.
    lock._descriptor, original = os.dup(lock._descriptor or 0), lock._descriptor
    devices.reset_in_child()
    assert logins.is_poller_alive(parent)
    assert devices._poller_id != parent
    assert devices._take_over(login)[1].other_poller == parent
    asyncio.run(devices.release_resources())
    os.close(original or 0)
    assert not logins.is_poller_alive(parent)


def test_cancelling_anywhere_ends_the_wait_everywhere(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    demo.authorization_server.change_behaviour(device_interval_seconds=300)
    login = begun(service, server)

    async def main() -> Login:
        waiting = asyncio.create_task(service.wait_for_login(login.id))
        await asyncio.sleep(0)
        await AuthService(tmp_path).cancel(login.id)
        async with asyncio.timeout(SECONDS):
            return await waiting

    assert asyncio.run(main()).status == "cancelled"
    assert not answers(demo)


def test_a_login_that_is_cancelled_while_its_tokens_come_stays_cancelled(
    service: AuthService, server: Server, demo: Demo
) -> None:
    login = begun(service, server)
    entered(login)
    gate = demo.authorization_server.hold("device_poll", after_processing=True)

    async def main() -> Login:
        waiting = asyncio.create_task(service.wait_for_login(login.id))
        assert await asyncio.to_thread(gate.arrived.wait, SECONDS)
        await service.cancel(login.id)
        demo.authorization_server.clear_faults()
        async with asyncio.timeout(SECONDS):
            return await waiting

    assert asyncio.run(main()).status == "cancelled"
    assert service.connection(server) is None
    # The tokens are not stored, so the service revokes them.
    eventually(lambda: not live(demo))


def live(demo: Demo) -> list[str]:
    """Return the refresh tokens that the server accepts."""
    tokens = dict(demo.authorization_server.ledger.refresh_tokens)
    return [token for token, granted in tokens.items() if not granted.family.revoked]


@covers("dpop-choice")
def test_a_plain_token_of_a_device_is_refused_where_the_operator_demands_a_bound_one(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demanding = replace(server, options=replace(server.options, dpop=True))
    login = begun(service, demanding)
    entered(login)
    over = asyncio.run(asyncio.wait_for(service.wait_for_login(login.id), SECONDS))
    assert (over.status, over.failure_code) == ("failed", "unreadable_answer")
    assert service.connection(server) is None
    eventually(lambda: not live(demo))


def test_an_outage_is_waited_through(service: AuthService, server: Server, demo: Demo) -> None:
    login = begun(service, server)
    entered(login)
    demo.authorization_server.fail_next("device_poll", hang_up=True)
    assert settled(service, login).status == "done"
    assert answers(demo)[-1] == "200"


@covers("device-switch")
def test_a_login_goes_from_device_to_paste_and_back_with_nothing_old_left_good(
    service: AuthService, server: Server, demo: Demo
) -> None:
    login = begun(service, server, CHAT)

    async def main() -> Login:
        waiting = asyncio.create_task(service.wait_for_login(login.id))
        pasting = await service.switch_flow(login.id, "paste")
        assert (pasting.id, pasting.origin, pasting.poll_state) == (login.id, login.origin, None)
        answer = await asyncio.to_thread(approve, pasting.authorization_url)
        # The user enters the code of the device flow that was replaced.
        await asyncio.to_thread(entered, login)
        again = await service.switch_flow(login.id, "device")
        assert code_of(again).user_code != code_of(login).user_code
        with pytest.raises(PasteRefused, match="another device"):
            await service.complete_login(login.id, answer, CHAT)
        renewed = await service.switch_flow(login.id, "device")
        assert code_of(renewed).user_code != code_of(again).user_code
        await asyncio.to_thread(entered, renewed)
        async with asyncio.timeout(SECONDS):
            return await waiting

    assert asyncio.run(main()).status == "done"
    assert no_poll_was_early(demo)
    with pytest.raises(LoginAlreadyUsed):
        asyncio.run(service.switch_flow(login.id, "paste"))


@covers("device-switch")
def test_a_login_that_changed_over_to_pasting_is_finished_by_a_paste(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(require_par=True, with_par=True)
    login = begun(service, server)

    async def main() -> None:
        waiting = asyncio.create_task(service.wait_for_login(login.id))
        pasting = await service.switch_flow(login.id, "paste")
        answer = await asyncio.to_thread(approve, pasting.authorization_url)
        assert (await service.complete_login(login.id, answer, TERMINAL)).account == "ada@example.com"
        async with asyncio.timeout(SECONDS):
            assert (await waiting).status == "done"

    asyncio.run(main())
    assert answers(demo) in ([], ["400"])


@covers("device-switch")
def test_a_switch_that_fails_leaves_the_login_as_it_was(
    service: AuthService, server: Server, demo: Demo
) -> None:
    login = begun(service, server, flow="paste")
    demo.authorization_server.change_behaviour(with_device=False)
    with pytest.raises(DeviceAuthorizationError):
        asyncio.run(service.switch_flow(login.id, "device"))
    demo.authorization_server.change_behaviour(with_device=True, device_scopes=frozenset[str]())
    with pytest.raises(DeviceAuthorizationError) as refused:
        asyncio.run(service.switch_flow(login.id, "device"))
    assert refused.value.error == "invalid_scope"
    assert service.login(login.id) == login
    asyncio.run(service.cancel(login.id))
    with pytest.raises(LoginCancelled):
        asyncio.run(service.switch_flow(login.id, "device"))


@covers("device-grant", "device-switch")
def test_quirk_23_a_client_of_before_is_registered_anew_for_devices(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(with_device=False)
    old = begun(service, server, flow="paste")
    asyncio.run(service.complete_login(old.id, approve(old.authorization_url), TERMINAL))
    demo.authorization_server.change_behaviour(with_device=True)
    login = begun(service, server)
    assert login.request.client.client_id != old.request.client.client_id
    entered(login)
    assert settled(service, login).status == "done"
    assert begun(service, server).request.client.client_id == login.request.client.client_id


@covers("device-scope", "flow-choice")
def test_quirk_47_a_scope_that_devices_may_not_have_is_asked_for_by_pasting_in_the_same_login(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(device_scopes=frozenset[str]())
    login = begun(service, server)
    assert login.poll_state is None
    asyncio.run(service.complete_login(login.id, approve(login.authorization_url), TERMINAL))
    with pytest.raises(DeviceAuthorizationError):
        begun(service, server, flow="device")


@covers("flow-choice")
def test_whoever_cannot_show_a_code_gets_an_address(service: AuthService, server: Server) -> None:
    assert begun(service, server, flow=None).poll_state is None
    assert begun(service, server, flow="paste").authorization_url
    configured = replace(server, options=ServerOptions(flow="paste"))
    assert begun(service, configured).poll_state is None
    configured = replace(server, options=ServerOptions(flow="device"))
    login = begun(service, configured, flow=None)
    assert login.poll_state is not None
    assert not login.authorization_url, "a device login has no authorization URL"


@covers("device-off")
def test_security_2_an_operator_turns_devices_off_for_a_server_or_a_platform(
    service: AuthService, server: Server, tmp_path: Path
) -> None:
    off = replace(server, options=ServerOptions(device=False))
    assert begun(service, off).poll_state is None
    with pytest.raises(ConfigError):
        begun(service, off, flow="device")
    chats = AuthService(tmp_path, device_platforms={"terminal"})
    assert begun(chats, server, CHAT).poll_state is None
    assert begun(chats, server, TERMINAL).poll_state is not None
    login = begun(chats, server, CHAT, flow="paste")
    with pytest.raises(ConfigError):
        asyncio.run(chats.switch_flow(login.id, "device"))


def test_an_operators_shorter_life_counts_and_a_longer_one_of_the_servers_too(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(device_seconds=900)
    login = begun(service, server)
    assert 600 < login.expires_at - login.started_at <= 900
    short = replace(server, options=ServerOptions(login_seconds=60))
    login = begun(service, short)
    assert 50 < login.expires_at - login.started_at <= 60


def test_a_device_needs_no_pkce_but_pasting_after_it_does(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(pkce_advertised=False)
    login = begun(service, server)
    assert login.poll_state is not None
    with pytest.raises(PkceNotSupported):
        asyncio.run(service.switch_flow(login.id, "paste"))
