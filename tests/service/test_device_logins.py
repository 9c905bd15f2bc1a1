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
from hermes_mcp_auth_remote.service.device_logins import DevicePoller
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.values import Origin, Server, ServerOptions
from tests.consent_form import approve, approve_device, deny_device
from tests.leak_check import watch_secrets
from tests.parts.authorization_server import Behaviour, Demo, serve_demo
from tests.requirements import covers
from tests.service.child_process import start_process
from tests.service.helpers import CHAT, TERMINAL, wait_until

pytestmark = pytest.mark.slow

SECONDS = 30
SLOW_DOWN = json.dumps({"error": "slow_down"})


@pytest.fixture(scope="module")
def live_demo() -> Iterator[Demo]:
    # Use the system clock, because the poll timers use it too.
    with serve_demo() as demo:
        yield demo


@pytest.fixture
def demo(live_demo: Demo) -> Iterator[Demo]:
    live_demo.authorization_server.behaviour = Behaviour(with_device=True, device_interval_seconds=1)
    live_demo.authorization_server.clear_faults()
    live_demo.authorization_server.requests.clear()
    live_demo.authorization_server.devices.by_device_code.clear()
    live_demo.authorization_server.ledger.revoke_everything()
    watch_secrets(live_demo.authorization_server.minted_secrets)
    yield live_demo
    live_demo.authorization_server.clear_faults()


@pytest.fixture
def service(tmp_path: Path) -> AuthService:
    return AuthService(tmp_path)


@pytest.fixture
def server(demo: Demo) -> Server:
    return Server("notes", demo.ping_url)


def start_login(service: AuthService, server: Server, origin: Origin = TERMINAL, **more: Any) -> Login:
    return asyncio.run(service.start_login(server, origin, **{"flow": "auto", **more}))


def device_authorization_of(login: Login) -> DeviceAuthorization:
    assert login.device_authorization is not None
    return login.device_authorization


def enter_code(login: Login, decide: Any = approve_device) -> None:
    decide(device_authorization_of(login).verification_uri_complete)


def wait_for_end(service: AuthService, login: Login) -> Login:
    async def main() -> Login:
        async with asyncio.timeout(SECONDS):
            return await service.wait_for_login(login.id)

    return asyncio.run(main())


async def wait_until_async(is_true: Callable[[], bool]) -> None:
    for _ in range(SECONDS * 20):
        if is_true():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("The condition did not become true in time.")


def poll_interval_of(service: AuthService, login: Login) -> float | None:
    device = service.blocking.login(login.id).poll_state
    return None if device is None else device.interval_seconds


def poll_statuses(demo: Demo) -> list[str]:
    """Return the HTTP status of each poll."""
    return [
        f"{request.status}" for request in demo.authorization_server.requests if request.step == "device_poll"
    ]


def no_poll_was_early(demo: Demo) -> bool:
    return all(
        device.interval_seconds == 1 for device in demo.authorization_server.devices.by_device_code.values()
    )


