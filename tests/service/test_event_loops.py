"""No event loop waits for the store: it may be a database that answers after 50 ms."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from hermes_mcp_auth_remote.errors import AuthorizationRequired, LoginNotFound
from hermes_mcp_auth_remote.http import client
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.blocking import BlockingReader
from hermes_mcp_auth_remote.service.prompting import prompting
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.protocol import Notice, Store
from hermes_mcp_auth_remote.values import CredentialKey, Server
from tests.consent_form import approve, approve_device
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Behaviour, Demo
from tests.parts.watched_store import LoopWatch
from tests.requirements import covers
from tests.service.fakes import OLD_HEADER, SERVER, FakeServer, make_store
from tests.service.helpers import TERMINAL, log_in
from tests.store.builders import NOW, build_credentials

T = TypeVar("T")

USER_ACTIONS = {"start_login", "switch_flow", "complete_login", "wait_for_login", "cancel", "logout"}
NOTICE = Notice("telegram", "42", CredentialKey("notes"), is_over=True, at=NOW)


@pytest.fixture
def watch() -> LoopWatch:
    return LoopWatch()


def is_coroutine_function(method: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(method))


def run(watch: LoopWatch, work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        watch.watch_this_loop()
        await work()

    asyncio.run(main())
    assert watch.blocking_calls == []


def test_the_watch_reports_a_call_in_an_event_loop(tmp_path: Path, watch: LoopWatch) -> None:
    service = AuthService(store=watch.wrap(FileStore(tmp_path)))

    async def main() -> None:
        watch.watch_this_loop()
        service.blocking.keys()
        await service.keys()

    asyncio.run(main())
    assert len(watch.blocking_calls) == 1


@covers("loop-and-store")
def test_no_reading_method_calls_the_store_in_the_event_loop(
    tmp_path: Path, watch: LoopWatch, server: Server, demo: Demo
) -> None:
    service = AuthService(store=watch.wrap(FileStore(tmp_path)))
    operations: dict[str, Callable[[Login], Awaitable[object]]] = {
        "login": lambda login: service.login(login.id),
        "logins": lambda _: service.logins(),
        "waiting_logins": lambda _: service.waiting_logins(),
        "connection": lambda _: service.connection(server),
        "read_credentials": lambda _: service.read_credentials(server),
        "redirect_uri": lambda _: service.redirect_uri(server),
        "keys": lambda _: service.keys(),
        "unanswered_login": lambda _: service.unanswered_login(server),
        "is_cimd_disabled": lambda _: service.is_cimd_disabled(server),
        "list_notices": lambda _: service.list_notices(),
        "replace_notice": lambda _: service.replace_notice(None, NOTICE),
        "save_prompt_message": lambda login: service.save_prompt_message(login.id, "7"),
        "save_messages": lambda login: service.save_messages(login.id, ("7", "8")),
        "change_extra_messages": lambda login: service.change_extra_messages(login.id, added=("9",)),
        "discover": lambda _: service.discover(server),
        "needs_token": lambda _: service.needs_token(server),
        "save_credentials": lambda _: service.save_credentials(server, build_credentials()),
    }
    coroutine_methods = {
        name
        for name, method in inspect.getmembers(AuthService, inspect.isfunction)
        if not name.startswith("_") and is_coroutine_function(method)
    }
    # The other tests here run the actions of a user.
    assert coroutine_methods == operations.keys() | USER_ACTIONS

    async def main() -> None:
        login = await service.start_login(server, TERMINAL)
        for name, operation in operations.items():
            await operation(login)
            assert watch.blocking_calls == [], name
        with pytest.raises(LoginNotFound):
            await service.login("x" * 20)

    run(watch, main)


def test_only_the_reader_for_threads_has_blocking_reads() -> None:
    """A method with the same name in both: one for event loops, one for threads."""
    blocking = {name for name in vars(BlockingReader) if not name.startswith("_")}
    for name in blocking & vars(AuthService).keys():
        assert is_coroutine_function(getattr(AuthService, name)), name


@covers("loop-and-store")
def test_a_code_login_never_calls_the_store_in_the_event_loop(
    tmp_path: Path, watch: LoopWatch, server: Server, clock: ManualClock
) -> None:
    service = AuthService(store=watch.wrap(FileStore(tmp_path)), clock=clock)

    async def main() -> None:
        connection = await log_in(service, server)
        assert connection.key == CredentialKey("notes")
        login = await service.start_login(server, TERMINAL)
        login = await service.switch_flow(login.id, "paste")
        assert (await service.cancel(login.id)).status == "cancelled"
        assert (await service.wait_for_login(login.id)).is_over
        assert await service.session(server).header()
        clock.now += 3600
        assert await service.session(server).header()
        await service.logout(server)
        assert await service.keys() == []

    run(watch, main)


@covers("loop-and-store")
@pytest.mark.slow
def test_a_device_login_never_calls_the_store_in_the_loop_that_polls(
    tmp_path: Path, watch: LoopWatch, server: Server, demo: Demo
) -> None:
    demo.authorization_server.behaviour = Behaviour(with_device=True, device_interval_seconds=1)
    service = AuthService(store=watch.wrap(FileStore(tmp_path)))

    async def main() -> None:
        login = await service.start_login(server, TERMINAL, flow="device")
        device = login.device_authorization
        assert device is not None
        await asyncio.to_thread(approve_device, device.verification_uri, device.user_code)
        assert (await service.wait_for_login(login.id)).status == "done"

    run(watch, main)
    assert {"change", "save_login", "release"} <= watch.names


class OneTimePrompter:
    """Completes the login that it shows."""

    def __init__(self, service: AuthService) -> None:
        self._service = service

    async def show(self, login: Login) -> None:
        address = await asyncio.to_thread(approve, login.authorization_url)
        await self._service.complete_login(login.id, address, login.origin)

    async def show_outcome(self, login: Login, connection: object) -> None:
        assert (login.status, connection is None) == ("done", False)


@covers("loop-and-store")
def test_a_call_that_prompts_its_user_never_calls_the_store_in_the_event_loop(
    tmp_path: Path, watch: LoopWatch, server: Server, clock: ManualClock
) -> None:
    service = AuthService(store=watch.wrap(FileStore(tmp_path)), clock=clock)

    async def main() -> None:
        session = service.session(server)
        with prompting(OneTimePrompter(service), TERMINAL):
            header = await session.header()
        assert header == session.header_now()

    run(watch, main)


@covers("loop-and-store")
def test_a_refused_token_never_calls_the_store_in_the_event_loop(tmp_path: Path, watch: LoopWatch) -> None:
    provider = FakeServer()
    store: Store = watch.wrap(make_store(tmp_path))
    service = AuthService(store=store, run_exchange=provider.run_exchange, clock=lambda: NOW)
    session = service.session(SERVER)

    async def main() -> None:
        header = await session.header()
        assert await session.handle_challenge(header, 401, ["Bearer"]) == "Bearer new"
        session.report_retry("Bearer new", is_accepted=True)
        challenge = 'Bearer error="insufficient_scope", scope="admin"'
        with pytest.raises(AuthorizationRequired):
            await session.handle_challenge("Bearer new", 403, [challenge])

    run(watch, main)


@covers("loop-and-store", "cancelled-caller")
def test_a_completion_that_is_cancelled_before_it_sends_the_code_fails_the_login_in_a_thread(
    tmp_path: Path, watch: LoopWatch, server: Server, demo: Demo
) -> None:
    is_blocked, is_sending, may_send = threading.Event(), threading.Event(), threading.Event()

    async def run_exchange(exchange: Exchange[T], server: Server) -> T:
        if is_blocked.is_set():
            is_sending.set()
            assert await asyncio.to_thread(may_send.wait, 20)
        return await client.run_exchange(exchange, server)

    service = AuthService(store=watch.wrap(FileStore(tmp_path)), run_exchange=run_exchange)

    async def main() -> None:
        login = await service.start_login(server, TERMINAL)
        address = await asyncio.to_thread(approve, login.authorization_url)
        is_blocked.set()
        completion = asyncio.create_task(service.complete_login(login.id, address, TERMINAL))
        assert await asyncio.to_thread(is_sending.wait, 20)
        completion.cancel()
        with pytest.raises(asyncio.CancelledError):
            await completion
        # The write has ended before the caller goes on.
        assert (await service.login(login.id)).status == "failed"
        may_send.set()

    run(watch, main)


@covers("hot-path")
def test_a_cached_token_needs_no_thread_and_no_store(tmp_path: Path) -> None:
    calls: list[str] = []
    store = make_store(tmp_path)
    service = AuthService(store=store, clock=lambda: NOW)
    session = service.session(SERVER)
    asyncio.run(session.header())
    for name in ("read", "try_lease"):
        setattr(store, name, lambda *_, name=name: calls.append(name))
    coroutine = session.header()
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    assert done.value.value == OLD_HEADER
    assert calls == []
