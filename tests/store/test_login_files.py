from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from hermes_mcp_auth_remote.errors import LoginAlreadyUsed, LoginNotFound, StoreCorrupt, StoreUnsafe
from hermes_mcp_auth_remote.login import Login, LoginStatus, apply_event
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.login_files import LoginFiles
from hermes_mcp_auth_remote.values import Secret
from tests.store.builders import LOGIN_ID, NOW, build_login

SECRETS = ("state-0", "verifier-0", "client-secret-0", "manage-0")


@pytest.fixture
def logins(tmp_path: Path) -> LoginFiles:
    return FileStore(tmp_path).logins


def path_of(tmp_path: Path, login_id: str = LOGIN_ID) -> Path:
    return tmp_path / "mcp-tokens" / "logins" / f"{login_id}.json"


def test_another_process_reads_the_same_login(tmp_path: Path, logins: LoginFiles) -> None:
    logins.add(build_login())
    assert FileStore(tmp_path).logins.get(LOGIN_ID) == build_login()
    assert path_of(tmp_path).stat().st_mode & 0o777 == 0o600
    assert path_of(tmp_path).parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "login_id",
    [
        "",
        "short",
        "x" * 65,
        "../" * 8,
        "../../../etc/passwd",
        "a-login-that-nobody.json",
        "ä" * 20,
        "a" * 20 + "\n",
    ],
)
def test_an_invalid_id_is_not_found(logins: LoginFiles, login_id: str) -> None:
    logins.add(build_login())
    with pytest.raises(LoginNotFound):
        logins.get(login_id)
    with pytest.raises(LoginNotFound):
        logins.change(login_id, lambda login: login)
    with pytest.raises(LoginNotFound):
        logins.add(replace(build_login(), id=login_id))


def test_an_unknown_id_is_not_found_with_and_without_a_store(logins: LoginFiles) -> None:
    for _ in range(2):
        with pytest.raises(LoginNotFound):
            logins.get("x" * 20)
        with pytest.raises(LoginNotFound):
            logins.change("x" * 20, lambda login: login)
        logins.add(build_login())


def test_a_change_is_stored_and_returned(logins: LoginFiles) -> None:
    logins.add(build_login())
    changed = logins.change(LOGIN_ID, lambda login: apply_event(login, "claim")).after
    assert changed.status == "exchanging"
    assert logins.get(LOGIN_ID) == changed
    # The process that claimed the login needs its secrets for the exchange.
    assert changed.request.code_verifier == Secret("verifier-0")


def test_a_change_that_is_refused_writes_nothing(tmp_path: Path, logins: LoginFiles) -> None:
    logins.add(build_login())
    logins.change(LOGIN_ID, lambda login: apply_event(login, "claim"))
    before = path_of(tmp_path).stat()
    with pytest.raises(LoginAlreadyUsed):
        logins.change(LOGIN_ID, lambda login: apply_event(login, "claim"))
    after = path_of(tmp_path).stat()
    # Not the access time: the disk may update it when the file is read.
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("status", get_args(LoginStatus))
def test_a_finished_login_keeps_no_secret(tmp_path: Path, logins: LoginFiles, status: LoginStatus) -> None:
    logins.add(build_login())
    logins.change(LOGIN_ID, lambda login: replace(login, status=status, failure=("It failed.", "Try again.")))
    text = path_of(tmp_path).read_text()
    stored_secrets = [secret for secret in SECRETS if secret in text]
    assert stored_secrets == ([] if login_with_status(status).is_over else list(SECRETS))
    stored = logins.get(LOGIN_ID)
    assert (stored.status, stored.failure) == (status, ("It failed.", "Try again."))
    assert stored.request.state == Secret("" if stored.is_over else "state-0")


def login_with_status(status: LoginStatus) -> Login:
    return replace(build_login(), status=status)


