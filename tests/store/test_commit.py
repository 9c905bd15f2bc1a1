"""Recovery of a login whose process died while it stored the login, also after writes of other programs."""

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
from tests.store.given import KEY, LOGIN_ID, NOW, credentials_of, login_of

pytestmark = pytest.mark.slow

# These renames store a login. A death before the n-th leaves the results of the earlier ones.
RECORD, BINDING, CLIENT, METADATA, TOKENS, END = range(1, 7)
BEFORE_TOKENS = [BINDING, CLIENT, METADATA, TOKENS]

Patch = pytest.MonkeyPatch


class Death(BaseException):
    """Stands for a kill of the process: no handler of the store catches it."""


def die(patch: Patch, rename: int, work: Callable[[], object]) -> None:
    """Call `work` and raise Death before its n-th rename."""
    real, count = os.replace, 0

    def counted(source: str, target: str) -> None:
        nonlocal count
        count += 1
        if count == rename:
            raise Death
        real(source, target)

    with patch.context() as patched:
        patched.setattr(os, "replace", counted)
        with pytest.raises(Death):
            work()


def die_storing(home: Path, patch: Patch, rename: int, login_id: str | None = None) -> None:
    """Store generation 0, then die while storing generation 1."""
    store = FileStore(home)
    store.save_login(KEY, credentials_of(0))
    with store.lock(KEY).hold(1):
        die(patch, rename, lambda: store.save_login(KEY, credentials_of(1), login_id))


def folder_of(home: Path) -> Path:
    return home / "mcp-tokens"


def put(home: Path, suffix: str, data: bytes) -> None:
    """Replace a file as Hermes does: write a new file and rename it."""
    private_files.write_private(folder_of(home) / f"notes{suffix}", data)


def generations(found: Credentials) -> tuple[str, str, str]:
    assert found.tokens is not None
    assert found.client is not None
    assert found.authorization_server is not None
    return (
        found.tokens.access_token.reveal(),
        found.client.client_id,
        found.authorization_server.issuer,
    )


OLD = ("access-0", "client-0", "https://as0.example")
NEW = ("access-1", "client-1", "https://as1.example")


def assert_clean(home: Path) -> None:
    """Assert that no record is left and that the binding does not name earlier tokens."""
    assert not [path.name for path in folder_of(home).iterdir() if path.name.endswith(".tmp")]
    binding = folder_of(home) / "notes.binding.json"
    assert not binding.exists() or "before" not in json.loads(binding.read_text())


def refresh_as_hermes(home: Path, generation: int) -> None:
    stored = credentials_of(generation).tokens
    assert stored is not None
    put(home, ".json", encode_document({**tokens_document(stored), "access_token": "by-hermes"}))


@covers("killed")
@pytest.mark.parametrize("rename", [*BEFORE_TOKENS, END])
def test_the_next_read_completes_a_login(tmp_path: Path, monkeypatch: Patch, rename: int) -> None:
    die_storing(tmp_path, monkeypatch, rename)
    assert generations(FileStore(tmp_path).read(KEY)) == NEW
    assert FileStore(tmp_path).read(KEY).binding == credentials_of(1).binding
    assert_clean(tmp_path)


def test_a_death_before_the_record_leaves_the_old_login(tmp_path: Path, monkeypatch: Patch) -> None:
    die_storing(tmp_path, monkeypatch, RECORD)
    assert generations(FileStore(tmp_path).read(KEY)) == OLD


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_every_way_to_read_completes_a_login(tmp_path: Path, monkeypatch: Patch, rename: int) -> None:
    def lock(home: Path) -> None:
        with FileStore(home).lock(KEY).hold(1):
            pass

    looks: list[Callable[[Path], object]] = [
        lambda home: FileStore(home).version(KEY),
        lambda home: FileStore(home).read(KEY),
        lambda home: FileStore(home).list_keys(),
        lambda home: FileStore(home).recover_login(KEY),
        lock,
    ]
    for number, look in enumerate(looks):
        home = tmp_path / str(number)
        die_storing(home, monkeypatch, rename)
        before = (folder_of(home) / "notes.json").read_bytes()
        look(home)
        assert (folder_of(home) / "notes.json").read_bytes() != before
        assert_clean(home)


