"""Recovery of a login if its process died while it stored the login, also after writes of other programs."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StoreUnwritable
from hermes_mcp_auth_remote.hermes_home import config_identity
from hermes_mcp_auth_remote.login import apply_event
from hermes_mcp_auth_remote.store.codec import (
    binding_document,
    client_document,
    encode_document,
    metadata_document,
    tokens_document,
)
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files import private_files
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.fast_token import read_valid_token
from hermes_mcp_auth_remote.store.files.login_commit import read_record
from hermes_mcp_auth_remote.values import CredentialKey
from tests.requirements import covers
from tests.store.builders import KEY, LOGIN_ID, NOW, build_credentials, build_login, keys_of

pytestmark = pytest.mark.slow

# These renames store a login. If the process dies before the n-th rename, the earlier renames are done.
RECORD, BINDING, CLIENT, METADATA, TOKENS, END = range(1, 7)
BEFORE_TOKENS = [BINDING, CLIENT, METADATA, TOKENS]

Patch = pytest.MonkeyPatch


class Death(BaseException):
    """Stands for a kill of the process: no handler of the store catches this exception."""


def die_before_rename(monkeypatch: Patch, rename: int, work: Callable[[], object]) -> None:
    """Call `work` and raise Death before its n-th rename."""
    real, count = os.replace, 0

    def replace_or_die(source: str, target: str) -> None:
        nonlocal count
        count += 1
        if count == rename:
            raise Death
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_or_die)
        with pytest.raises(Death):
            work()


def die_while_storing(home: Path, monkeypatch: Patch, rename: int, login_id: str | None = None) -> None:
    """Store generation 0, then die while storing generation 1."""
    store = FileStore(home)
    store.save_login(KEY, build_credentials(0))
    with store.lock(KEY).hold(1):
        die_before_rename(monkeypatch, rename, lambda: store.save_login(KEY, build_credentials(1), login_id))


def tokens_folder(home: Path) -> Path:
    return home / "mcp-tokens"


def replace_file(home: Path, suffix: str, data: bytes) -> None:
    """Replace a file as Hermes does: write a new file and rename it."""
    private_files.write_private(tokens_folder(home) / f"notes{suffix}", data)


def generations_of(credentials: Credentials) -> tuple[str, str, str]:
    assert credentials.tokens is not None
    assert credentials.client is not None
    assert credentials.authorization_server is not None
    return (
        credentials.tokens.access_token.reveal(),
        credentials.client.client_id,
        credentials.authorization_server.issuer,
    )


OLD = ("access-0", "client-0", "https://as0.example")
NEW = ("access-1", "client-1", "https://as1.example")


def assert_clean(home: Path) -> None:
    """Assert that no record is left and that the binding does not name earlier tokens."""
    assert not [path.name for path in tokens_folder(home).iterdir() if path.name.endswith(".tmp")]
    binding = tokens_folder(home) / "notes.binding.json"
    assert not binding.exists() or "before" not in json.loads(binding.read_text())


def refresh_as_hermes(home: Path, generation: int) -> None:
    stored = build_credentials(generation).tokens
    assert stored is not None
    replace_file(home, ".json", encode_document({**tokens_document(stored), "access_token": "by-hermes"}))


@covers("killed")
@pytest.mark.parametrize("rename", [*BEFORE_TOKENS, END])
def test_the_next_read_completes_an_interrupted_login(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    die_while_storing(tmp_path, monkeypatch, rename)
    assert generations_of(FileStore(tmp_path).read(KEY).credentials) == NEW
    assert FileStore(tmp_path).read(KEY).credentials.binding == build_credentials(1).binding
    assert_clean(tmp_path)


def test_a_death_before_the_record_keeps_the_old_login(tmp_path: Path, monkeypatch: Patch) -> None:
    die_while_storing(tmp_path, monkeypatch, RECORD)
    assert generations_of(FileStore(tmp_path).read(KEY).credentials) == OLD


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_every_kind_of_read_completes_an_interrupted_login(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    def lock(home: Path) -> None:
        with FileStore(home).lock(KEY).hold(1):
            pass

    reads: list[Callable[[Path], object]] = [
        lambda home: FileStore(home).read(KEY).credentials,
        lambda home: keys_of(FileStore(home)),
        lambda home: FileStore(home).recover_login(KEY, LOGIN_ID),
        lock,
    ]
    for number, read in enumerate(reads):
        home = tmp_path / str(number)
        die_while_storing(home, monkeypatch, rename)
        before = (tokens_folder(home) / "notes.json").read_bytes()
        read(home)
        assert (tokens_folder(home) / "notes.json").read_bytes() != before
        assert_clean(home)


def credentials_with_config(home: Path, generation: int) -> Credentials:
    """Return credentials whose binding names the configuration files of this home."""
    credentials = build_credentials(generation)
    assert credentials.binding is not None
    return replace(credentials, binding=replace(credentials.binding, config_files=config_identity(home)))


def test_the_fast_path_gives_no_token_of_an_interrupted_login(tmp_path: Path, monkeypatch: Patch) -> None:
    # During the commit, the old token must not be printed, even before the first file is replaced.
    old, new = credentials_with_config(tmp_path, 0), credentials_with_config(tmp_path, 1)
    store = FileStore(tmp_path)
    store.save_login(KEY, old)
    assert read_valid_token(tmp_path, "notes", NOW) == "access-0"
    with store.lock(KEY).hold(1):
        die_before_rename(monkeypatch, BINDING, lambda: store.save_login(KEY, new))
    assert read_valid_token(tmp_path, "notes", NOW) is None
    FileStore(tmp_path).read(KEY)
    assert read_valid_token(tmp_path, "notes", NOW) == "access-1"


def test_a_first_login_is_completed_and_listed(tmp_path: Path, monkeypatch: Patch) -> None:
    store, key = FileStore(tmp_path), CredentialKey("my.server", "telegram:42")
    with store.lock(key).hold(1):
        die_before_rename(monkeypatch, TOKENS, lambda: store.save_login(key, build_credentials(1, key)))
    assert keys_of(FileStore(tmp_path)) == [key]
    assert generations_of(store.read(key).credentials) == NEW


@pytest.mark.parametrize("text", ["[]", "  ", "7\n"])
def test_an_invalid_tokens_file_is_listed(tmp_path: Path, text: str) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    replace_file(tmp_path, ".json", text.encode())
    assert keys_of(store) == [KEY]


def test_a_read_does_not_wait_for_a_busy_lock(tmp_path: Path, monkeypatch: Patch) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    with store.lock(KEY).hold(1):
        die_before_rename(monkeypatch, TOKENS, lambda: store.save_login(KEY, build_credentials(1)))
        credentials = FileStore(tmp_path).read(KEY).credentials
        # Never pair the old refresh token with the new issuer.
        assert credentials.tokens == build_credentials(0).tokens
        assert (credentials.client, credentials.authorization_server) == (None, None)
        assert credentials.binding == build_credentials(0).binding
    assert generations_of(FileStore(tmp_path).read(KEY).credentials) == NEW


@covers("killed")
@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_old_tokens_that_hermes_refreshed_keep_their_client(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    die_while_storing(tmp_path, monkeypatch, rename)
    refresh_as_hermes(tmp_path, 0)
    credentials = FileStore(tmp_path).read(KEY).credentials
    assert generations_of(credentials) == ("by-hermes", *OLD[1:])
    assert credentials.tokens is not None
    assert (
        credentials.tokens.refresh_token == (build_credentials(0).tokens or credentials.tokens).refresh_token
    )
    assert_clean(tmp_path)


@covers("killed")
def test_new_tokens_that_hermes_refreshed_keep_the_new_client(tmp_path: Path, monkeypatch: Patch) -> None:
    die_while_storing(tmp_path, monkeypatch, END)
    refresh_as_hermes(tmp_path, 1)
    assert generations_of(FileStore(tmp_path).read(KEY).credentials) == ("by-hermes", *NEW[1:])
    assert_clean(tmp_path)


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_recovery_writes_a_client_again_that_hermes_deleted(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    die_while_storing(tmp_path, monkeypatch, rename)
    # The server refused the new client with the old refresh token as invalid_client.
    for suffix in (".client.json", ".meta.json"):
        (tokens_folder(tmp_path) / f"notes{suffix}").unlink()
    assert generations_of(FileStore(tmp_path).read(KEY).credentials) == NEW
    assert_clean(tmp_path)


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
@pytest.mark.parametrize("is_finished", [False, True])
def test_recovery_does_not_overwrite_a_login_by_hermes(
    tmp_path: Path, monkeypatch: Patch, rename: int, *, is_finished: bool
) -> None:
    die_while_storing(tmp_path, monkeypatch, rename)
    hermes_login = build_credentials(2)
    assert hermes_login.client is not None
    assert hermes_login.authorization_server is not None
    assert hermes_login.tokens is not None
    for suffix in (".json", ".client.json", ".meta.json"):
        (tokens_folder(tmp_path) / f"notes{suffix}").unlink()
    replace_file(tmp_path, ".client.json", encode_document(client_document(hermes_login.client)))
    if not is_finished:
        assert FileStore(tmp_path).read(KEY).credentials.tokens is None
    replace_file(
        tmp_path, ".meta.json", encode_document(metadata_document(hermes_login.authorization_server))
    )
    replace_file(tmp_path, ".json", encode_document(tokens_document(hermes_login.tokens)))
    credentials = FileStore(tmp_path).read(KEY).credentials
    assert generations_of(credentials) == ("access-2", "client-2", "https://as2.example")
    assert_clean(tmp_path)


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_recovery_does_not_overwrite_a_login_by_a_version_without_records(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    die_while_storing(tmp_path, monkeypatch, rename)
    interrupted, newer = build_credentials(1), build_credentials(2)
    assert interrupted.authorization_server is not None
    assert interrupted.binding is not None
    assert newer.client is not None
    assert newer.tokens is not None
    binding = replace(interrupted.binding, client_id="client-2")
    # Twice, because a file system may reuse the inode of the replaced file.
    for _ in range(2):
        replace_file(tmp_path, ".binding.json", encode_document(binding_document(binding, newer.tokens)))
        replace_file(tmp_path, ".client.json", encode_document(client_document(newer.client)))
        replace_file(
            tmp_path, ".meta.json", encode_document(metadata_document(interrupted.authorization_server))
        )
        replace_file(tmp_path, ".json", encode_document(tokens_document(newer.tokens)))
    credentials = FileStore(tmp_path).read(KEY).credentials
    assert generations_of(credentials) == ("access-2", "client-2", "https://as1.example")
    assert credentials.binding == replace(binding, account=binding.account)
    assert_clean(tmp_path)


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
@pytest.mark.parametrize("is_first", [False, True])
def test_a_logout_by_a_version_without_records_is_final(
    tmp_path: Path, monkeypatch: Patch, rename: int, *, is_first: bool
) -> None:
    die_while_storing(tmp_path, monkeypatch, rename)
    stem = str(tokens_folder(tmp_path) / "notes")
    if is_first:
        FileStore(tmp_path).delete(KEY)
        store = FileStore(tmp_path)
        with store.lock(KEY).hold(1):
            die_before_rename(monkeypatch, rename, lambda: store.save_login(KEY, build_credentials(1)))
    # `FileStore.delete` of the versions without a commit record.
    for suffix in (".json", ".dpop.json", ".binding.json", ".client.json", ".meta.json"):
        private_files.remove_file(stem + suffix)
    private_files.remove_temporary_files(stem, None)
    assert FileStore(tmp_path).read(KEY).credentials == Credentials()
    assert keys_of(FileStore(tmp_path)) == []


@pytest.mark.parametrize("rename", [*BEFORE_TOKENS, END])
def test_no_login_is_completed_after_a_logout(tmp_path: Path, monkeypatch: Patch, rename: int) -> None:
    die_while_storing(tmp_path, monkeypatch, rename)
    store = FileStore(tmp_path)
    assert store.delete(KEY)
    assert store.read(KEY).credentials == Credentials()
    assert [path.name for path in tokens_folder(tmp_path).iterdir()] == ["notes.json.refresh.lock"]


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_a_failed_login_is_rolled_back(tmp_path: Path, monkeypatch: Patch, rename: int) -> None:
    store = FileStore(tmp_path)
    store.logins.add(apply_event(build_login(), "claim"))
    die_while_storing(tmp_path, monkeypatch, rename, LOGIN_ID)
    store.logins.change(LOGIN_ID, lambda login: apply_event(login, "fail"))
    assert generations_of(store.read(KEY).credentials) == OLD
    assert store.read(KEY).credentials.binding == build_credentials(0).binding
    assert_clean(tmp_path)


@pytest.mark.parametrize("rename", [*BEFORE_TOKENS, END])
def test_a_recovered_login_has_status_done(tmp_path: Path, monkeypatch: Patch, rename: int) -> None:
    store = FileStore(tmp_path)
    store.logins.add(apply_event(build_login(), "claim"))
    die_while_storing(tmp_path, monkeypatch, rename, LOGIN_ID)
    store.read(KEY)
    assert store.logins.get(LOGIN_ID).status == "done"


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_changed_modes_and_times_do_not_prevent_recovery(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    die_while_storing(tmp_path, monkeypatch, rename)
    for path in tokens_folder(tmp_path).glob("notes.*json"):
        path.chmod(0o400)
        os.utime(path, (1000, 1000))
    assert generations_of(FileStore(tmp_path).read(KEY).credentials) == NEW


@covers("killed")
@pytest.mark.parametrize("rename", BEFORE_TOKENS)
@pytest.mark.parametrize("again", range(1, 6))
@pytest.mark.parametrize("is_failed", [False, True])
def test_recovery_survives_deaths_during_completion_and_rollback(
    tmp_path: Path, monkeypatch: Patch, rename: int, again: int, *, is_failed: bool
) -> None:
    store = FileStore(tmp_path)
    store.logins.add(apply_event(build_login(), "claim"))
    die_while_storing(tmp_path, monkeypatch, rename, LOGIN_ID)
    if is_failed:
        store.logins.change(LOGIN_ID, lambda login: apply_event(login, "fail"))
    real, count = os.replace, 0

    def replace_or_die(source: str, target: str) -> None:
        nonlocal count
        count += 1
        if count == again:
            raise Death
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", replace_or_die)
        try:
            FileStore(tmp_path).recover_login(KEY, LOGIN_ID)
        except Death:
            # The next recovery dies at its n-th rename too, if it makes that many renames.
            count = 0
            with suppress(Death):
                FileStore(tmp_path).recover_login(KEY, LOGIN_ID)
    assert generations_of(FileStore(tmp_path).read(KEY).credentials) == (OLD if is_failed else NEW)
    assert (
        FileStore(tmp_path).read(KEY).credentials.binding == build_credentials(0 if is_failed else 1).binding
    )


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_a_full_disk_delays_the_completion(tmp_path: Path, monkeypatch: Patch, rename: int) -> None:
    die_while_storing(tmp_path, monkeypatch, rename)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        assert FileStore(tmp_path).read(KEY).credentials.tokens == build_credentials(0).tokens
    assert generations_of(FileStore(tmp_path).read(KEY).credentials) == NEW
    assert_clean(tmp_path)


@covers("disk-refuses")
@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_a_failed_write_of_one_file_keeps_the_old_login(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    before = {path.name: path.read_bytes() for path in tokens_folder(tmp_path).iterdir()}
    real, count = os.replace, 0

    def full_once(source: str, target: str) -> None:
        nonlocal count
        count += 1
        if count == rename:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full_once)
        with pytest.raises(StoreUnwritable):
            store.save_login(KEY, build_credentials(1))
    assert {path.name: path.read_bytes() for path in tokens_folder(tmp_path).iterdir()} == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "parts": [{"name": "../../x", "new": "a"}]}']
)
def test_an_invalid_record_is_removed_and_nothing_else(tmp_path: Path, text: str) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    private_files.write_private(tokens_folder(tmp_path) / ".notes.pending.tmp", text.encode())
    assert generations_of(store.read(KEY).credentials) == OLD
    assert_clean(tmp_path)
    assert not (tmp_path.parent / "x").exists()


def test_a_record_of_a_later_version_is_kept(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    record = tokens_folder(tmp_path) / ".notes.pending.tmp"
    private_files.write_private(record, b'{"version": 2}')
    assert generations_of(store.read(KEY).credentials) == OLD
    assert record.exists()
    store.save_login(KEY, build_credentials(1))
    assert generations_of(store.read(KEY).credentials) == NEW
    assert not record.exists()


def test_a_record_is_private_and_its_repr_shows_no_secret(tmp_path: Path, monkeypatch: Patch) -> None:
    die_while_storing(tmp_path, monkeypatch, TOKENS)
    record = tokens_folder(tmp_path) / ".notes.pending.tmp"
    assert record.stat().st_mode & 0o777 == 0o600
    assert "refresh-" in record.read_text()
    assert "refresh-" not in repr(read_record(record))
    record.chmod(0o644)
    FileStore(tmp_path).recover_login(KEY, LOGIN_ID)
    assert record.exists()