def test_logins_are_listed_by_start_time_without_unreadable_ones(tmp_path: Path, logins: LoginFiles) -> None:
    assert logins.list_all() == []
    ids = ["c" * 16, "a" * 16, "b" * 16]
    for number, login_id in enumerate(ids):
        logins.add(replace(build_login(login_id), started_at=NOW + number))
    broken = path_of(tmp_path, "d" * 16)
    broken.write_text("{")
    broken.chmod(0o600)
    path_of(tmp_path, "note").write_text("not ours")
    assert [login.id for login in logins.list_all()] == ids
    with pytest.raises(StoreCorrupt, match=str(broken)):
        logins.get("d" * 16)
    assert broken.read_text() == "{"


def test_logins_are_removed_an_hour_after_expiry(tmp_path: Path, logins: LoginFiles) -> None:
    logins.remove_expired(NOW)
    logins.add(build_login())
    leftover, being_written = (
        path_of(tmp_path).with_name(f".{LOGIN_ID}.json.{number}.abc.tmp") for number in (1, 2)
    )
    for path in (leftover, being_written):
        path.write_text("a verifier")
    an_hour_ago = being_written.stat().st_mtime - 3601
    os.utime(leftover, (an_hour_ago, an_hour_ago))
    logins.remove_expired(NOW + 600 + 3600)
    assert logins.get(LOGIN_ID) == build_login()
    assert not leftover.exists()
    # The age of the file is computed from file times, not from the caller's clock.
    assert being_written.exists()
    logins.remove_expired(NOW + 600 + 3601)
    assert logins.list_all() == []


def test_lock_files_of_dead_pollers_are_removed(tmp_path: Path, logins: LoginFiles) -> None:
    live_id, dead_id, recent_id = "a" * 16, "b" * 16, "c" * 16
    live = logins.try_poller_lease(live_id)
    assert live is not None
    folder = Path(live.path).parent
    # A killed process leaves the file behind, and the system frees its lock.
    paths = {poller_id: folder / f".{poller_id}.poller" for poller_id in (live_id, dead_id, recent_id)}
    for poller_id in (dead_id, recent_id):
        paths[poller_id].touch(0o600)
    hours_ago = paths[live_id].stat().st_mtime - 7200
    for poller_id in (live_id, dead_id):
        os.utime(paths[poller_id], (hours_ago, hours_ago))
    logins.remove_expired(NOW)
    assert [poller_id for poller_id, path in paths.items() if path.exists()] == [live_id, recent_id]
    assert logins.is_poller_alive(live_id)
    live.release()


def test_an_unreadable_login_is_not_removed(tmp_path: Path, logins: LoginFiles) -> None:
    logins.add(build_login())
    path_of(tmp_path).write_text("{")
    logins.remove_expired(NOW + 1_000_000)
    assert path_of(tmp_path).read_text() == "{"


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("version", 3),
        ("version", None),
        ("id", "another-login-altogether"),
        ("status", "unheard of"),
        ("failure", ["one"]),
        ("failure", "text"),
        ("begun_at", "now"),
        ("begun_at", True),
        ("begun_at", 10**400),
        ("expires_at", None),
        ("added_scope", None),
        ("added_scope", [1]),
        ("origin", []),
        ("request", None),
        ("client", {}),
        ("authorization_server", {"issuer": "https://as0.example"}),
        (
            "authorization_server",
            {"issuer": "x", "authorization_endpoint": "file:///x", "token_endpoint": "x"},
        ),
        ("owner", 7),
    ],
)
def test_an_invalid_member_of_a_login_raises_store_corrupt(
    tmp_path: Path, logins: LoginFiles, member: str, value: object
) -> None:
    logins.add(build_login())
    document = json.loads(path_of(tmp_path).read_text())
    path_of(tmp_path).write_text(json.dumps({**document, member: value}))
    with pytest.raises(StoreCorrupt) as caught:
        logins.get(LOGIN_ID)
    assert str(path_of(tmp_path)) in str(caught.value)
    assert not [secret for secret in SECRETS if secret in str(caught.value)]


def test_a_login_file_open_to_others_is_refused(tmp_path: Path, logins: LoginFiles) -> None:
    logins.add(build_login())
    path_of(tmp_path).chmod(0o644)
    with pytest.raises(StoreUnsafe):
        logins.get(LOGIN_ID)
