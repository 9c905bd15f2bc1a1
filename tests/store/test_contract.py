"""What every store must do (`store.protocol`). Add a store to `tests.store.stores` to test it here."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import LoginError, LoginNotFound, StoreBusy
from hermes_mcp_auth_remote.login import Login, apply_event
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.token_refusal import TokenRefusal
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.leases import acquire_lease
from hermes_mcp_auth_remote.store.credentials import Credentials, UnansweredClient
from hermes_mcp_auth_remote.store.protocol import (
    ANY,
    UNKNOWN,
    DueSession,
    Notice,
    Person,
    Poller,
    Store,
    StoreConflict,
    Stored,
    Version,
)
from hermes_mcp_auth_remote.values import CredentialKey, Secret, Server
from tests.demo.manual_client import ManualClock
from tests.requirements import covers
from tests.service.fakes import EXPIRED_AT, FakeServer
from tests.service.helpers import wait_until
from tests.store.builders import (
    FAILURE,
    KEY,
    LOGIN_ID,
    NOW,
    REDIRECT_URI,
    build_credentials,
    build_login,
    keys_of,
    with_client_id,
)
from tests.store.stores import STORES, WITH_TIMED_LEASES, WITHOUT_FEED, OpenAgain

with_timed_leases = pytest.mark.parametrize("store_name", WITH_TIMED_LEASES)


@pytest.fixture(params=STORES)
def store_name(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def open_store(store_name: str, tmp_path: Path) -> OpenAgain:
    return lambda: STORES[store_name](tmp_path)


@pytest.fixture
def store(open_store: OpenAgain) -> Store:
    return open_store()


def save_login(store: Store, generation: int = 0) -> Stored:
    version = store.save_login(KEY, build_credentials(generation))
    credentials = store.read(KEY).credentials
    assert credentials.tokens == build_credentials(generation).tokens
    return Stored(credentials, version)


def test_an_empty_store_has_no_version_and_no_credentials(store: Store) -> None:
    assert store.read(KEY) == (Credentials(), None)
    assert store.glance(KEY) in {None, UNKNOWN}
    assert store.list_summaries() == []
    assert store.list_due(math.inf) == []
    assert not store.delete(KEY)


@covers("store-contract")
def test_each_write_returns_the_version_that_a_reader_finds(store: Store, open_store: OpenAgain) -> None:
    saved = save_login(store)
    assert open_store().read(KEY) == saved
    assert store.glance(KEY) in {saved.version, UNKNOWN}
    fresh = build_credentials(1).tokens
    assert fresh is not None
    refreshed = store.save_tokens(KEY, fresh, saved.credentials.binding, expect=saved.version)
    assert refreshed != saved.version
    assert open_store().read(KEY).version == refreshed
    assert open_store().glance(KEY) in {refreshed, UNKNOWN}
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


@covers("store-contract")
def test_a_deleted_version_is_never_used_again(store: Store) -> None:
    # A session that glances only after the next login must see that its tokens are gone.
    versions = list[object]()
    for generation in range(3):
        versions.append(save_login(store, generation).version)
        assert store.glance(KEY) in {versions[-1], UNKNOWN}
        assert store.delete(KEY)
        assert store.glance(KEY) in {None, UNKNOWN}
        assert store.read(KEY) == (Credentials(), None)
    assert len(set(versions)) == 3


@with_timed_leases
def test_two_writers_that_replace_one_version_do_not_both_succeed(
    store: Store, open_store: OpenAgain
) -> None:
    # A worker may write after it has lost its lease.
    fresh = build_credentials(1).tokens
    assert fresh is not None
    stores, outcomes, barrier = (store, open_store()), list[bool](), threading.Barrier(2)

    def write(target: Store, version: Version | None) -> None:
        barrier.wait(20)
        try:
            target.save_tokens(KEY, fresh, None, expect=version)
        except StoreConflict:
            outcomes.append(False)
        else:
            outcomes.append(True)

    for _ in range(20):
        version = save_login(store).version
        threads = [threading.Thread(target=write, args=(each, version)) for each in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (outcomes.count(True), outcomes.count(False)) == (20, 20)


def read_credentials(store: Store) -> Credentials:
    """Return what is stored for KEY, without the document of the client, to which a store adds defaults."""
    credentials = store.read(KEY).credentials
    client = credentials.client
    return credentials if client is None else replace(credentials, client=replace(client, document={}))


def build_dpop_credentials() -> Credentials:
    credentials = build_credentials()
    assert credentials.tokens is not None
    tokens = replace(credentials.tokens, scheme="DPoP")
    return replace(credentials, tokens=tokens, proof_key=Secret('{"kty": "EC", "d": "private"}'))


@covers("store-contract")
def test_a_refresh_replaces_nothing_but_the_tokens_and_the_binding(
    store: Store, open_store: OpenAgain
) -> None:
    credentials = build_dpop_credentials()
    store.save_login(KEY, credentials)
    assert read_credentials(open_store()) == credentials
    assert credentials.tokens is not None
    assert credentials.binding is not None
    tokens = replace(credentials.tokens, access_token=Secret("access-of-a-refresh"))
    binding = replace(
        credentials.binding,
        refreshed_at=NOW + 1,
        config_files="1/2",
        needed_scope=frozenset({"admin"}),
        is_public_only=True,
        unanswered_client=UnansweredClient("client-0", Client("client-1", redirect_uris=(REDIRECT_URI,))),
    )
    store.save_tokens(KEY, tokens, binding)
    found = read_credentials(open_store())
    assert found.binding is not None
    mark = found.binding.unanswered_client
    assert mark is not None
    assert mark.replacement is not None
    assert (mark.client_id, mark.replacement.client_id) == ("client-0", "client-1")
    found = replace(found, binding=replace(found.binding, unanswered_client=binding.unanswered_client))
    assert found == replace(credentials, tokens=tokens, binding=binding)


@covers("store-contract")
def test_a_login_removes_the_parts_that_it_does_not_have(store: Store) -> None:
    store.save_login(KEY, build_dpop_credentials())
    tokens = build_credentials(1).tokens
    assert tokens is not None
    tokens = replace(tokens, account=None, refresh_expires_at=None)
    store.save_login(KEY, Credentials(tokens))
    assert store.read(KEY).credentials == Credentials(tokens)


def test_credentials_without_tokens_leave_the_stored_tokens(store: Store) -> None:
    client_only = replace(build_credentials(), tokens=None)
    assert store.save_login(KEY, client_only) is None
    # Without tokens there is no session to list, and no version that a write could expect.
    assert (read_credentials(store), store.read(KEY).version) == (client_only, None)
    assert store.list_summaries() == []
    assert list(store.iterate_sessions()) == []
    store.save_login(KEY, build_credentials(), expect=None)
    store.save_login(KEY, client_only)
    assert read_credentials(store) == build_credentials()
    assert store.delete(KEY)


@covers("store-contract")
def test_only_the_rejected_client_is_dropped(store: Store) -> None:
    credentials = save_login(store).credentials
    other_client = build_credentials(1).client
    assert credentials.client is not None
    assert other_client is not None
    store.drop_client(KEY, other_client)
    assert store.read(KEY).credentials == credentials
    store.drop_client(KEY, credentials.client)
    assert store.read(KEY).credentials == replace(credentials, client=None)
    # The authorization server may accept the metadata document of a client all the same.
    assert not store.is_cimd_disabled(KEY)


@covers("store-contract")
def test_a_rejected_metadata_document_is_remembered_until_a_logout(
    store: Store, open_store: OpenAgain
) -> None:
    document = Client("https://client.example/metadata.json", redirect_uris=(REDIRECT_URI,))
    store.drop_client(KEY, document)
    save_login(store)
    assert open_store().is_cimd_disabled(KEY)
    assert not store.is_cimd_disabled(CredentialKey(KEY.server_name, "telegram:1"))
    store.delete(KEY)
    assert not store.is_cimd_disabled(KEY)


def test_the_identity_of_the_configuration_is_stored_for_its_url_only(store: Store) -> None:
    binding = save_login(store).credentials.binding
    assert binding is not None
    for url, expected in (("https://other.example/mcp", None), (binding.server_url, "1/2")):
        store.save_config_identity(KEY, url, "1/2")
        stored_binding = store.read(KEY).credentials.binding
        assert stored_binding is not None
        assert stored_binding.config_files == expected


@pytest.mark.parametrize("name", ["\udcff\udcfe", "a\0b", "\x1b[2J", "", "../x", "%", "Ä'\""])
def test_any_text_may_be_a_name_or_an_owner(store: Store, name: str) -> None:
    # A name may come from an argument or from config.yaml, and an error is an McpAuthError.
    for key in (CredentialKey(name), CredentialKey("notes", name)):
        assert store.read(key) == (Credentials(), None)
        assert store.glance(key) in {None, UNKNOWN}
        assert not store.delete(key)
        assert store.list_summaries(key.owner) == []
    with pytest.raises(LoginNotFound):
        store.logins.get(name)
    assert store.logins.glance(name) in {None, UNKNOWN}


def test_a_write_never_returns_the_version_of_another_writer(store: Store, open_store: OpenAgain) -> None:
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
def test_a_glance_does_not_wait_for_a_lease_or_a_writer(store: Store, open_store: OpenAgain) -> None:
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


def test_a_change_returns_the_version_of_the_record(store: Store, open_store: OpenAgain) -> None:
    assert open_store().logins.glance(LOGIN_ID) in {None, UNKNOWN}
    added = store.logins.add(build_login())
    assert open_store().logins.glance(LOGIN_ID) in {added, UNKNOWN}
    change = store.logins.change(LOGIN_ID, lambda login: replace(login, message_ids=("7",)))
    assert change.version != added
    assert open_store().logins.glance(LOGIN_ID) in {change.version, UNKNOWN}
    assert store.logins.change(LOGIN_ID, lambda login: login).version == change.version
    assert store.logins.glance("x" * 20) in {None, UNKNOWN}
    with pytest.raises(LoginNotFound):
        store.logins.get("x" * 20)


def change_during(other: threading.Thread) -> None:
    """Let another thread change the same value: at once, or after this change if the store locks it."""
    if other.ident is None:
        other.start()
        other.join(0.05)


@covers("store-contract")
def test_exactly_one_of_two_concurrent_claims_succeeds(store: Store, open_store: OpenAgain) -> None:
    store.logins.add(build_login())
    outcomes = list[str]()

    def claim(target: Store, apply_change: Callable[[Login], Login]) -> None:
        try:
            target.logins.change(LOGIN_ID, apply_change)
        except LoginError:
            outcomes.append("refused")
        else:
            outcomes.append("claimed")

    other = threading.Thread(target=claim, args=(open_store(), lambda login: apply_event(login, "claim")))

    def claim_during_another(login: Login) -> Login:
        change_during(other)
        return apply_event(login, "claim")

    claim(store, claim_during_another)
    other.join()
    assert sorted(outcomes) == ["claimed", "refused"]


def test_a_change_does_not_bring_a_removed_login_back(store: Store, open_store: OpenAgain) -> None:
    store.logins.add(build_login())
    other = threading.Thread(target=open_store().logins.remove_expired, args=(NOW + 86_400,))

    def change_during_removal(login: Login) -> Login:
        change_during(other)
        return replace(login, message_ids=("7",))

    with suppress(LoginNotFound):
        store.logins.change(LOGIN_ID, change_during_removal)
    other.join()
    with pytest.raises(LoginNotFound):
        store.logins.get(LOGIN_ID)
    with pytest.raises(LoginNotFound):
        store.logins.change(LOGIN_ID, lambda login: login)


def test_logins_are_listed_in_the_order_of_their_start(store: Store) -> None:
    for login_id, started_at in (("c" * 20, NOW), ("a" * 20, NOW + 1), ("b" * 20, NOW + 2)):
        store.logins.add(replace(build_login(login_id), started_at=started_at))
    for logins in (store.logins.list_all(), store.logins.list_open()):
        assert [login.id[0] for login in logins] == ["c", "a", "b"]


def test_a_login_stays_for_an_hour_after_its_end(store: Store) -> None:
    store.logins.add(build_login())
    ended_at = build_login().expires_at
    store.logins.remove_expired(ended_at + 3590)
    assert store.logins.get(LOGIN_ID) == build_login()
    store.logins.remove_expired(ended_at + 3610)
    assert store.logins.list_all() == []


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


def has_other_version(store: Store, versions: set[object]) -> bool:
    """True if the version of all logins is none of these."""
    return store.logins.glance_all() not in versions


def test_each_write_of_a_login_changes_the_version_of_all(
    store: Store, open_store: OpenAgain, store_name: str
) -> None:
    if store_name == WITHOUT_FEED:
        store.logins.add(build_login())
        assert store.logins.glance_all() is UNKNOWN
        return
    other = open_store().logins
    writes: list[Callable[[], object]] = [
        lambda: other.add(build_login()),
        lambda: other.add(build_login("another-login-of-a-user")),
        lambda: other.change(LOGIN_ID, lambda login: apply_event(login, "claim")),
        lambda: open_store().save_login(KEY, build_credentials(), LOGIN_ID),
        lambda: other.remove_expired(NOW + 86_400),
    ]
    for write in writes:
        wait_until(lambda: store.logins.glance_all() is not UNKNOWN)
        seen: set[object] = {UNKNOWN, store.logins.glance_all()}
        write()
        assert store.logins.glance_all() not in seen - {UNKNOWN}
        wait_until(partial(has_other_version, store, seen))


def test_saving_a_login_marks_it_as_done(store: Store) -> None:
    store.logins.add(apply_event(build_login(), "claim"))
    store.save_login(KEY, build_credentials(), LOGIN_ID)
    assert store.logins.get(LOGIN_ID).status == "done"
    assert not store.recover_login(KEY, LOGIN_ID)


def test_credentials_are_stored_also_if_their_login_is_gone_or_over(store: Store) -> None:
    # The tokens cannot be requested again, and the caller has checked the login under the lease.
    store.logins.add(replace(build_login(), status="cancelled"))
    for generation, login_id in enumerate((LOGIN_ID, "a-login-that-was-removed")):
        store.save_login(KEY, build_credentials(generation), login_id)
        assert read_credentials(store) == build_credentials(generation)
    assert store.logins.get(LOGIN_ID).status == "cancelled"


def test_keys_are_listed_by_owner(store: Store) -> None:
    for owner in (None, "telegram:1", "telegram:2"):
        key = CredentialKey("notes", owner)
        store.save_login(key, build_credentials(key=key))
    assert len(store.list_summaries()) == 3
    assert keys_of(store, "telegram:1") == [CredentialKey("notes", "telegram:1")]
    assert keys_of(store, None) == [KEY]
    assert keys_of(store, "telegram:3") == []


@covers("store-contract")
@pytest.mark.parametrize("limit", [1, 2, 100])
def test_summaries_come_in_pages_also_if_the_last_one_was_deleted(store: Store, limit: int) -> None:
    owners = (None, "", "telegram:1", "telegram:2")
    # In some orders, the second name is between the files of the first one.
    keys = {CredentialKey(name, owner) for owner in owners for name in ("a", "a-b", "a.c", "b")}
    for key in keys:
        store.save_login(key, build_credentials(key=key))
    listed = list[CredentialKey]()
    while page := store.list_summaries(after=listed[-1] if listed else None, limit=limit):
        assert len(page) <= limit
        for key, version in page:
            assert version == store.read(key).version
            listed.append(key)
        store.delete(listed[-1])
    assert len(listed) == len(keys)
    assert set(listed) == keys


@covers("store-contract")
def test_sessions_come_with_their_credentials_and_records(store: Store) -> None:
    keys = [CredentialKey(name, owner) for owner in (None, "telegram:1") for name in ("a", "b", "c d")]
    for key in keys:
        store.save_login(key, build_credentials(key=key))
    tokens = build_credentials().tokens
    assert tokens is not None
    refusal = TokenRefusal(first_at=NOW, last_at=NOW, refreshes=2, is_refused=True)
    store.refresh_failures.write(keys[0], tokens, FAILURE)
    store.token_refusals.write(keys[1], tokens, refusal)
    listed = list(store.iterate_sessions())
    assert [session.key for session in listed] == [summary.key for summary in store.list_summaries()]
    assert {session.key for session in listed} == set(keys)
    for session in listed:
        assert with_client_id(session.stored) == with_client_id(store.read(session.key))
        assert session.refresh_failure == (FAILURE if session.key == keys[0] else None)
        assert session.token_refusal == (refusal if session.key == keys[1] else None)
        assert session.error is None
    assert [session.key for session in store.iterate_sessions("telegram:1")] == [
        key for key in keys if key.owner is not None
    ]


def save_session(store: Store, name: str, *, ends_at: float | None, login_needed: str | None = None) -> None:
    """Store a session whose refresh token ends at this time."""
    credentials = build_credentials()
    assert credentials.tokens is not None
    assert credentials.binding is not None
    binding = replace(
        credentials.binding, server_name=name, refresh_expires_at=ends_at, login_needed=login_needed
    )
    tokens = replace(credentials.tokens, refresh_expires_at=ends_at)
    store.save_login(CredentialKey(name), replace(credentials, tokens=tokens, binding=binding))


@covers("store-contract")
def test_due_sessions_come_in_pages_in_the_order_of_their_times(store: Store, open_store: OpenAgain) -> None:
    days = 86_400
    save_session(store, "ends-second", ends_at=NOW + 30 * days)
    save_session(store, "never-ends", ends_at=None)
    save_session(store, "ended", ends_at=None, login_needed="the session is over")
    save_session(store, "ends-first", ends_at=NOW + 20 * days)
    # Users are warned three days before the end.
    for now, names in (
        (NOW, ["ended"]),
        (NOW + 17 * days - 1, ["ended"]),
        (NOW + 17 * days + 1, ["ended", "ends-first"]),
        (NOW + 40 * days, ["ended", "ends-first", "ends-second"]),
    ):
        for each in (store, open_store()):
            due = each.list_due(now)
            assert [session.key.server_name for session in due] == names
            assert [session.version for session in due] == [each.read(key).version for key, _, _ in due]
            paged = list[DueSession]()
            while page := each.list_due(now, paged[-1] if paged else None, limit=1):
                paged += page
            assert paged == due


@covers("store-contract")
def test_each_write_can_make_a_session_due_or_end_that(store: Store, open_store: OpenAgain) -> None:
    other = open_store()
    assert store.list_due(NOW) == other.list_due(NOW) == []

    def due() -> list[DueSession]:
        found = store.list_due(NOW)
        assert other.list_due(NOW) == found
        return found

    save_session(store, "notes", ends_at=None)
    credentials = store.read(KEY).credentials
    tokens, binding = credentials.tokens, credentials.binding
    assert tokens is not None
    assert binding is not None
    assert due() == []
    store.save_binding(KEY, replace(binding, login_needed="the session is over"))
    (ended,) = due()
    assert ended == DueSession(KEY, ended.version, 0.0)
    # The tokens of a refresh make the session work again.
    store.save_tokens(KEY, replace(tokens, access_token=Secret("access-of-a-refresh")), binding)
    assert due() == []
    fresh = store.read(KEY).credentials.tokens
    assert fresh is not None
    store.refresh_failures.write(KEY, fresh, replace(FAILURE, is_final=True, was_alive=False))
    (failed,) = due()
    assert failed.version != ended.version
    store.refresh_failures.clear(KEY)
    assert due() == []
    save_session(store, "notes", ends_at=NOW + 60)
    assert [session.key for session in due()] == [KEY]
    store.delete(KEY)
    assert due() == []


def test_a_login_that_is_over_is_stored_without_its_secrets(store: Store) -> None:
    store.logins.add(build_login())
    store.logins.change(LOGIN_ID, lambda login: apply_event(login, "cancel"))
    request = store.logins.get(LOGIN_ID).request
    assert (request.url, request.state, request.code_verifier) == ("", Secret(""), Secret(""))
    assert request.client.client_secret == Secret("")


def test_people_are_changed_by_a_pure_function(store: Store, open_store: OpenAgain) -> None:
    person = Person("telegram", "42", is_admin=True, admitted_by="", admitted_at=NOW)
    guest = Person("discord", "7", is_admin=False, admitted_by="42", admitted_at=NOW + 1)
    other = threading.Thread(target=open_store().people.change, args=(lambda people: [*people, guest],))

    def add_during_another_change(people: list[Person]) -> list[Person]:
        change_during(other)
        return [*people, person]

    assert person in store.people.change(add_during_another_change)
    other.join()
    assert set(open_store().people.list_all()) == {person, guest}
    assert store.people.change(lambda people: [it for it in people if it != guest]) == [person]
    with pytest.raises(ZeroDivisionError):
        store.people.change(lambda people: people[: 1 // 0])
    assert open_store().people.list_all() == [person]


def test_records_of_other_tokens_do_not_count(store: Store, open_store: OpenAgain) -> None:
    save_login(store)
    tokens, other = build_credentials(0).tokens, build_credentials(1).tokens
    assert tokens is not None
    assert other is not None
    refusal = TokenRefusal(1, NOW, NOW, is_refused=True)
    store.refresh_failures.write(KEY, tokens, FAILURE)
    store.token_refusals.write(KEY, tokens, refusal)
    assert open_store().refresh_failures.read(KEY, tokens) == FAILURE
    assert open_store().token_refusals.read(KEY, tokens) == refusal
    assert (store.refresh_failures.read(KEY, other), store.token_refusals.read(KEY, other)) == (None, None)
    store.delete(KEY)
    assert (store.refresh_failures.read(KEY, tokens), store.token_refusals.read(KEY, tokens)) == (None, None)


def test_a_notice_replaces_only_the_one_that_its_writer_has_read(store: Store, open_store: OpenAgain) -> None:
    notice = Notice("telegram", "42", KEY, is_over=True, at=NOW, of_tokens=NOW - 1, message="9")
    others = [
        replace(notice, platform="discord"),
        replace(notice, user="43"),
        replace(notice, key=CredentialKey("other")),
    ]
    for other in others:
        assert store.notices.replace(None, other)
    later = replace(notice, at=NOW + 1, message="10")
    assert not store.notices.replace(later, notice)
    assert not store.notices.replace(later, None)
    assert store.notices.replace(None, notice)
    # One process sends each notice: the one that replaced the earlier notice.
    assert not open_store().notices.replace(None, later)
    assert open_store().notices.replace(notice, later)
    assert not store.notices.replace(notice, None)
    assert sorted(map(repr, store.notices.list_all())) == sorted(map(repr, [*others, later]))
    assert store.notices.replace(later, None)
    assert set(open_store().notices.list_all()) == set(others)
    for wrong in ((None, None), (others[0], others[1])):
        with pytest.raises(ValueError, match="the same recipient and session"):
            store.notices.replace(*wrong)


def test_of_two_processes_one_replaces_a_notice(store: Store, open_store: OpenAgain) -> None:
    notice = Notice("telegram", "42", KEY, is_over=True, at=NOW)
    store.notices.replace(None, notice)

    def replace_in_other_process(number: int) -> bool:
        return open_store().notices.replace(notice, replace(notice, message=str(number)))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(replace_in_other_process, range(8))) == 1


@pytest.mark.parametrize("name", [KEY, Poller("a-poller-of-device-logins")])
def test_a_lease_has_one_holder_at_a_time(
    store: Store, open_store: OpenAgain, name: CredentialKey | Poller
) -> None:
    lease = store.try_lease(name)
    assert lease is not None
    assert lease.request_sent_at is None
    assert store.try_lease(name) is open_store().try_lease(name) is None
    assert open_store().is_leased(name)
    lease.release()
    lease.release()
    assert not open_store().is_leased(name)


@covers("store-contract")
def test_a_lease_that_was_released_does_not_end_the_next_one(store: Store, open_store: OpenAgain) -> None:
    first = store.try_lease(KEY)
    assert first is not None
    first.release()
    second = open_store().try_lease(KEY)
    assert second is not None
    first.release()
    assert store.is_leased(KEY)
    assert store.try_lease(KEY) is None
    second.release()


def test_each_key_and_poller_has_a_lease_of_its_own(store: Store) -> None:
    names = (KEY, CredentialKey(KEY.server_name, "telegram:1"), CredentialKey("other"), Poller("p" * 20))
    leases = [store.try_lease(name) for name in names]
    assert None not in leases
    for lease in leases:
        assert lease is not None
        lease.release()


@covers("store-contract")
def test_a_lease_outlives_the_writes_of_its_holder(store: Store, open_store: OpenAgain) -> None:
    # Until the logout has ended, no other process may read the tokens that it revokes and refresh them.
    lease = store.try_lease(KEY)
    assert lease is not None
    saved, tokens = save_login(store), build_credentials(1).tokens
    assert saved.credentials.client is not None
    assert tokens is not None
    store.save_tokens(KEY, tokens, saved.credentials.binding)
    store.drop_client(KEY, saved.credentials.client)
    store.delete(KEY)
    assert open_store().is_leased(KEY)
    assert open_store().try_lease(KEY) is None
    lease.release()
    assert not store.is_leased(KEY)


@pytest.mark.parametrize("has_result", [True, False])
def test_a_request_whose_holder_released_the_lease_is_not_recorded(store: Store, *, has_result: bool) -> None:
    lease = store.try_lease(KEY)
    assert lease is not None
    lease.record_request()
    if has_result:
        save_login(store)
    # The holder lives, so it knows what came of its request.
    lease.release()
    after = store.try_lease(KEY)
    assert after is not None
    assert after.request_sent_at is None
    after.release()


@with_timed_leases
@pytest.mark.parametrize("name", [KEY, Poller("a-poller-of-device-logins")])
def test_the_lease_of_a_dead_process_ends_by_the_clock(
    store_name: str, tmp_path: Path, name: CredentialKey | Poller
) -> None:
    clock = ManualClock()
    assert STORES[store_name](tmp_path, clock).try_lease(name) is not None
    store = STORES[store_name](tmp_path, clock)
    clock.now += 5
    assert store.is_leased(name)
    # A refresh token that the dead process may have spent is sent 100 s after its request.
    clock.now += 95
    assert not store.is_leased(name)
    lease = store.try_lease(name)
    assert lease is not None
    lease.release()


@covers("store-contract")
@with_timed_leases
def test_the_request_of_a_lost_lease_stays_recorded_until_tokens_are_stored(
    store_name: str, tmp_path: Path
) -> None:
    clock = ManualClock()
    store = STORES[store_name](tmp_path, clock)
    save_login(store)
    lost = store.try_lease(KEY)
    assert lost is not None
    lost.record_request()
    # As if the process of `lost` were stopped: only the clock ends its lease.
    while store.is_leased(KEY):
        assert clock.now < NOW + 100
        clock.now += 5
    for _ in range(2):
        lease = STORES[store_name](tmp_path, clock).try_lease(KEY)
        assert lease is not None
        assert lease.request_sent_at == NOW
        lost.release()
        assert store.try_lease(KEY) is None
        lease.release()
    save_login(store, 1)
    lease = store.try_lease(KEY)
    assert lease is not None
    assert lease.request_sent_at is None
    lease.release()


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
    assert service.blocking.keys() == [KEY]
    with pytest.raises(TypeError):
        AuthService()
