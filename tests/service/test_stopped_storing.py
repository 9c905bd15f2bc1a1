"""While a suspended process stores a login, other processes do not mark the login as failed."""

from __future__ import annotations

import asyncio
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.login import apply_event
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS
from tests.requirements import covers
from tests.service.fakes import FakeServer, seeded, service_at
from tests.store.given import KEY, LOGIN_ID, NOW, credentials_of, login_of


@covers("killed")
def test_a_login_that_a_stopped_process_stores_stays_exchanging_until_it_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = seeded(tmp_path)
    store.logins.add(replace(apply_event(login_of(), "claim"), key=KEY, expires_at=NOW + 10))
    reached, go_on, rename = threading.Event(), threading.Event(), os.replace

    def stop_before_tokens(source: str, target: str) -> None:
        if str(target).endswith("notes.json"):
            reached.set()
            assert go_on.wait(10)
        rename(source, target)

    def store_login() -> None:
        with store.lock(KEY).hold(5):
            store.save_login(KEY, credentials_of(1), LOGIN_ID)

    thread = threading.Thread(target=store_login)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", stop_before_tokens)
        thread.start()
        assert reached.wait(10)
    late = service_at(tmp_path, FakeServer(), NOW + TIME_LIMITS.claim_seconds + 60)
    try:
        assert late.login(LOGIN_ID).status == "exchanging"
    finally:
        go_on.set()
        thread.join(10)
    assert FileStore(tmp_path).read(KEY).tokens == credentials_of(1).tokens
    # The commit record is gone, and no process exchanges the login any more.
    assert late.login(LOGIN_ID).status == "failed"


@covers("wrong-clock")
@pytest.mark.parametrize("flights", ["exchange_flights", "storing_flights"], ids=["exchanging", "storing"])
def test_a_login_that_this_process_exchanges_does_not_fail_because_the_clock_was_set(
    tmp_path: Path, flights: str
) -> None:
    store = seeded(tmp_path)
    store.logins.add(replace(apply_event(login_of(), "claim"), key=KEY, expires_at=NOW + 10))
    service = service_at(tmp_path, FakeServer(), NOW + 86_400)
    go_on = threading.Event()

    async def exchange() -> Credentials:
        await asyncio.to_thread(go_on.wait, 10)
        return credentials_of(1)

    flight = getattr(service._deps, flights).submit(LOGIN_ID, exchange)
    try:
        assert service.login(LOGIN_ID).status == "exchanging"
    finally:
        go_on.set()
        flight.result(10)
    assert service.login(LOGIN_ID).status == "failed"
