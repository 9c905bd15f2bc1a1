from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StoreCorrupt, StoreUnsafe, StoreUnwritable
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.protocol import Stored
from hermes_mcp_auth_remote.values import CredentialKey, Secret
from tests.store.builders import (
    KEY,
    NOW,
    REDIRECT_URI,
    build_authorization_server,
    build_credentials,
    keys_of,
)


def binding_of(credentials: Credentials) -> Binding:
    assert credentials.binding is not None
    return credentials.binding


def tokens_of(credentials: Credentials) -> Tokens:
    assert credentials.tokens is not None
    return credentials.tokens


def client_of(credentials: Credentials) -> Client:
    assert credentials.client is not None
    return credentials.client


def rewrite_json(path: Path, change: Callable[[dict[str, object]], dict[str, object]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    path.chmod(0o600)


def write_file(home: Path, name: str, text: str) -> Path:
    (home / "mcp-tokens").mkdir(mode=0o700, exist_ok=True)
    path = home / "mcp-tokens" / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_reading_an_empty_store_creates_nothing(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "home")
    assert store.read(KEY).credentials == Credentials()
    assert store.glance(KEY) is None
    assert keys_of(store) == []
    assert not store.delete(KEY)
    assert not (tmp_path / "home").exists()


def test_stored_credentials_are_read_back(tmp_path: Path) -> None:
    stored = build_credentials()
    FileStore(tmp_path).save_login(KEY, stored)
    loaded = FileStore(tmp_path).read(KEY).credentials
    assert loaded.tokens == stored.tokens
    assert replace(client_of(loaded), document={}) == stored.client
    assert loaded.authorization_server == stored.authorization_server
    assert loaded.binding == stored.binding


def test_every_file_is_private(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    store.save_login(CredentialKey("notes", "telegram:42"), build_credentials())
    with store.lock(KEY).hold(1):
        pass
    for path in (tmp_path / "mcp-tokens").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    assert (tmp_path / "mcp-tokens").stat().st_mode & 0o777 == 0o700


def test_the_files_contain_only_what_hermes_reads(tmp_path: Path) -> None:
    FileStore(tmp_path).save_login(KEY, build_credentials())
    root = tmp_path / "mcp-tokens"
    assert {path.name for path in root.iterdir()} == {
        "notes.json",
        "notes.client.json",
        "notes.meta.json",
        "notes.binding.json",
    }
    assert json.loads((root / "notes.json").read_text()) == {
        "access_token": "access-0",
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "read write",
        "refresh_token": "refresh-0",
        "expires_at": NOW + 3600,
    }
    assert json.loads((root / "notes.client.json").read_text()) == {
        "client_id": "client-0",
        "client_secret": "client-secret-0",
        "redirect_uris": [REDIRECT_URI],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "client_secret_post",
    }
    assert json.loads((root / "notes.meta.json").read_text()) == build_authorization_server().document


def test_client_members_that_hermes_can_read_are_kept(tmp_path: Path) -> None:
    document = {
        "client_id": "client-0",
        "client_uri": "",
        "client_name": None,
        "client_id_issued_at": 1_700_000_000,
        "contacts": "nobody",
        "grant_types": ["authorization_code"],
        "registration_client_uri": "https://as0.example/clients/client-0",
        "issuer": "https://as0.example",
    }
    client = Client("client-0", None, "none", (REDIRECT_URI, "nonsense"), 1.9e9, document=document)
    FileStore(tmp_path).save_login(KEY, replace(build_credentials(), client=client))
    assert json.loads((tmp_path / "mcp-tokens" / "notes.client.json").read_text()) == {
        "client_id": "client-0",
        "client_id_issued_at": 1_700_000_000,
        "client_secret_expires_at": 1_900_000_000,
        "grant_types": ["authorization_code"],
        "registration_client_uri": "https://as0.example/clients/client-0",
        "redirect_uris": [REDIRECT_URI],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "hermes_mcp_auth_not_registered": True,
    }


def test_an_unregistered_client_is_read_as_unregistered(tmp_path: Path) -> None:
    client = Client("client-0", None, "none", (REDIRECT_URI,), is_registered=False)
    FileStore(tmp_path).save_login(KEY, replace(build_credentials(), client=client))
    assert not client_of(FileStore(tmp_path).read(KEY).credentials).is_registered


@pytest.mark.parametrize("part", ["client", "metadata", "tokens"])
def test_if_one_file_would_be_too_large_no_file_is_written(tmp_path: Path, part: str) -> None:
    store, new, much = FileStore(tmp_path), build_credentials(1), "x" * 1_100_000
    store.save_login(KEY, build_credentials(0))
    before = {path.name: path.read_bytes() for path in (tmp_path / "mcp-tokens").iterdir()}
    if part == "client":
        new = replace(new, client=replace(client_of(new), document={"note": much}))
    elif part == "metadata":
        server = replace(
            build_authorization_server(1), document={**build_authorization_server(1).document, "note": much}
        )
        new = replace(new, authorization_server=server)
    else:
        new = replace(new, tokens=replace(tokens_of(new), access_token=Secret(much)))
    with pytest.raises(StoreUnwritable, match="too large"):
        store.save_login(KEY, new)
    assert {path.name: path.read_bytes() for path in (tmp_path / "mcp-tokens").iterdir()} == before


def test_a_new_login_replaces_all_parts_of_the_old_one(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    store.save_login(KEY, Credentials(tokens=build_credentials(1).tokens))
    loaded = store.read(KEY).credentials
    assert (loaded.client, loaded.authorization_server, loaded.binding) == (None, None, None)
    assert tokens_of(loaded).access_token == Secret("access-1")


def test_saving_credentials_without_tokens_keeps_the_stored_tokens(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    store.save_login(KEY, replace(build_credentials(1), tokens=None))
    assert tokens_of(store.read(KEY).credentials).access_token == Secret("access-0")


def test_refreshed_tokens_change_the_version_and_keep_client_and_metadata(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    before = store.glance(KEY)
    store.save_tokens(
        KEY, tokens_of(build_credentials(1)), replace(binding_of(build_credentials(0)), account="x")
    )
    assert store.glance(KEY) != before
    loaded = store.read(KEY).credentials
    assert tokens_of(loaded).refresh_token == Secret("refresh-1")
    assert client_of(loaded).client_id == "client-0"
    assert binding_of(loaded).account == "x"


def test_refreshed_tokens_without_a_binding_keep_the_stored_one(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    store.save_tokens(KEY, tokens_of(build_credentials(1)), None)
    # The expiry of the old refresh token does not apply to the new one.
    assert store.read(KEY).credentials.binding == replace(
        binding_of(build_credentials(0)), refresh_expires_at=None
    )


def test_marking_a_session_as_over_keeps_its_tokens_and_version(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    before = store.glance(KEY)
    over = replace(binding_of(build_credentials()), login_needed="the provider ended the session")
    store.save_binding(KEY, over)
    assert store.glance(KEY) == before
    loaded = store.read(KEY).credentials
    assert loaded.binding == over
    assert tokens_of(loaded) == build_credentials().tokens


def test_other_tokens_clear_the_login_needed_mark(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    store.save_binding(
        KEY, replace(binding_of(build_credentials()), login_needed="the provider ended the session")
    )
    rewrite_json(tmp_path / "mcp-tokens" / "notes.json", lambda old: {**old, "access_token": "by-hermes"})
    assert binding_of(store.read(KEY).credentials).login_needed is None


_CHANGES_BY_ANOTHER_PROGRAM = pytest.mark.parametrize(
    ("name", "member", "value"),
    [
        ("notes.client.json", "client_id", "another"),
        ("notes.meta.json", "issuer", "https://elsewhere.example"),
        ("notes.meta.json", "issuer", "https://as0.example/tenant"),
    ],
)


@_CHANGES_BY_ANOTHER_PROGRAM
def test_a_binding_does_not_apply_to_a_login_of_another_program(
    tmp_path: Path, name: str, member: str, value: str
) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    rewrite_json(tmp_path / "mcp-tokens" / name, lambda old: {**old, member: value})
    rewrite_json(tmp_path / "mcp-tokens" / "notes.json", lambda old: {**old, "access_token": "by-hermes"})
    loaded = store.read(KEY).credentials
    assert loaded.binding is None
    assert tokens_of(loaded).account is None
    assert loaded.client is not None
    assert loaded.authorization_server is not None


@_CHANGES_BY_ANOTHER_PROGRAM
def test_stored_tokens_are_not_paired_with_files_of_another_program(
    tmp_path: Path, name: str, member: str, value: str
) -> None:
    store, stored = FileStore(tmp_path), build_credentials()
    store.save_login(KEY, stored)
    rewrite_json(tmp_path / "mcp-tokens" / name, lambda old: {**old, member: value})
    loaded = store.read(KEY).credentials
    assert (loaded.tokens, loaded.binding) == (stored.tokens, stored.binding)
    is_client = name == "notes.client.json"
    assert (loaded.client is None) == is_client
    assert loaded.authorization_server == (stored.authorization_server if is_client else None)


@pytest.mark.parametrize("name", ["notes.client.json", "notes.meta.json"])
def test_a_missing_file_does_not_invalidate_the_binding(tmp_path: Path, name: str) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    (tmp_path / "mcp-tokens" / name).unlink()
    assert store.read(KEY).credentials.binding == build_credentials().binding


def test_a_slash_that_hermes_appends_to_an_issuer_is_removed(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    rewrite_json(
        tmp_path / "mcp-tokens" / "notes.meta.json", lambda old: {**old, "issuer": "https://as0.example/"}
    )
    loaded = store.read(KEY).credentials
    assert loaded.binding == build_credentials().binding
    assert loaded.authorization_server is not None
    assert loaded.authorization_server.issuer == "https://as0.example"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"text"', "\x00", "[" * 100_000, '{"access_token": 7}', '{"access_token": ""}'],
)
@pytest.mark.parametrize("suffix", ["json", "client.json", "meta.json", "binding.json"])
def test_a_corrupt_file_is_named_and_not_changed(tmp_path: Path, suffix: str, text: str) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    path = write_file(tmp_path, f"notes.{suffix}", text)
    with pytest.raises(StoreCorrupt) as caught:
        store.read(KEY)
    assert str(path) in str(caught.value)
    assert path.read_text() == text
    # A new login replaces the corrupt file.
    store.save_login(KEY, build_credentials())
    assert store.read(KEY).credentials.binding == build_credentials().binding


def test_a_binding_of_a_later_version_is_refused_with_advice(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    rewrite_json(tmp_path / "mcp-tokens" / "notes.binding.json", lambda old: {**old, "version": 2})
    with pytest.raises(StoreCorrupt, match="another version") as caught:
        store.read(KEY)
    assert "Update" in caught.value.advice


@pytest.mark.parametrize(
    ("document", "expires_at"),
    [
        ({"expires_at": 5000.5, "expires_in": 10}, 5000.5),
        ({"expires_at": "5000", "expires_in": 10}, 5000.0),
        ({"expires_in": 100}, 1100.0),
        ({"expires_in": "100"}, 1100.0),
        ({"expires_at": None, "expires_in": None}, None),
        ({"expires_at": "soon", "expires_in": 100}, 1100.0),
        ({"expires_at": True, "expires_in": False}, None),
        ({"expires_at": [], "expires_in": {}}, None),
        ({"expires_in": -1}, None),
        ({"expires_at": 10**400}, None),
    ],
)
def test_without_an_expiry_it_is_the_file_time_plus_the_lifetime(
    tmp_path: Path, document: dict[str, object], expires_at: float | None
) -> None:
    path = write_file(tmp_path, "notes.json", json.dumps({"access_token": "a", **document}))
    os.utime(path, (1000, 1000))
    assert tokens_of(FileStore(tmp_path).read(KEY).credentials).expires_at == expires_at


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_an_invalid_expiry_is_ignored(tmp_path: Path, text: str) -> None:
    write_file(tmp_path, "notes.json", f'{{"access_token": "a", "expires_at": {text}}}')
    assert tokens_of(FileStore(tmp_path).read(KEY).credentials).expires_at is None


def test_invalid_members_beside_an_access_token_are_ignored(tmp_path: Path) -> None:
    write_file(
        tmp_path, "notes.json", '{"access_token": "a", "refresh_token": 7, "scope": ["x"], "token_type": {}}'
    )
    tokens = tokens_of(FileStore(tmp_path).read(KEY).credentials)
    assert (tokens.refresh_token, tokens.scope) == (None, None)


@pytest.mark.parametrize("suffix", ["json", "client.json", "meta.json", "binding.json"])
def test_a_new_login_replaces_a_linked_or_open_file(tmp_path: Path, suffix: str) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    path = tmp_path / "mcp-tokens" / f"notes.{suffix}"
    path.chmod(0o644)
    with pytest.raises(StoreUnsafe, match="open to others"):
        store.read(KEY)
    elsewhere = path.rename(tmp_path / "elsewhere")
    path.symlink_to(elsewhere)
    with pytest.raises(StoreUnsafe, match="symbolic link"):
        store.read(KEY)
    before = elsewhere.read_bytes()
    store.save_login(KEY, build_credentials(1))
    assert tokens_of(store.read(KEY).credentials).access_token == Secret("access-1")
    assert elsewhere.read_bytes() == before


def test_a_linked_directory_is_refused_for_reading_and_writing(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "mcp-tokens").symlink_to(tmp_path / "elsewhere")
    store = FileStore(tmp_path)
    with pytest.raises(StoreUnsafe):
        store.read(KEY)
    with pytest.raises(StoreUnsafe):
        store.save_login(KEY, build_credentials())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_two_servers_with_the_same_file_name_are_not_mixed_up(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    mine, other = CredentialKey("my.server"), CredentialKey("my_server")
    store.save_login(mine, build_credentials(0, mine))
    for touch in (
        lambda: store.read(other).credentials,
        lambda: store.save_login(other, build_credentials(1, other)),
        lambda: store.delete(other),
        lambda: store.lock(other),
    ):
        with pytest.raises(StoreUnsafe, match="another server") as caught:
            touch()
        assert "Rename" in caught.value.advice
    assert tokens_of(store.read(mine).credentials).access_token == Secret("access-0")


def test_each_owner_has_a_separate_folder_inside_the_store(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    owners = [
        None,
        "telegram:42",
        "telegram_42",
        "telegram/42",
        "Telegram:42",
        "..",
        "../..",
        ".",
        "",
        "%",
        "a\0b",
        "ü",
    ]
    for number, owner in enumerate(owners):
        store.save_login(CredentialKey("notes", owner), build_credentials(number))
    for number, owner in enumerate(owners):
        assert tokens_of(store.read(CredentialKey("notes", owner)).credentials).access_token == Secret(
            f"access-{number}"
        )
    keys = keys_of(store)
    assert {key.owner for key in keys} == set(owners)
    assert {path.name for path in tmp_path.iterdir()} == {"mcp-tokens"}
    folders = [path.name for path in (tmp_path / "mcp-tokens" / "owners").iterdir()]
    assert len({name.lower() for name in folders}) == len(owners) - 1


def test_listed_keys_have_the_configured_name_or_the_file_stem(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for key in (CredentialKey("my.server"), CredentialKey("my.server", "telegram:42")):
        store.save_login(key, build_credentials(0, key))
    write_file(tmp_path, "by_hermes.json", '{"access_token": "a"}')
    write_file(tmp_path, "broken.json", "{")
    write_file(tmp_path, "broken.binding.json", "{")
    write_file(tmp_path, "alone.client.json", '{"client_id": "a"}')
    write_file(tmp_path, "renamed.json", '{"access_token": "a"}')
    write_file(tmp_path, "renamed.binding.json", '{"server": "something else"}')
    assert set(keys_of(store)) == {
        CredentialKey("my.server"),
        CredentialKey("my.server", "telegram:42"),
        CredentialKey("by_hermes"),
        CredentialKey("broken"),
        CredentialKey("renamed"),
    }


def test_deleting_keeps_only_the_lock_and_other_servers(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    store.save_login(CredentialKey("notes2"), build_credentials(0, CredentialKey("notes2")))
    write_file(tmp_path, "notes.client.json.bak", "{}")
    write_file(tmp_path, ".notes.json.1.abc.tmp", "a token")
    write_file(tmp_path, ".notes2.json.1.abc.tmp", "a token")
    with store.lock(KEY).hold(1):
        assert store.delete(KEY)
    assert store.read(KEY).credentials == Credentials()
    remaining = {
        path.name for path in (tmp_path / "mcp-tokens").iterdir() if path.name.strip(".").startswith("notes.")
    }
    assert remaining == {"notes.json.refresh.lock"}
    assert (tmp_path / "mcp-tokens" / ".notes2.json.1.abc.tmp").exists()
    assert tokens_of(store.read(CredentialKey("notes2")).credentials).access_token == Secret("access-0")


def test_a_blank_tokens_file_counts_as_missing(tmp_path: Path) -> None:
    # A logout leaves such a file if the tokens file is a mount point, which cannot be removed.
    store = FileStore(tmp_path)
    path = write_file(tmp_path, "notes.json", "{}")
    assert store.glance(KEY) is None
    assert store.read(KEY) == Stored(Credentials(), None)
    assert keys_of(store) == []
    version = store.save_login(KEY, build_credentials(), expect=None)
    assert store.glance(KEY) == version
    # Another file of the same size is damaged, and not missing.
    path.write_text("[]")
    assert store.glance(KEY) not in {None, version}
    with pytest.raises(StoreCorrupt):
        store.read(KEY)


def test_a_corrupt_login_can_be_deleted(tmp_path: Path) -> None:
    for suffix in ("json", "client.json", "meta.json", "binding.json"):
        write_file(tmp_path, f"notes.{suffix}", "{")
    assert FileStore(tmp_path).delete(KEY)
    assert FileStore(tmp_path).read(KEY).credentials == Credentials()


def test_a_new_login_removes_only_old_temporary_files(tmp_path: Path) -> None:
    old, fresh = (
        write_file(tmp_path, ".notes.json.1.a.tmp", "x"),
        write_file(tmp_path, ".notes.json.2.b.tmp", "x"),
    )
    os.utime(old, (NOW - 900_000_000, NOW - 900_000_000))
    FileStore(tmp_path).save_login(KEY, build_credentials())
    assert not old.exists()
    assert fresh.exists()


def test_dropping_a_client_keeps_the_tokens(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    store.drop_client(KEY, client_of(build_credentials()))
    loaded = store.read(KEY).credentials
    assert loaded.client is None
    assert loaded.tokens == build_credentials().tokens
    assert not store.is_cimd_disabled(KEY)


def test_a_newer_client_is_not_dropped(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(1))
    store.drop_client(KEY, client_of(build_credentials(0)))
    assert client_of(store.read(KEY).credentials).client_id == "client-1"


def test_a_refused_metadata_document_is_remembered_until_deletion(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    document = Client("https://me.example/client.json", None, "none", (REDIRECT_URI,))
    assert not store.is_cimd_disabled(KEY)
    # Do this also if nothing was stored before, as for the first login.
    store.drop_client(KEY, document)
    assert store.is_cimd_disabled(KEY)
    assert (tmp_path / "mcp-tokens" / "notes.cimd-off").read_bytes() == b""
    assert not store.is_cimd_disabled(CredentialKey("notes", "telegram:42"))
    store.save_login(KEY, build_credentials())
    assert store.is_cimd_disabled(KEY)
    store.delete(KEY)
    assert not store.is_cimd_disabled(KEY)
