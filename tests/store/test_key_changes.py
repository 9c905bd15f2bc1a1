"""Find the keys that changed since the last check, without reading unchanged folders."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.store.files import key_changes
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.key_changes import FileKeyChanges as KeyChanges
from hermes_mcp_auth_remote.values import CredentialKey
from tests.requirements import covers
from tests.store.builders import build_credentials

OPERATOR, ADA, BOB = (CredentialKey("notes", owner) for owner in (None, "telegram:7", "telegram:8"))


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    store = FileStore(tmp_path)
    for key in (OPERATOR, ADA, BOB):
        store.save_login(key, build_credentials(0, key))
    return store


def settle() -> None:
    # If a change is within one tick of the disk's clock, it is read twice. A test cannot set back ctime, so
    # wait.
    time.sleep(0.06)


@covers("config-once")
def test_only_what_changed_is_returned_and_no_other_folder_is_opened(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, opened = KeyChanges(store), list[str]()
    scan_files = key_changes._scan_files

    def record(path: str) -> object:
        opened.append(path)
        return scan_files(path)

    monkeypatch.setattr(key_changes, "_scan_files", record)
    settle()
    assert changes.poll() == {OPERATOR, ADA, BOB}
    opened.clear()
    assert changes.poll() == set()
    assert opened == []
    tokens = build_credentials(1, ADA).tokens
    assert tokens is not None
    store.save_tokens(ADA, tokens, None)
    assert changes.poll() == {ADA}
    assert len(opened) == 1
    store.delete(BOB)
    store.save_login(OPERATOR, build_credentials(2, OPERATOR))
    assert changes.poll() == {OPERATOR, BOB}


def test_a_folder_that_goes_and_a_server_that_comes_are_returned(store: FileStore) -> None:
    changes, other = KeyChanges(store), CredentialKey("other", "telegram:7")
    assert changes.poll() == {OPERATOR, ADA, BOB}
    store.save_login(other, build_credentials(0, other))
    for path in (folder := store.root / "owners" / "telegram%3a8").iterdir():
        path.unlink()
    folder.rmdir()
    assert changes.poll() == {other, BOB}


def test_a_change_in_the_same_tick_of_the_clock_is_not_lost(store: FileStore) -> None:
    changes = KeyChanges(store)
    changes.poll()
    path = store.root / "notes.json"
    path.write_bytes(path.read_bytes().replace(b"access-0", b"access-12345"))
    os.utime(store.root)
    assert changes.poll() == {OPERATOR}


def test_a_file_that_is_written_in_place_is_found_by_the_full_scan(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = KeyChanges(store)
    settle()
    changes.poll()
    path = store.root / "notes.json"
    path.write_bytes(path.read_bytes().replace(b"access-0", b"access-12345"))
    assert changes.poll() == set()
    monkeypatch.setattr(key_changes, "FULL_SCAN_SECONDS", 0.0)
    changes._next_full_scan_at = 0.0
    assert changes.poll() == {OPERATOR}


def test_without_a_store_nothing_is_returned(tmp_path: Path) -> None:
    assert KeyChanges(FileStore(tmp_path)).poll() == set()
