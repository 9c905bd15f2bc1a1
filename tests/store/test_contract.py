"""What every store must do (`store.protocol`). Add a store to STORES to run these tests against it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import LoginError, LoginNotFound, StoreBusy
from hermes_mcp_auth_remote.login import Login, apply_event
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.leases import acquire_lease
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.protocol import ANY, UNKNOWN, Notice, Poller, Store, StoreConflict, Stored
from hermes_mcp_auth_remote.values import CredentialKey, Server
from tests.requirements import covers
from tests.service.fakes import EXPIRED_AT, FakeServer
from tests.service.helpers import wait_until
from tests.store.builders import KEY, LOGIN_ID, NOW, build_credentials, build_login

# Each function opens another store object for the same data, as another process does.
STORES: dict[str, Callable[[Path], Store]] = {"files": FileStore}

OpenStore = Callable[[], Store]


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    return lambda: STORES[request.param](tmp_path)


@pytest.fixture
def store(open_store: OpenStore) -> Store:
    return open_store()


def save_login(store: Store, generation: int = 0) -> Stored:
    version = store.save_login(KEY, build_credentials(generation))
    credentials = store.read(KEY).credentials
    assert credentials.tokens == build_credentials(generation).tokens
    return Stored(credentials, version)


def test_an_empty_store_has_no_version_and_no_credentials(store: Store) -> None:
    assert store.read(KEY) == (Credentials(), None)
    assert store.glance(KEY) is None
    assert store.list_keys() == []
    assert not store.delete(KEY)


@covers("store-contract")
def test_each_write_returns_the_version_that_a_reader_finds(store: Store, open_store: OpenStore) -> None:
    saved = save_login(store)
    assert open_store().read(KEY) == saved
    assert store.glance(KEY) == saved.version
    fresh = build_credentials(1).tokens
    assert fresh is not None
    refreshed = store.save_tokens(KEY, fresh, saved.credentials.binding, expect=saved.version)
    assert refreshed != saved.version
    assert open_store().read(KEY).version == open_store().glance(KEY) == refreshed
    binding = build_credentials().binding
    assert binding is not None
    ended = store.save_binding(KEY, replace(binding, login_needed="it has ended"), expect=refreshed)
    assert open_store().read(KEY).version == ended
    client = build_credentials().client
    assert client is not None
    assert store.drop_client(KEY, client, expect=ended) == open_store().read(KEY).version


@covers("store-contract")
def test_a_write_with_an_old_version_is_refused_and_returns_what_is_stored(store: Store) -> None:
    old = save_login(store)
    newer = save_login(store, 1)
    tokens, binding, client = old.credentials.tokens, old.credentials.binding, old.credentials.client
    assert tokens is not None
    assert binding is not None
    assert client is not None
    writes: list[Callable[[], object]] = [
        lambda: store.save_login(KEY, old.credentials, expect=old.version),
        lambda: store.save_tokens(KEY, tokens, binding, expect=old.version),
        lambda: store.save_binding(KEY, binding, expect=old.version),
        lambda: store.drop_client(KEY, client, expect=old.version),
        lambda: store.save_login(KEY, old.credentials, expect=None),
    ]
    for write in writes:
        with pytest.raises(StoreConflict) as caught:
            write()
        assert caught.value.found == newer
    assert store.read(KEY) == newer
    store.save_tokens(KEY, tokens, None, expect=ANY)
    assert store.read(KEY).credentials.tokens is not None


def test_a_write_never_returns_the_version_of_another_writer(store: Store, open_store: OpenStore) -> None:
    versions, others = list[object](), list[object]()
    fresh = build_credentials(1).tokens
    assert fresh is not None
    save_login(store)

    def write_all(target: Store, written: list[object]) -> None:
        written += [target.save_tokens(KEY, fresh, None) for _ in range(50)]

    thread = threading.Thread(target=write_all, args=(open_store(), others))
    thread.start()
    write_all(store, versions)
    thread.join()
    assert not set(versions) & set(others)


@covers("store-contract")
def test_a_glance_does_not_wait_for_a_lease_or_a_writer(store: Store, open_store: OpenStore) -> None:
    saved = save_login(store)
    store.logins.add(build_login())
    lease = store.try_lease(KEY)
    assert lease is not None
    glances: list[object] = []

    def slow_change(login: Login) -> Login:
        other = open_store()
        started_at = time.monotonic()
        glances.extend([other.glance(KEY), other.logins.glance(LOGIN_ID), other.logins.glance_all()])
        assert time.monotonic() - started_at < 1
        return login

    store.logins.change(LOGIN_ID, slow_change)
    lease.release()
    assert glances[0] in {saved.version, UNKNOWN}
    assert glances[1] is not None


@covers("store-contract")
def test_a_change_function_may_run_twice(store: Store) -> None:
    store.logins.add(build_login())

    def claim_twice(login: Login) -> Login:
        apply_event(login, "claim")
        return apply_event(login, "claim")

    change = store.logins.change(LOGIN_ID, claim_twice)
    assert (change.before.status, change.after.status) == ("waiting", "exchanging")
    assert store.logins.get(LOGIN_ID) == change.after
    with pytest.raises(LoginError):
        store.logins.change(LOGIN_ID, claim_twice)


def test_a_change_returns_the_version_of_the_record(store: Store, open_store: OpenStore) -> None:
    assert store.logins.add(build_login()) == open_store().logins.glance(LOGIN_ID)
    change = store.logins.change(LOGIN_ID, lambda login: replace(login, message_ids=("7",)))
    assert change.version == open_store().logins.glance(LOGIN_ID)
    assert store.logins.change(LOGIN_ID, lambda login: login).version == change.version
    assert store.logins.glance("x" * 20) is None
    with pytest.raises(LoginNotFound):
        store.logins.get("x" * 20)


def test_open_logins_are_listed_by_owner_and_platform(store: Store) -> None:
    store.logins.add(build_login())
    store.logins.add(replace(build_login("another-login-that-is-over"), status="cancelled"))
    store.logins.add(replace(build_login("another-login-of-a-server"), key=KEY))
    assert len(store.logins.list_all()) == 3
    assert len(store.logins.list_open()) == len(store.logins.list_open(platform="telegram")) == 2
    assert [login.id for login in store.logins.list_open(None)] == ["another-login-of-a-server"]
    assert store.logins.list_open(platform="discord") == []
    store.logins.remove_expired(NOW + 86_400)
    assert store.logins.list_all() == []


def test_a_changed_login_changes_the_version_of_all(store: Store, open_store: OpenStore) -> None:
    store.logins.add(build_login())
    wait_until(lambda: store.logins.glance_all() is not UNKNOWN)
    before = store.logins.glance_all()
    open_store().logins.change(LOGIN_ID, lambda login: replace(login, message_ids=("7",)))
    assert store.logins.glance_all() != before
    wait_until(lambda: store.logins.glance_all() not in {UNKNOWN, before})


def test_saving_a_login_marks_it_as_done(store: Store) -> None:
    store.logins.add(apply_event(build_login(), "claim"))
    store.save_login(KEY, build_credentials(), LOGIN_ID)
    assert store.logins.get(LOGIN_ID).status == "done"
    assert not store.recover_login(KEY, LOGIN_ID)


def test_keys_are_listed_by_owner(store: Store) -> None:
    for owner in (None, "telegram:1", "telegram:2"):
        key = CredentialKey("notes", owner)
        store.save_login(key, build_credentials(key=key))
    assert len(store.list_keys()) == 3
    assert store.list_keys("telegram:1") == [CredentialKey("notes", "telegram:1")]
    assert store.list_keys(None) == [KEY]
    assert store.list_keys("telegram:3") == []


def test_notices_are_changed_by_a_pure_function(store: Store) -> None:
    notice = Notice("telegram", "42", KEY, is_over=True, at=NOW)
    assert store.notices.change(lambda notices: [*notices, notice]) == []
    assert store.notices.change(lambda notices: notices) == [notice]
    assert store.notices.list_all() == [notice]


@pytest.mark.parametrize("name", [KEY, Poller("a-poller-of-device-logins")])
def test_a_lease_has_one_holder_at_a_time(
    store: Store, open_store: OpenStore, name: CredentialKey | Poller
) -> None:
    lease = store.try_lease(name)
    assert lease is not None
    assert lease.request_sent_at is None
    assert store.try_lease(name) is open_store().try_lease(name) is None
    assert open_store().is_leased(name)
    lease.release()
    lease.release()
    assert not open_store().is_leased(name)


@pytest.mark.parametrize("in_flight", [True, False])
def test_a_waiter_gets_the_lease_or_gives_up(store: Store, *, in_flight: bool) -> None:
    async def main() -> None:
        async with acquire_lease(store, KEY, 5, in_flight=in_flight):
            with pytest.raises(StoreBusy):
                async with acquire_lease(store, KEY, 0, in_flight=in_flight):
                    pass
        assert not store.is_leased(KEY)

    asyncio.run(main())


@covers("store-contract")
def test_a_cancelled_waiter_releases_what_its_thread_still_gets(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_asking, may_continue = threading.Event(), threading.Event()
    try_lease = store.try_lease

    def try_lease_slowly(name: CredentialKey | Poller) -> object:
        is_asking.set()
        assert may_continue.wait(20)
        return try_lease(name)

    monkeypatch.setattr(store, "try_lease", try_lease_slowly)

    async def hold_lease() -> None:
        async with acquire_lease(store, KEY, 5, in_flight=False):
            raise AssertionError("The waiter was cancelled, so it never holds the lease.")

    async def main() -> None:
        waiter = asyncio.create_task(hold_lease())
        assert await asyncio.to_thread(is_asking.wait, 20)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        may_continue.set()

    asyncio.run(main())
    monkeypatch.undo()
    wait_until(lambda: not store.is_leased(KEY))


@pytest.fixture
def forked() -> Callable[[Callable[[], bool]], bool]:
    def run_in_child(check: Callable[[], bool]) -> bool:
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if check() else 1)
            finally:
                os._exit(2)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    return run_in_child


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_uses_the_store_and_holds_no_lease(
    store: Store, forked: Callable[[Callable[[], bool]], bool]
) -> None:
    saved = save_login(store)
    store.logins.add(build_login())
    lease = store.try_lease(KEY)
    assert lease is not None
    is_changing, may_continue = threading.Event(), threading.Event()

    def wait_in_change(login: Login) -> Login:
        is_changing.set()
        assert may_continue.wait(20)
        return login

    # The child must not wait for a lock that a thread of its parent holds.
    thread = threading.Thread(target=store.logins.change, args=(LOGIN_ID, wait_in_change))
    thread.start()
    assert is_changing.wait(20)
    try:
        assert forked(
            lambda: (
                store.read(KEY) == saved
                and store.try_lease(KEY) is None
                and [login.id for login in store.logins.list_all()] == [LOGIN_ID]
            )
        )
    finally:
        may_continue.set()
        thread.join()
    assert store.is_leased(KEY)
    lease.release()
    assert forked(lambda: store.try_lease(KEY) is not None)


@covers("store-contract")
def test_a_service_uses_the_store_that_it_is_given(store: Store) -> None:
    save_login(store)
    server = FakeServer()
    service = AuthService(store=store, run_exchange=server.run_exchange, clock=lambda: EXPIRED_AT)
    assert asyncio.run(service.session(Server("notes", "https://notes.example/mcp")).header()) == "Bearer new"
    assert service.keys() == [KEY]
    with pytest.raises(TypeError):
        AuthService()