@covers("flow-choice", "device-grant")
def test_an_approved_code_connects_and_leaves_no_secret(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    login = start_login(service, server)
    enter_code(login)
    ended = wait_for_end(service, login)
    assert (ended.status, poll_statuses(demo)) == ("done", ["200"])
    connection = service.blocking.connection(server)
    assert connection is not None
    assert (connection.account, connection.can_refresh) == ("ada@example.com", True)
    session = service.session(server)
    assert asyncio.run(session.header()).startswith("Bearer ")
    record = (tmp_path / "mcp-tokens" / "logins" / f"{login.id}.json").read_text()
    code = device_authorization_of(login)
    stored_secrets = [
        s for s in (code.device_code.reveal(), code.user_code, login.request.state.reveal()) if s in record
    ]
    assert not stored_secrets
    assert (tmp_path / "mcp-tokens" / "logins" / f"{login.id}.json").stat().st_mode & 0o777 == 0o600


@covers("device-poll")
def test_an_ended_login_is_not_polled_again_for_a_late_subscriber(
    service: AuthService, server: Server, demo: Demo
) -> None:
    login = start_login(service, server)
    enter_code(login)
    assert wait_for_end(service, login).status == "done"
    ended = threading.Event()
    # `wait_for_login` would not subscribe, because the login has ended. So subscribe directly, as a caller
    # does that has read the login before its end.
    service._logins._device_logins.subscribe(login, lambda _: ended.set())
    assert ended.wait(SECONDS)
    assert poll_statuses(demo) == ["200"]


@covers("device-poll")
def test_a_denied_code_fails_and_the_old_credentials_stay(
    service: AuthService, server: Server, demo: Demo
) -> None:
    first = start_login(service, server)
    enter_code(first)
    assert wait_for_end(service, first).status == "done"
    before = service.blocking.connection(server)
    login = start_login(service, server)
    enter_code(login, deny_device)
    ended = wait_for_end(service, login)
    assert (ended.status, ended.failure_code) == ("failed", "authorization_denied")
    assert service.blocking.connection(server) == before
    assert demo.authorization_server.count_requests("registration") == 1


@pytest.mark.parametrize("seconds", [1, 2], ids=["before the first poll", "after one"])
def test_a_code_that_is_not_entered_expires(
    service: AuthService, server: Server, demo: Demo, seconds: int
) -> None:
    demo.authorization_server.change_behaviour(device_seconds=seconds)
    ended = wait_for_end(service, start_login(service, server))
    assert (ended.status, ended.failure_code) == ("expired", "login_expired")
    assert set(poll_statuses(demo)) <= {"400"}


def test_the_server_may_report_first_that_a_code_has_expired(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.fail_next(
        "device_poll", status=400, body=json.dumps({"error": "expired_token"})
    )
    assert wait_for_end(service, start_login(service, server)).status == "expired"


@covers("device-one-poller")
def test_several_services_that_wait_for_one_login_poll_it_once_an_interval(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    others = [AuthService(tmp_path) for _ in range(3)]
    login = start_login(service, server)

    async def main() -> list[Login]:
        polled = demo.authorization_server.hold("device_poll")
        waiting = [
            asyncio.create_task(request.wait_for_login(login.id)) for request in (service, *others, service)
        ]
        assert await asyncio.to_thread(polled.arrived.wait, SECONDS)
        await asyncio.to_thread(enter_code, login)
        demo.authorization_server.clear_faults()
        async with asyncio.timeout(SECONDS):
            return await asyncio.gather(*waiting)

    assert {ended.status for ended in asyncio.run(main())} == {"done"}
    assert no_poll_was_early(demo)
    assert poll_statuses(demo).count("200") == 1


@covers("device-one-poller")
def test_after_a_poller_is_killed_another_one_polls_an_interval_later(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    login = start_login(service, server)
    polled = demo.authorization_server.hold("device_poll", after_processing=True)
    actor = start_process("wait", tmp_path, 0, login.id)
    try:
        assert polled.arrived.wait(SECONDS)

        async def main() -> Login:
            waiting = asyncio.create_task(service.wait_for_login(login.id))
            # Two processes wait for the login now. One of them is killed.
            await asyncio.to_thread(enter_code, login)
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
def test_the_next_poller_keeps_the_interval_of_a_slow_down(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    login = start_login(service, server)

    async def main() -> None:
        demo.authorization_server.fail_next("device_poll", status=400, body=SLOW_DOWN)
        waiting = asyncio.create_task(service.wait_for_login(login.id))
        await wait_until_async(lambda: poll_interval_of(service, login) != 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        # The poller releases the login and stores the time of the next poll.
        await wait_until_async(lambda: service.blocking.login(login.id).polled_by is None)

    asyncio.run(main())
    left = AuthService(tmp_path).blocking.login(login.id).poll_state
    assert left is not None
    assert left.interval_seconds == 6
    assert left.next_at > time.time() + 3


def test_a_restart_polls_neither_early_nor_hours_late_after_the_clock_was_set_back(
    service: AuthService, server: Server, tmp_path: Path
) -> None:
    login = start_login(service, server)
    devices = service._logins._device_logins._scheduler._job_runner
    assert isinstance(devices, DevicePoller)
    logins = FileStore(tmp_path).logins

    def take_over_delay(next_at: float, polled_by: str | None = None) -> float:
        device = replace(login.poll_state, next_at=next_at)  # type: ignore[type-var]
        logins.change(login.id, lambda it: replace(it, poll_state=device, polled_by=polled_by))
        return devices._take_over(login)[1].next_poll_at - time.monotonic()

    try:
        assert take_over_delay(time.time() - 60) <= 0
        assert 0.5 < take_over_delay(time.time() - 60, "a-poller-that-is-dead") <= 1
        assert take_over_delay(time.time() + 7200) <= 8
        assert 3 < take_over_delay(time.time() + 4) <= 4
    finally:
        asyncio.run(devices.release_resources())


def test_a_forked_child_is_another_poller_and_does_not_release_the_parents_lock(
    service: AuthService, server: Server, tmp_path: Path
) -> None:
    login = start_login(service, server)
    devices = service._logins._device_logins._scheduler._job_runner
    assert isinstance(devices, DevicePoller)
    devices._take_over(login)
    logins = FileStore(tmp_path).logins
    parent = logins.get(login.id).polled_by
    assert parent is not None
    assert logins.is_poller_alive(parent)
    lock = devices._poller_lease
    assert isinstance(lock, FileLock)
    # A forked child has a copy of the lock's descriptor.
    lock._descriptor, original = os.dup(lock._descriptor or 0), lock._descriptor
    lock.reset_in_child()
    devices.reset_in_child()
    assert logins.is_poller_alive(parent)
    assert devices._poller_id != parent
    assert devices._take_over(login)[1].other_poller == parent
    asyncio.run(devices.release_resources())
    os.close(original or 0)
    assert not logins.is_poller_alive(parent)


def test_a_cancel_in_one_process_ends_the_wait_in_another(
    service: AuthService, server: Server, demo: Demo, tmp_path: Path
) -> None:
    demo.authorization_server.change_behaviour(device_interval_seconds=300)
    login = start_login(service, server)

    async def main() -> Login:
        waiting = asyncio.create_task(service.wait_for_login(login.id))
        await asyncio.sleep(0)
        await AuthService(tmp_path).cancel(login.id)
        async with asyncio.timeout(SECONDS):
            return await waiting

    assert asyncio.run(main()).status == "cancelled"
    assert not poll_statuses(demo)


def test_a_login_that_is_cancelled_while_its_tokens_arrive_stays_cancelled(
    service: AuthService, server: Server, demo: Demo
) -> None:
    login = start_login(service, server)
    enter_code(login)
    gate = demo.authorization_server.hold("device_poll", after_processing=True)

    async def main() -> Login:
        waiting = asyncio.create_task(service.wait_for_login(login.id))
        assert await asyncio.to_thread(gate.arrived.wait, SECONDS)
        await service.cancel(login.id)
        demo.authorization_server.clear_faults()
        async with asyncio.timeout(SECONDS):
            return await waiting

    assert asyncio.run(main()).status == "cancelled"
    assert service.blocking.connection(server) is None
    # The tokens are not stored, so the service revokes them.
    wait_until(lambda: not usable_refresh_tokens(demo))


def usable_refresh_tokens(demo: Demo) -> list[str]:
    """Return the refresh tokens that the server accepts."""
    tokens = dict(demo.authorization_server.ledger.refresh_tokens)
    return [token for token, granted in tokens.items() if not granted.family.revoked]


@covers("dpop-choice")
def test_a_bearer_token_from_the_device_flow_is_refused_if_the_operator_requires_dpop(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demanding = replace(server, options=replace(server.options, dpop=True))
    login = start_login(service, demanding)
    enter_code(login)
    ended = asyncio.run(asyncio.wait_for(service.wait_for_login(login.id), SECONDS))
    assert (ended.status, ended.failure_code) == ("failed", "unreadable_answer")
    assert service.blocking.connection(server) is None
    wait_until(lambda: not usable_refresh_tokens(demo))


def test_a_device_login_survives_a_network_error(service: AuthService, server: Server, demo: Demo) -> None:
    login = start_login(service, server)
    enter_code(login)
    demo.authorization_server.fail_next("device_poll", hang_up=True)
    assert wait_for_end(service, login).status == "done"
    assert poll_statuses(demo)[-1] == "200"


@covers("device-switch")
def test_a_login_switches_from_device_to_paste_and_back_and_old_codes_stop_working(
    service: AuthService, server: Server, demo: Demo
) -> None:
    login = start_login(service, server, CHAT)

    async def main() -> Login:
        waiting = asyncio.create_task(service.wait_for_login(login.id))
        pasting = await service.switch_flow(login.id, "paste")
        assert (pasting.id, pasting.origin, pasting.poll_state) == (login.id, login.origin, None)
        answer = await asyncio.to_thread(approve, pasting.authorization_url)
        # The user enters the code of the device flow that was replaced.
        await asyncio.to_thread(enter_code, login)
        again = await service.switch_flow(login.id, "device")
        assert device_authorization_of(again).user_code != device_authorization_of(login).user_code
        with pytest.raises(PasteRefused, match="another device"):
            await service.complete_login(login.id, answer, CHAT)
        renewed = await service.switch_flow(login.id, "device")
        assert device_authorization_of(renewed).user_code != device_authorization_of(again).user_code
        await asyncio.to_thread(enter_code, renewed)
        async with asyncio.timeout(SECONDS):
            return await waiting

    assert asyncio.run(main()).status == "done"
    assert no_poll_was_early(demo)
    with pytest.raises(LoginAlreadyUsed):
        asyncio.run(service.switch_flow(login.id, "paste"))


@covers("device-switch")
def test_a_login_that_switched_to_paste_is_completed_by_a_paste(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(require_par=True, with_par=True)
    login = start_login(service, server)

    async def main() -> None:
        waiting = asyncio.create_task(service.wait_for_login(login.id))
        pasting = await service.switch_flow(login.id, "paste")
        answer = await asyncio.to_thread(approve, pasting.authorization_url)
        assert (await service.complete_login(login.id, answer, TERMINAL)).account == "ada@example.com"
        async with asyncio.timeout(SECONDS):
            assert (await waiting).status == "done"

    asyncio.run(main())
    assert poll_statuses(demo) in ([], ["400"])


@covers("device-switch")
def test_a_failed_switch_leaves_the_login_unchanged(service: AuthService, server: Server, demo: Demo) -> None:
    login = start_login(service, server, flow="paste")
    demo.authorization_server.change_behaviour(with_device=False)
    with pytest.raises(DeviceAuthorizationError):
        asyncio.run(service.switch_flow(login.id, "device"))
    demo.authorization_server.change_behaviour(with_device=True, device_scopes=frozenset[str]())
    with pytest.raises(DeviceAuthorizationError) as refused:
        asyncio.run(service.switch_flow(login.id, "device"))
    assert refused.value.error == "invalid_scope"
    assert service.blocking.login(login.id) == login
    asyncio.run(service.cancel(login.id))
    with pytest.raises(LoginCancelled):
        asyncio.run(service.switch_flow(login.id, "device"))


@covers("device-grant", "device-switch")
def test_quirk_23_an_older_client_is_registered_again_for_the_device_flow(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(with_device=False)
    old = start_login(service, server, flow="paste")
    asyncio.run(service.complete_login(old.id, approve(old.authorization_url), TERMINAL))
    demo.authorization_server.change_behaviour(with_device=True)
    login = start_login(service, server)
    assert login.request.client.client_id != old.request.client.client_id
    enter_code(login)
    assert wait_for_end(service, login).status == "done"
    assert start_login(service, server).request.client.client_id == login.request.client.client_id


@covers("device-scope", "flow-choice")
def test_quirk_47_a_scope_that_the_device_flow_may_not_have_switches_to_paste(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(device_scopes=frozenset[str]())
    login = start_login(service, server)
    assert login.poll_state is None
    asyncio.run(service.complete_login(login.id, approve(login.authorization_url), TERMINAL))
    with pytest.raises(DeviceAuthorizationError):
        start_login(service, server, flow="device")


@covers("flow-choice")
def test_the_device_flow_is_used_only_if_the_caller_or_the_config_allows_it(
    service: AuthService, server: Server
) -> None:
    assert start_login(service, server, flow=None).poll_state is None
    assert start_login(service, server, flow="paste").authorization_url
    configured = replace(server, options=ServerOptions(flow="paste"))
    assert start_login(service, configured).poll_state is None
    configured = replace(server, options=ServerOptions(flow="device"))
    login = start_login(service, configured, flow=None)
    assert login.poll_state is not None
    assert not login.authorization_url, "a device login has no authorization URL"


@covers("device-off")
def test_security_2_an_operator_turns_off_the_device_flow_per_server_or_platform(
    service: AuthService, server: Server, tmp_path: Path
) -> None:
    off = replace(server, options=ServerOptions(device=False))
    assert start_login(service, off).poll_state is None
    with pytest.raises(ConfigError) as caught:
        start_login(service, off, flow="device")
    assert "(`oauth.device`)" in caught.value.advice
    chats = AuthService(tmp_path, device_platforms={"terminal"})
    assert start_login(chats, server, CHAT).poll_state is None
    assert start_login(chats, server, TERMINAL).poll_state is not None
    login = start_login(chats, server, CHAT, flow="paste")
    with pytest.raises(ConfigError) as caught:
        asyncio.run(chats.switch_flow(login.id, "device"))
    # The advice names the key that turns it off.
    assert f"(`mcp_auth_chats.{CHAT.platform}.device`)" in caught.value.advice


def test_the_shorter_configured_lifetime_wins_and_the_servers_longer_one_is_used(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(device_seconds=900)
    login = start_login(service, server)
    assert 600 < login.expires_at - login.started_at <= 900
    short = replace(server, options=ServerOptions(login_seconds=60))
    login = start_login(service, short)
    assert 50 < login.expires_at - login.started_at <= 60


def test_the_device_flow_needs_no_pkce_but_a_switch_to_paste_does(
    service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.change_behaviour(pkce_advertised=False)
    login = start_login(service, server)
    assert login.poll_state is not None
    with pytest.raises(PkceNotSupported):
        asyncio.run(service.switch_flow(login.id, "paste"))