def with_config_files(home: Path, generation: int) -> Credentials:
    """Return credentials whose binding names the configuration files of this home."""
    credentials = credentials_of(generation)
    assert credentials.binding is not None
    return replace(credentials, binding=replace(credentials.binding, config_files=config_identity(home)))


def test_the_fast_path_leaves_a_login_that_is_half_stored_to_the_slow_one(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    # Also before the first file is replaced: the old token must not be printed during the commit.
    old, new = with_config_files(tmp_path, 0), with_config_files(tmp_path, 1)
    store = FileStore(tmp_path)
    store.save_login(KEY, old)
    assert read_valid_token(tmp_path, "notes", NOW) == "access-0"
    with store.lock(KEY).hold(1):
        die(monkeypatch, BINDING, lambda: store.save_login(KEY, new))
    assert read_valid_token(tmp_path, "notes", NOW) is None
    FileStore(tmp_path).read(KEY)
    assert read_valid_token(tmp_path, "notes", NOW) == "access-1"


def test_a_first_login_is_completed_and_listed(tmp_path: Path, monkeypatch: Patch) -> None:
    store, key = FileStore(tmp_path), CredentialKey("my.server", "telegram:42")
    with store.lock(key).hold(1):
        die(monkeypatch, TOKENS, lambda: store.save_login(key, credentials_of(1, key)))
    assert FileStore(tmp_path).list_keys() == [key]
    assert generations(store.read(key)) == NEW


@pytest.mark.parametrize("text", ["[]", "  ", "7\n"])
def test_a_tokens_file_that_says_nothing_useful_is_listed(tmp_path: Path, text: str) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of(0))
    put(tmp_path, ".json", text.encode())
    assert store.list_keys() == [KEY]


def test_a_lock_that_is_busy_is_not_waited_for(tmp_path: Path, monkeypatch: Patch) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of(0))
    with store.lock(KEY).hold(1):
        die(monkeypatch, TOKENS, lambda: store.save_login(KEY, credentials_of(1)))
        found = FileStore(tmp_path).read(KEY)
        # Never pair the old refresh token with the new issuer.
        assert found.tokens == credentials_of(0).tokens
        assert (found.client, found.authorization_server) == (None, None)
        assert found.binding == credentials_of(0).binding
    assert generations(FileStore(tmp_path).read(KEY)) == NEW


