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
from hermes_mcp_auth_remote.values import CredentialKey, Secret
from tests.store.given import KEY, NOW, REDIRECT_URI, credentials_of, server_of


def binding_of(credentials: Credentials) -> Binding:
    assert credentials.binding is not None
    return credentials.binding


def tokens_of(credentials: Credentials) -> Tokens:
    assert credentials.tokens is not None
    return credentials.tokens


def client_of(credentials: Credentials) -> Client:
    assert credentials.client is not None
    return credentials.client


def rewrite(path: Path, change: Callable[[dict[str, object]], dict[str, object]]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    path.chmod(0o600)


def put(home: Path, name: str, text: str) -> Path:
    (home / "mcp-tokens").mkdir(mode=0o700, exist_ok=True)
    path = home / "mcp-tokens" / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_nothing_stored_reads_as_empty_and_makes_nothing(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "home")
    assert store.read(KEY) == Credentials()
    assert store.version(KEY) is None
    assert store.list_keys() == []
    assert not store.delete(KEY)
    assert not (tmp_path / "home").exists()


def test_what_is_stored_is_read_back(tmp_path: Path) -> None:
    stored = credentials_of()
    FileStore(tmp_path).save_login(KEY, stored)
    found = FileStore(tmp_path).read(KEY)
    assert found.tokens == stored.tokens
    assert replace(client_of(found), document={}) == stored.client
    assert found.authorization_server == stored.authorization_server
    assert found.binding == stored.binding


def test_every_file_is_its_owners_alone(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of())
    store.save_login(CredentialKey("notes", "telegram:42"), credentials_of())
    with store.lock(KEY).hold(1):
        pass
    for path in (tmp_path / "mcp-tokens").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    assert (tmp_path / "mcp-tokens").stat().st_mode & 0o777 == 0o700


def test_the_files_say_what_hermes_reads_and_no_more(tmp_path: Path) -> None:
    FileStore(tmp_path).save_login(KEY, credentials_of())
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
    assert json.loads((root / "notes.meta.json").read_text()) == server_of().document


def test_a_clients_own_members_are_kept_where_hermess_reader_takes_them(tmp_path: Path) -> None:
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
    FileStore(tmp_path).save_login(KEY, replace(credentials_of(), client=client))
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


def test_a_client_that_was_not_registered_stays_so(tmp_path: Path) -> None:
    client = Client("client-0", None, "none", (REDIRECT_URI,), is_registered=False)
    FileStore(tmp_path).save_login(KEY, replace(credentials_of(), client=client))
    assert not client_of(FileStore(tmp_path).read(KEY)).is_registered


@pytest.mark.parametrize("part", ["client", "metadata", "tokens"])
def test_where_one_file_would_be_too_large_none_is_written(tmp_path: Path, part: str) -> None:
    store, new, much = FileStore(tmp_path), credentials_of(1), "x" * 1_100_000
    store.save_login(KEY, credentials_of(0))
    before = {path.name: path.read_bytes() for path in (tmp_path / "mcp-tokens").iterdir()}
    if part == "client":
        new = replace(new, client=replace(client_of(new), document={"note": much}))
    elif part == "metadata":
        server = replace(server_of(1), document={**server_of(1).document, "note": much})
        new = replace(new, authorization_server=server)
    else:
        new = replace(new, tokens=replace(tokens_of(new), access_token=Secret(much)))
    with pytest.raises(StoreUnwritable, match="too large"):
        store.save_login(KEY, new)
    assert {path.name: path.read_bytes() for path in (tmp_path / "mcp-tokens").iterdir()} == before


def test_a_new_login_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of(0))
    store.save_login(KEY, Credentials(tokens=credentials_of(1).tokens))
    found = store.read(KEY)
    assert (found.client, found.authorization_server, found.binding) == (None, None, None)
    assert tokens_of(found).access_token == Secret("access-1")


def test_credentials_without_tokens_do_not_take_the_tokens_away(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of(0))
    store.save_login(KEY, replace(credentials_of(1), tokens=None))
    assert tokens_of(store.read(KEY)).access_token == Secret("access-0")


