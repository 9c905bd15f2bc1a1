"""Listings of the file store: they open no secret, and read each session once."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StoreCorrupt, StoreUnwritable
from hermes_mcp_auth_remote.oauth.wire import Document
from hermes_mcp_auth_remote.store.codec import read_metadata
from hermes_mcp_auth_remote.store.files import session_files
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey
from tests.requirements import covers
from tests.store.builders import KEY, NOW, build_credentials, keys_of


def save_ended_session(store: FileStore, key: CredentialKey = KEY) -> None:
    credentials = build_credentials(key=key)
    assert credentials.binding is not None
    store.save_login(
        key, replace(credentials, binding=replace(credentials.binding, login_needed="It ended."))
    )


@covers("store-contract")
def test_a_listing_opens_no_secret(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    (tmp_path / "mcp-tokens" / "notes.json").write_text("not JSON")
    (summary,) = store.list_summaries()
    assert summary.key == KEY
    assert summary.version == store.glance(KEY)
    with pytest.raises(StoreCorrupt):
        store.read(KEY)


def test_a_session_that_cannot_be_read_is_not_due_until_it_can(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    save_ended_session(store)
    (session,) = store.list_due(NOW)
    assert session.key == KEY
    path = tmp_path / "mcp-tokens" / "notes.json"
    path.write_text("not JSON")
    os.utime(path.parent)
    assert store.list_due(NOW) == []
    save_ended_session(store)
    assert [each.key for each in store.list_due(NOW)] == [KEY]


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(tmp_path)
    save_ended_session(store)

    def fail(_: object) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(StoreUnwritable, match="Permission denied"):
        keys_of(store)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_lists_what_is_due(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    save_ended_session(store)
    expected = store.list_due(NOW)
    with store._due_sessions._lock:
        child = os.fork()
        if child == 0:
            # The child must not wait for the lock of its parent.
            os._exit(0 if store.list_due(NOW) == expected else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@covers("store-contract")
def test_metadata_that_many_sessions_store_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, parsed = FileStore(tmp_path), list[str]()
    keys = [CredentialKey("notes", f"telegram:{number}") for number in range(5)]
    for key in keys:
        store.save_login(key, build_credentials(7, key))

    def record(document: Document, path: str) -> object:
        parsed.append(path)
        return read_metadata(document, path)

    monkeypatch.setattr(f"{session_files.__name__}.read_metadata", record)
    session_files._parse_metadata.cache_clear()
    servers = [store.read(key).credentials.authorization_server for key in keys]
    assert len(parsed) == 1
    assert set(map(str, servers)) == {str(servers[0])}


def test_an_error_in_metadata_names_its_file(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    path = tmp_path / "mcp-tokens" / "notes.meta.json"
    for text in ("not JSON", '{"issuer": 1}'):
        path.write_text(text)
        with pytest.raises(StoreCorrupt, match=r"mcp-tokens.notes\.meta\.json"):
            store.read(KEY)
