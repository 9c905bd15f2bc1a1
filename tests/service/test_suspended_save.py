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
from tests.service.fakes import FakeServer, make_service, make_store
from tests.store.builders import KEY, LOGIN_ID, NOW, build_credentials, build_login


@covers("killed")
def test_a_login_stays_exchanging_while_a_suspended_process_stores_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path)
    store.logins.add(replace(apply_event(build_login(), "claim"), key=KEY, expires_at=NOW + 10))
    has_reached_rename, may_continue, rename = threading.Event(), threading.Event(), os.replace

    def block_before_tokens(source: str, target: str) -> None:
        if str(target).endswith("notes.json"):
            has_reached_rename.set()
            assert may_continue.wait(20)
        rename(source, target)

    def store_login() -> None:
        with store.lock(KEY).hold(5):
            store.save_login(KEY, build_credentials(1), LOGIN_ID)

    thread = threading.Thread(target=store_login)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", block_before_tokens)
        thread.start()
        assert has_reached_rename.wait(20)
    later_service = make_service(tmp_path, FakeServer(), NOW + TIME_LIMITS.claim_seconds + 60)
    try:
        assert later_service.blocking.login(LOGIN_ID).status == "exchanging"
    finally:
        may_continue.set()
        thread.join(20)
    assert FileStore(tmp_path).read(KEY).credentials.tokens == build_credentials(1).tokens
    # The store marks the login as done together with its credentials.
    assert later_service.blocking.login(LOGIN_ID).status == "done"


@covers("wrong-clock")
@pytest.mark.parametrize("flights", ["exchange_flights", "storing_flights"], ids=["exchanging", "storing"])
def test_a_login_that_this_process_exchanges_does_not_fail_if_the_clock_was_set(
    tmp_path: Path, flights: str
) -> None:
    store = make_store(tmp_path)
    store.logins.add(replace(apply_event(build_login(), "claim"), key=KEY, expires_at=NOW + 10))
    service = make_service(tmp_path, FakeServer(), NOW + 86_400)
    may_continue = threading.Event()

    async def exchange() -> Credentials:
        await asyncio.to_thread(may_continue.wait, 10)
        return build_credentials(1)

    flight = getattr(service._deps, flights).submit(LOGIN_ID, exchange)
    try:
        assert service.blocking.login(LOGIN_ID).status == "exchanging"
    finally:
        may_continue.set()
        flight.result(20)
    assert service.blocking.login(LOGIN_ID).status == "failed"