def test_refreshed_tokens_change_the_version_and_keep_client_and_metadata(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of(0))
    before = store.version(KEY)
    store.save_tokens(KEY, tokens_of(credentials_of(1)), replace(binding_of(credentials_of(0)), account="x"))
    assert store.version(KEY) != before
    found = store.read(KEY)
    assert tokens_of(found).refresh_token == Secret("refresh-1")
    assert client_of(found).client_id == "client-0"
    assert binding_of(found).account == "x"


def test_refreshed_tokens_without_a_binding_leave_the_stored_one(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of(0))
    store.save_tokens(KEY, tokens_of(credentials_of(1)), None)
    # The expiry of the old refresh token does not hold for the new one.
    assert store.read(KEY).binding == replace(binding_of(credentials_of(0)), refresh_expires_at=None)


def test_a_session_marked_as_over_keeps_its_tokens_and_their_version(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of())
    before = store.version(KEY)
    over = replace(binding_of(credentials_of()), login_needed="the provider ended the session")
    store.save_binding(KEY, over)
    assert store.version(KEY) == before
    found = store.read(KEY)
    assert found.binding == over
    assert tokens_of(found) == credentials_of().tokens


def test_other_tokens_end_a_mark_that_was_about_the_old_ones(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of())
    store.save_binding(
        KEY, replace(binding_of(credentials_of()), login_needed="the provider ended the session")
    )
    rewrite(tmp_path / "mcp-tokens" / "notes.json", lambda old: {**old, "access_token": "by-hermes"})
    assert binding_of(store.read(KEY)).login_needed is None


_BY_SOMEBODY_ELSE = pytest.mark.parametrize(
    ("name", "member", "value"),
    [
        ("notes.client.json", "client_id", "another"),
        ("notes.meta.json", "issuer", "https://elsewhere.example"),
        ("notes.meta.json", "issuer", "https://as0.example/tenant"),
    ],
)


@_BY_SOMEBODY_ELSE
def test_a_binding_does_not_speak_of_somebody_elses_login(
    tmp_path: Path, name: str, member: str, value: str
) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of())
    rewrite(tmp_path / "mcp-tokens" / name, lambda old: {**old, member: value})
    rewrite(tmp_path / "mcp-tokens" / "notes.json", lambda old: {**old, "access_token": "by-hermes"})
    found = store.read(KEY)
    assert found.binding is None
    assert tokens_of(found).account is None
    assert found.client is not None
    assert found.authorization_server is not None


@_BY_SOMEBODY_ELSE
def test_our_tokens_keep_their_binding_and_are_not_paired_with_what_somebody_else_wrote(
    tmp_path: Path, name: str, member: str, value: str
) -> None:
    store, stored = FileStore(tmp_path), credentials_of()
    store.save_login(KEY, stored)
    rewrite(tmp_path / "mcp-tokens" / name, lambda old: {**old, member: value})
    found = store.read(KEY)
    assert (found.tokens, found.binding) == (stored.tokens, stored.binding)
    is_client = name == "notes.client.json"
    assert (found.client is None) == is_client
    assert found.authorization_server == (stored.authorization_server if is_client else None)


@pytest.mark.parametrize("name", ["notes.client.json", "notes.meta.json"])
def test_a_missing_file_does_not_end_the_binding(tmp_path: Path, name: str) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of())
    (tmp_path / "mcp-tokens" / name).unlink()
    assert store.read(KEY).binding == credentials_of().binding


def test_the_slash_that_hermes_appends_to_an_issuer_is_taken_off_again(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of())
    rewrite(
        tmp_path / "mcp-tokens" / "notes.meta.json", lambda old: {**old, "issuer": "https://as0.example/"}
    )
    found = store.read(KEY)
    assert found.binding == credentials_of().binding
    assert found.authorization_server is not None
    assert found.authorization_server.issuer == "https://as0.example"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '"text"', "\x00", "[" * 100_000, '{"access_token": 7}', '{"access_token": ""}'],
)
@pytest.mark.parametrize("suffix", ["json", "client.json", "meta.json", "binding.json"])
def test_a_corrupt_file_is_named_and_left_as_it_is(tmp_path: Path, suffix: str, text: str) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of())
    path = put(tmp_path, f"notes.{suffix}", text)
    with pytest.raises(StoreCorrupt) as caught:
        store.read(KEY)
    assert str(path) in str(caught.value)
    assert path.read_text() == text
    # A new login replaces the corrupt file.
    store.save_login(KEY, credentials_of())
    assert store.read(KEY).binding == credentials_of().binding