@covers("killed")
@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_tokens_that_hermes_refreshed_meanwhile_keep_their_client(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    die_storing(tmp_path, monkeypatch, rename)
    refresh_as_hermes(tmp_path, 0)
    found = FileStore(tmp_path).read(KEY)
    assert generations(found) == ("by-hermes", *OLD[1:])
    assert found.tokens is not None
    assert found.tokens.refresh_token == (credentials_of(0).tokens or found.tokens).refresh_token
    assert_clean(tmp_path)


@covers("killed")
def test_new_tokens_that_hermes_refreshed_keep_the_new_client(tmp_path: Path, monkeypatch: Patch) -> None:
    die_storing(tmp_path, monkeypatch, END)
    refresh_as_hermes(tmp_path, 1)
    assert generations(FileStore(tmp_path).read(KEY)) == ("by-hermes", *NEW[1:])
    assert_clean(tmp_path)


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_a_client_that_hermes_dropped_is_written_again(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    die_storing(tmp_path, monkeypatch, rename)
    # The server refused the new client with the old refresh token as invalid_client.
    for suffix in (".client.json", ".meta.json"):
        (folder_of(tmp_path) / f"notes{suffix}").unlink()
    assert generations(FileStore(tmp_path).read(KEY)) == NEW
    assert_clean(tmp_path)


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
@pytest.mark.parametrize("is_finished", [False, True])
def test_a_login_by_hermes_stays_at_each_of_its_steps(
    tmp_path: Path, monkeypatch: Patch, rename: int, *, is_finished: bool
) -> None:
    die_storing(tmp_path, monkeypatch, rename)
    theirs = credentials_of(2)
    assert theirs.client is not None
    assert theirs.authorization_server is not None
    assert theirs.tokens is not None
    for suffix in (".json", ".client.json", ".meta.json"):
        (folder_of(tmp_path) / f"notes{suffix}").unlink()
    put(tmp_path, ".client.json", encode_document(client_document(theirs.client)))
    if not is_finished:
        assert FileStore(tmp_path).read(KEY).tokens is None
    put(tmp_path, ".meta.json", encode_document(metadata_document(theirs.authorization_server)))
    put(tmp_path, ".json", encode_document(tokens_document(theirs.tokens)))
    found = FileStore(tmp_path).read(KEY)
    assert generations(found) == ("access-2", "client-2", "https://as2.example")
    assert_clean(tmp_path)


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_a_login_by_a_version_that_knows_no_record_stays_even_with_our_metadata(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    die_storing(tmp_path, monkeypatch, rename)
    one, two = credentials_of(1), credentials_of(2)
    assert one.authorization_server is not None
    assert one.binding is not None
    assert two.client is not None
    assert two.tokens is not None
    binding = replace(one.binding, client_id="client-2")
    # Twice, because a file system may reuse the inode of the replaced file.
    for _ in range(2):
        put(tmp_path, ".binding.json", encode_document(binding_document(binding, two.tokens)))
        put(tmp_path, ".client.json", encode_document(client_document(two.client)))
        put(tmp_path, ".meta.json", encode_document(metadata_document(one.authorization_server)))
        put(tmp_path, ".json", encode_document(tokens_document(two.tokens)))
    found = FileStore(tmp_path).read(KEY)
    assert generations(found) == ("access-2", "client-2", "https://as1.example")
    assert found.binding == replace(binding, account=binding.account)
    assert_clean(tmp_path)


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
@pytest.mark.parametrize("is_first", [False, True])
def test_a_logout_by_a_version_that_knows_no_record_is_final(
    tmp_path: Path, monkeypatch: Patch, rename: int, *, is_first: bool
) -> None:
    die_storing(tmp_path, monkeypatch, rename)
    stem = str(folder_of(tmp_path) / "notes")
    if is_first:
        FileStore(tmp_path).delete(KEY)
        store = FileStore(tmp_path)
        with store.lock(KEY).hold(1):
            die(monkeypatch, rename, lambda: store.save_login(KEY, credentials_of(1)))
    # `FileStore.delete` of the versions without a commit record.
    for suffix in (".json", ".dpop.json", ".binding.json", ".client.json", ".meta.json"):
        private_files.remove_file(stem + suffix)
    private_files.remove_temporary_files(stem, None)
    assert FileStore(tmp_path).read(KEY) == Credentials()
    assert FileStore(tmp_path).list_keys() == []


@pytest.mark.parametrize("rename", [*BEFORE_TOKENS, END])
def test_a_logout_completes_nothing_later(tmp_path: Path, monkeypatch: Patch, rename: int) -> None:
    die_storing(tmp_path, monkeypatch, rename)
    store = FileStore(tmp_path)
    assert store.delete(KEY)
    assert store.read(KEY) == Credentials()
    assert [path.name for path in folder_of(tmp_path).iterdir()] == ["notes.json.refresh.lock"]


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_a_login_that_was_declared_failed_is_taken_back(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    store = FileStore(tmp_path)
    store.logins.add(apply_event(login_of(), "claim"))
    die_storing(tmp_path, monkeypatch, rename, LOGIN_ID)
    store.logins.change(LOGIN_ID, lambda login: apply_event(login, "fail"))
    assert generations(store.read(KEY)) == OLD
    assert store.read(KEY).binding == credentials_of(0).binding
    assert_clean(tmp_path)


@pytest.mark.parametrize("rename", [*BEFORE_TOKENS, END])
def test_a_login_that_is_completed_has_succeeded(tmp_path: Path, monkeypatch: Patch, rename: int) -> None:
    store = FileStore(tmp_path)
    store.logins.add(apply_event(login_of(), "claim"))
    die_storing(tmp_path, monkeypatch, rename, LOGIN_ID)
    store.read(KEY)
    assert store.logins.get(LOGIN_ID).status == "done"


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_other_modes_and_times_of_the_same_content_do_not_matter(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    die_storing(tmp_path, monkeypatch, rename)
    for path in folder_of(tmp_path).glob("notes.*json"):
        path.chmod(0o400)
        os.utime(path, (1000, 1000))
    assert generations(FileStore(tmp_path).read(KEY)) == NEW


@covers("killed")
@pytest.mark.parametrize("rename", BEFORE_TOKENS)
@pytest.mark.parametrize("again", range(1, 6))
@pytest.mark.parametrize("is_failed", [False, True])
def test_deaths_while_a_login_is_completed_or_taken_back(
    tmp_path: Path, monkeypatch: Patch, rename: int, again: int, *, is_failed: bool
) -> None:
    store = FileStore(tmp_path)
    store.logins.add(apply_event(login_of(), "claim"))
    die_storing(tmp_path, monkeypatch, rename, LOGIN_ID)
    if is_failed:
        store.logins.change(LOGIN_ID, lambda login: apply_event(login, "fail"))
    real, count = os.replace, 0

    def dying(source: str, target: str) -> None:
        nonlocal count
        count += 1
        if count == again:
            raise Death
        real(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", dying)
        try:
            FileStore(tmp_path).recover_login(KEY)
        except Death:
            # The next recovery dies at the same rename, if it has that many left.
            count = 0
            with suppress(Death):
                FileStore(tmp_path).recover_login(KEY)
    assert generations(FileStore(tmp_path).read(KEY)) == (OLD if is_failed else NEW)
    assert FileStore(tmp_path).read(KEY).binding == credentials_of(0 if is_failed else 1).binding


@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_a_disk_that_refuses_the_completion_delays_it(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    die_storing(tmp_path, monkeypatch, rename)

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", refuse)
        assert FileStore(tmp_path).read(KEY).tokens == credentials_of(0).tokens
    assert generations(FileStore(tmp_path).read(KEY)) == NEW
    assert_clean(tmp_path)


@covers("disk-refuses")
@pytest.mark.parametrize("rename", BEFORE_TOKENS)
def test_a_disk_that_refuses_one_file_of_a_login_keeps_the_old_one(
    tmp_path: Path, monkeypatch: Patch, rename: int
) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of(0))
    before = {path.name: path.read_bytes() for path in folder_of(tmp_path).iterdir()}
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
            store.save_login(KEY, credentials_of(1))
    assert {path.name: path.read_bytes() for path in folder_of(tmp_path).iterdir()} == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 1}', '{"version": 1, "parts": [{"name": "../../x", "new": "a"}]}']
)
def test_a_record_that_says_nothing_is_removed_and_nothing_else(tmp_path: Path, text: str) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of(0))
    private_files.write_private(folder_of(tmp_path) / ".notes.pending.tmp", text.encode())
    assert generations(store.read(KEY)) == OLD
    assert_clean(tmp_path)
    assert not (tmp_path.parent / "x").exists()


def test_the_record_of_a_later_version_stays(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, credentials_of(0))
    record = folder_of(tmp_path) / ".notes.pending.tmp"
    private_files.write_private(record, b'{"version": 2}')
    assert generations(store.read(KEY)) == OLD
    assert record.exists()
    store.save_login(KEY, credentials_of(1))
    assert generations(store.read(KEY)) == NEW
    assert not record.exists()


def test_a_record_is_for_its_owner_alone_and_shows_in_no_repr(tmp_path: Path, monkeypatch: Patch) -> None:
    die_storing(tmp_path, monkeypatch, TOKENS)
    record = folder_of(tmp_path) / ".notes.pending.tmp"
    assert record.stat().st_mode & 0o777 == 0o600
    assert "refresh-" in record.read_text()
    assert "refresh-" not in repr(read_record(record))
    record.chmod(0o644)
    FileStore(tmp_path).recover_login(KEY)
    assert record.exists()
