"""Stores that Kubernetes opens to a group, and stores on file systems without modes."""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StoreError, StoreUnsafe
from hermes_mcp_auth_remote.store.files import file_modes, private_files
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.record_files import NoticeFile
from hermes_mcp_auth_remote.store.protocol import Notice
from hermes_mcp_auth_remote.values import CredentialKey
from tests.requirements import covers
from tests.store.builders import KEY, LOGIN_ID, build_credentials, build_login, keys_of

NOTICE = Notice("telegram", "7", KEY, is_over=True, at=1.0)
OWNED_KEY = CredentialKey("notes", "telegram:42")


@pytest.fixture(autouse=True)
def _reset_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_modes, "_warned_stores", {})
    monkeypatch.delenv(file_modes.ALLOW_OPEN_STORE, raising=False)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with files of each kind: credentials with and without owner, a login, notices, locks."""
    store = FileStore(tmp_path)
    for key in (KEY, OWNED_KEY):
        store.save_login(key, build_credentials(0, key))
        with store.lock(key).hold(1):
            pass
    store.logins.add(build_login())
    NoticeFile(store.root).replace(None, NOTICE)
    return tmp_path


def all_paths(home: Path) -> list[Path]:
    return [home / "mcp-tokens", *sorted((home / "mcp-tokens").rglob("*"))]


def set_modes(home: Path, directory: int, file: int) -> None:
    for path in all_paths(home):
        path.chmod(directory if path.is_dir() else file)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def read_all(home: Path) -> None:
    """Read each kind of file in the store."""
    store = FileStore(home)
    for key in (KEY, OWNED_KEY):
        assert store.read(key).credentials.tokens == build_credentials(0, key).tokens
    assert store.logins.get(LOGIN_ID) == build_login()
    assert len(store.logins.list_all()) == 1
    assert sorted(keys_of(store), key=str) == sorted([KEY, OWNED_KEY], key=str)
    assert NoticeFile(store.root).list_all() == [NOTICE]


@covers("fs-group")
def test_a_store_that_kubernetes_opened_to_a_group_is_made_private(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # A kubelet sets these modes on a volume with `fsGroup`.
    set_modes(home, 0o2770, 0o660)
    caplog.clear()
    read_all(home)
    store = FileStore(home)
    store.save_login(KEY, build_credentials(1))
    store.logins.change(LOGIN_ID, lambda login: login)
    left_open = [path for path in all_paths(home) if mode_of(path) & 0o077]
    # Only empty lock files may stay open.
    assert all(path.read_bytes() == b"" and "lock" in path.name for path in left_open)
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.name for record in warnings] == [file_modes.__name__]
    assert f"{home}/mcp-tokens was open to its group" in warnings[0].getMessage()
    assert "fsGroupChangePolicy: OnRootMismatch" in warnings[0].getMessage()


@covers("fs-group")
@pytest.mark.parametrize("mode", [0o640, 0o620, 0o610, 0o660, 0o670])
def test_a_file_open_only_to_its_group_is_made_private(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"text")
    path.chmod(mode)
    assert private_files.read_private(path) == b"text"
    assert mode_of(path) == 0o600


@covers("fs-group")
@pytest.mark.parametrize("mode", [0o770, 0o2770, 0o775, 0o720])
def test_a_directory_that_its_group_can_write_to_is_made_private(tmp_path: Path, mode: int) -> None:
    for check in (private_files.ensure_private_directory, private_files.has_directory):
        tmp_path.chmod(mode)
        check(tmp_path)
        assert mode_of(tmp_path) == 0o700


def test_another_users_file_is_never_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"text")
    path.chmod(0o660)
    tmp_path.chmod(0o770)
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    monkeypatch.setenv(file_modes.ALLOW_OPEN_STORE, "1")
    for check, what in (
        (private_files.read_private, path),
        (private_files.ensure_private_directory, tmp_path),
    ):
        with pytest.raises(StoreUnsafe, match="another user"):
            check(what)
    assert (mode_of(path), mode_of(tmp_path)) == (0o660, 0o770)


def test_the_mode_of_a_hard_linked_file_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"text")
    (tmp_path / "elsewhere").chmod(0o660)
    (tmp_path / "file").hardlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnsafe, match="mode 0660"):
        private_files.read_private(tmp_path / "file")
    assert mode_of(tmp_path / "elsewhere") == 0o660


@covers("fs-group")
@pytest.mark.parametrize("mode", [0o602, 0o604, 0o666, 0o777])
def test_a_refused_file_is_refused_again_even_if_open_stores_are_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    monkeypatch.setenv(file_modes.ALLOW_OPEN_STORE, "1")
    path, folder = tmp_path / "file", tmp_path / "folder"
    path.write_bytes(b"text")
    path.chmod(mode)
    folder.mkdir()
    folder.chmod(0o1777)
    for _ in range(2):
        with pytest.raises(StoreUnsafe, match=f"mode {mode:04o}"):
            private_files.read_private(path)
        with pytest.raises(StoreUnsafe, match="mode 1777"):
            private_files.has_directory(folder)
    assert (mode_of(path), mode_of(folder)) == (mode, 0o1777)


def ignore_chmod(_descriptor: int, _mode: int) -> None:
    """Behave as drvfs and CIFS do."""


def refuse_chmod(_descriptor: int, _mode: int) -> None:
    """Behave as FAT does."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