def test_a_binding_of_a_later_version_is_refused_with_advice(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of())
    rewrite(tmp_path / "mcp-tokens" / "notes.binding.json", lambda old: {**old, "version": 2})
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
def test_without_an_expiry_the_files_time_and_its_lifetime_count(
    tmp_path: Path, document: dict[str, object], expires_at: float | None
) -> None:
    path = put(tmp_path, "notes.json", json.dumps({"access_token": "a", **document}))
    os.utime(path, (1000, 1000))
    assert tokens_of(FileStore(tmp_path).read(KEY)).expires_at == expires_at


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_an_expiry_that_is_no_time_counts_as_missing(tmp_path: Path, text: str) -> None:
    put(tmp_path, "notes.json", f'{{"access_token": "a", "expires_at": {text}}}')
    assert tokens_of(FileStore(tmp_path).read(KEY)).expires_at is None


def test_junk_beside_a_good_access_token_counts_as_missing(tmp_path: Path) -> None:
    put(tmp_path, "notes.json", '{"access_token": "a", "refresh_token": 7, "scope": ["x"], "token_type": {}}')
    tokens = tokens_of(FileStore(tmp_path).read(KEY))
    assert (tokens.refresh_token, tokens.scope) == (None, None)


@pytest.mark.parametrize("suffix", ["json", "client.json", "meta.json", "binding.json"])
def test_a_linked_or_open_file_is_refused_and_a_new_login_heals_it(tmp_path: Path, suffix: str) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of())
    path = tmp_path / "mcp-tokens" / f"notes.{suffix}"
    path.chmod(0o644)
    with pytest.raises(StoreUnsafe, match="open to others"):
        store.read(KEY)
    elsewhere = path.rename(tmp_path / "elsewhere")
    path.symlink_to(elsewhere)
    with pytest.raises(StoreUnsafe, match="symbolic link"):
        store.read(KEY)
    before = elsewhere.read_bytes()
    store.save_login(KEY, credentials_of(1))
    assert tokens_of(store.read(KEY)).access_token == Secret("access-1")
    assert elsewhere.read_bytes() == before


