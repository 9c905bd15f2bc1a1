"""The database goes away between two calls of a service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StoreUnwritable
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.protocol import Lease, LeaseName, Stored
from hermes_mcp_auth_remote.values import CredentialKey, Server
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.parts.sqlite_store import SqliteStore
from tests.requirements import covers
from tests.service.fakes import DUE_AT, EXPIRED_AT, OLD_HEADER, FakeServer, get_header
from tests.service.helpers import TERMINAL
from tests.store.builders import KEY, build_credentials


class FailingLease:
    """A lease of which one method fails. From then on, the store cannot be read."""

    def __init__(self, lease: Lease, store: FailingStore) -> None:
        self._lease = lease
        self._store = store

    @property
    def request_sent_at(self) -> float | None:
        return self._lease.request_sent_at

    def record_request(self) -> None:
        self._store.fail_at("record_request")
        self._lease.record_request()

    def release(self) -> None:
        self._store.fail_at("release")
        self._lease.release()


class FailingStore(SqliteStore):
    """A store whose database goes away when a lease calls `failing_method`."""

    failing_method: str | None = None
    is_down = False

    def fail_at(self, method: str) -> None:
        if method == self.failing_method:
            self.is_down = True
            raise StoreUnwritable("The database cannot be reached.")

    def try_lease(self, name: LeaseName) -> Lease | None:
        lease = super().try_lease(name)
        return None if lease is None else FailingLease(lease, self)

    def read(self, key: CredentialKey) -> Stored:
        if self.is_down:
            raise StoreUnwritable("The database cannot be reached.")
        return super().read(key)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> FailingStore:
    return FailingStore(tmp_path / "store.db", clock=clock)


@covers("shared-store")
def test_a_refreshed_token_is_used_although_the_lease_cannot_be_released(
    store: FailingStore, clock: ManualClock
) -> None:
    store.save_login(KEY, build_credentials())
    store.failing_method, clock.now = "release", EXPIRED_AT
    service = AuthService(store=store, run_exchange=FakeServer().run_exchange, clock=clock)
    assert get_header(service) == "Bearer new"


@covers("shared-store")
def test_a_stored_login_succeeds_although_the_lease_cannot_be_released(
    store: FailingStore, clock: ManualClock, server: Server, demo: Demo
) -> None:
    service = AuthService(store=store, clock=clock)

    async def log_in() -> None:
        login = await service.start_login(server, TERMINAL)
        address = await asyncio.to_thread(approve, login.authorization_url)
        store.failing_method = "release"
        await service.complete_login(login.id, address, TERMINAL)
        assert (await service.login(login.id)).status == "done"

    asyncio.run(log_in())
    assert demo.authorization_server.count_requests("revocation") == 0


@covers("shared-store")
def test_no_refresh_is_sent_that_the_store_has_not_recorded(store: FailingStore, clock: ManualClock) -> None:
    store.save_login(KEY, build_credentials())
    store.failing_method, authorization_server = "record_request", FakeServer()
    service = AuthService(store=store, run_exchange=authorization_server.run_exchange, clock=clock)
    clock.now = DUE_AT
    assert get_header(service) == OLD_HEADER
    store.is_down, clock.now = False, EXPIRED_AT
    with pytest.raises(StoreUnwritable):
        get_header(service)
    assert authorization_server.requests == []