def simulate_missing_modes(
    monkeypatch: pytest.MonkeyPatch, chmod: Callable[[int, int], None], shown: int
) -> None:
    """Let each file and directory that is created from now on have this mode."""
    real_fchmod, real_mkdir, real_open = os.fchmod, os.mkdir, os.open

    def mkdir(path: str, *rest: int, **more: int) -> None:
        real_mkdir(path, *rest, **more)
        Path(path).chmod(shown)

    def open_(path: str, flags: int, *rest: int, **more: int) -> int:
        is_new = bool(flags & os.O_CREAT) and not Path(path).exists()
        descriptor = real_open(path, flags, *rest, **more)
        if is_new:
            real_fchmod(descriptor, shown)
        return descriptor

    monkeypatch.setattr(os, "fchmod", chmod)
    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "open", open_)


@covers("no-modes")
@pytest.mark.parametrize("chmod", [ignore_chmod, refuse_chmod])
@pytest.mark.parametrize("shown", [0o777, 0o770])
def test_a_file_system_without_modes_is_refused_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chmod: Callable[[int, int], None], shown: int
) -> None:
    simulate_missing_modes(monkeypatch, chmod, shown)
    with pytest.raises(StoreUnsafe, match="chmod has no effect") as caught:
        FileStore(tmp_path).save_login(KEY, build_credentials())
    assert "HERMES_HOME to a directory on a disk that supports modes" in caught.value.advice
    assert "fsGroupChangePolicy: OnRootMismatch" in caught.value.advice
    assert f"{file_modes.ALLOW_OPEN_STORE}=1" in caught.value.advice
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


@covers("no-modes")
@pytest.mark.parametrize("chmod", [ignore_chmod, refuse_chmod])
@pytest.mark.parametrize("shown", [0o777, 0o770, 0o755])
def test_the_environment_variable_allows_a_store_without_modes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chmod: Callable[[int, int], None],
    shown: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    simulate_missing_modes(monkeypatch, chmod, shown)
    monkeypatch.setenv(file_modes.ALLOW_OPEN_STORE, "1")
    store = FileStore(tmp_path)
    for key in (KEY, OWNED_KEY):
        store.save_login(key, build_credentials(0, key))
    store.logins.add(build_login())
    NoticeFile(store.root).replace(None, NOTICE)
    read_all(tmp_path)
    assert caplog.records == []
    # No other value enables an open store, so that an operator does not enable it by accident.
    for value in ("", "0", "true", " 1"):
        monkeypatch.setenv(file_modes.ALLOW_OPEN_STORE, value)
        with pytest.raises(StoreError):
            store.read(KEY)


@covers("fs-group", "no-modes")
def test_a_chmod_undone_by_another_process_is_not_a_missing_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real_fchmod, calls = tmp_path / "file", os.fchmod, 0
    path.write_bytes(b"text")

    def undone(descriptor: int, mode: int) -> None:
        nonlocal calls
        calls += 1
        before = stat.S_IMODE(os.fstat(descriptor).st_mode)
        real_fchmod(descriptor, mode)
        if calls < 3:
            real_fchmod(descriptor, before)

    monkeypatch.setattr(os, "fchmod", undone)
    monkeypatch.setenv(file_modes.ALLOW_OPEN_STORE, "1")
    path.chmod(0o666)
    with pytest.raises(StoreUnsafe, match="mode 0666"):
        private_files.read_private(path)
    calls = 0
    path.chmod(0o660)
    assert private_files.read_private(path) == b"text"
    assert mode_of(path) == 0o600


@covers("no-modes")
def test_no_content_is_written_to_a_file_that_is_not_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials())
    simulate_missing_modes(monkeypatch, ignore_chmod, 0o666)
    with pytest.raises(StoreUnsafe, match="mode 0666"):
        store.save_login(KEY, build_credentials(1))
    monkeypatch.undo()
    assert store.read(KEY).credentials.tokens == build_credentials().tokens
    assert not [path for path in all_paths(tmp_path) if path.name.endswith(private_files.TEMPORARY_SUFFIX)]


def test_a_directory_that_others_can_only_list_is_used_without_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FileStore(tmp_path).save_login(KEY, build_credentials())
    (tmp_path / "mcp-tokens").chmod(0o755)
    monkeypatch.setattr(os, "fchmod", refuse_chmod)
    FileStore(tmp_path).save_login(KEY, build_credentials(1))
    assert FileStore(tmp_path).read(KEY).credentials.tokens == build_credentials(1).tokens


@pytest.mark.skipif(sys.platform != "linux", reason="the injected error is that of Linux")
def test_a_read_only_disk_is_not_treated_as_one_without_modes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"text")

    def read_only(_descriptor: int, _mode: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "fchmod", read_only)
    monkeypatch.setenv(file_modes.ALLOW_OPEN_STORE, "1")
    for mode in (0o660, 0o666):
        path.chmod(mode)
        with pytest.raises(StoreUnsafe, match=f"open to others .mode {mode:04o}.\\."):
            private_files.read_private(path)