def test_a_linked_directory_is_refused_for_reading_and_writing(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "mcp-tokens").symlink_to(tmp_path / "elsewhere")
    store = FileStore(tmp_path)
    with pytest.raises(StoreUnsafe):
        store.read(KEY)
    with pytest.raises(StoreUnsafe):
        store.save_login(KEY, credentials_of())
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_two_servers_of_one_file_name_are_not_mixed_up(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    mine, other = CredentialKey("my.server"), CredentialKey("my_server")
    store.save_login(mine, credentials_of(0, mine))
    for touch in (
        lambda: store.read(other),
        lambda: store.save_login(other, credentials_of(1, other)),
        lambda: store.delete(other),
        lambda: store.lock(other),
    ):
        with pytest.raises(StoreUnsafe, match="another server") as caught:
            touch()
        assert "Rename" in caught.value.advice
    assert tokens_of(store.read(mine)).access_token == Secret("access-0")


def test_owners_do_not_share_and_none_reaches_out_of_its_folder(tmp_path: Path) -> None:
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
        store.save_login(CredentialKey("notes", owner), credentials_of(number))
    for number, owner in enumerate(owners):
        assert tokens_of(store.read(CredentialKey("notes", owner))).access_token == Secret(f"access-{number}")
    found = store.list_keys()
    assert {key.owner for key in found} == set(owners)
    assert {path.name for path in tmp_path.iterdir()} == {"mcp-tokens"}
    folders = [path.name for path in (tmp_path / "mcp-tokens" / "owners").iterdir()]
    assert len({name.lower() for name in folders}) == len(owners) - 1


def test_keys_carry_the_names_as_configured_and_the_stem_where_none_is_known(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for key in (CredentialKey("my.server"), CredentialKey("my.server", "telegram:42")):
        store.save_login(key, credentials_of(0, key))
    put(tmp_path, "by_hermes.json", '{"access_token": "a"}')
    put(tmp_path, "broken.json", "{")
    put(tmp_path, "broken.binding.json", "{")
    put(tmp_path, "alone.client.json", '{"client_id": "a"}')
    put(tmp_path, "renamed.json", '{"access_token": "a"}')
    put(tmp_path, "renamed.binding.json", '{"server": "something else"}')
    assert set(store.list_keys()) == {
        CredentialKey("my.server"),
        CredentialKey("my.server", "telegram:42"),
        CredentialKey("by_hermes"),
        CredentialKey("broken"),
        CredentialKey("renamed"),
    }


def test_deleting_takes_everything_but_the_lock_and_other_servers(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of())
    store.save_login(CredentialKey("notes2"), credentials_of(0, CredentialKey("notes2")))
    put(tmp_path, "notes.client.json.bak", "{}")
    put(tmp_path, ".notes.json.1.abc.tmp", "a token")
    put(tmp_path, ".notes2.json.1.abc.tmp", "a token")
    with store.lock(KEY).hold(1):
        assert store.delete(KEY)
    assert store.read(KEY) == Credentials()
    left = {
        path.name for path in (tmp_path / "mcp-tokens").iterdir() if path.name.strip(".").startswith("notes.")
    }
    assert left == {"notes.json.refresh.lock"}
    assert (tmp_path / "mcp-tokens" / ".notes2.json.1.abc.tmp").exists()
    assert tokens_of(store.read(CredentialKey("notes2"))).access_token == Secret("access-0")


def test_a_corrupt_login_can_be_deleted(tmp_path: Path) -> None:
    for suffix in ("json", "client.json", "meta.json", "binding.json"):
        put(tmp_path, f"notes.{suffix}", "{")
    assert FileStore(tmp_path).delete(KEY)
    assert FileStore(tmp_path).read(KEY) == Credentials()


def test_a_new_login_sweeps_away_old_leftovers_and_not_what_is_being_written(tmp_path: Path) -> None:
    old, fresh = put(tmp_path, ".notes.json.1.a.tmp", "x"), put(tmp_path, ".notes.json.2.b.tmp", "x")
    os.utime(old, (NOW - 900_000_000, NOW - 900_000_000))
    FileStore(tmp_path).save_login(KEY, credentials_of())
    assert not old.exists()
    assert fresh.exists()


def test_a_client_that_the_provider_forgot_is_dropped_and_the_tokens_stay(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of())
    store.drop_client(KEY, client_of(credentials_of()))
    found = store.read(KEY)
    assert found.client is None
    assert found.tokens == credentials_of().tokens
    assert not store.is_cimd_disabled(KEY)


def test_a_client_that_was_registered_since_is_not_dropped(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of(1))
    store.drop_client(KEY, client_of(credentials_of(0)))
    assert client_of(store.read(KEY)).client_id == "client-1"


def test_a_refused_metadata_document_is_remembered_until_all_is_deleted(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    document = Client("https://me.example/client.json", None, "none", (REDIRECT_URI,))
    assert not store.is_cimd_disabled(KEY)
    # Also if nothing was stored before, as for the first login.
    store.drop_client(KEY, document)
    assert store.is_cimd_disabled(KEY)
    assert (tmp_path / "mcp-tokens" / "notes.cimd-off").read_bytes() == b""
    assert not store.is_cimd_disabled(CredentialKey("notes", "telegram:42"))
    store.save_login(KEY, credentials_of())
    assert store.is_cimd_disabled(KEY)
    store.delete(KEY)
    assert not store.is_cimd_disabled(KEY)
