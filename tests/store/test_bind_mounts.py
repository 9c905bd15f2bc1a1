"""Files that cannot be replaced by a rename, because of bind mounts or other errors of the system call."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StoreUnsafe, StoreUnwritable
from hermes_mcp_auth_remote.store.files import private_files
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import Secret
from tests.requirements import covers
from tests.store.bind_mounts import FILE_NAMES, build_tokens, run_on_bind_mounts
from tests.store.builders import KEY, build_credentials

pytestmark = pytest.mark.slow


class Death(BaseException):
    """Stands for a kill of the process: no handler of the store catches this exception."""


@covers("disk-refuses")
@pytest.mark.parametrize("verb", ["refresh", "login", "read_only"])
def test_bind_mounted_files_are_written_in_place(tmp_path: Path, verb: str) -> None:
    run_on_bind_mounts(verb, tmp_path)


@covers("killed")
@pytest.mark.parametrize("step", [5, pytest.param(1, marks=pytest.mark.soak)])
def test_a_killed_writer_on_bind_mounts_leaves_the_old_or_the_new_login(tmp_path: Path, step: int) -> None:
    run_on_bind_mounts("kill", tmp_path, str(step))


@covers("disk-refuses")
@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV, errno.EPERM])
def test_a_refresh_is_stored_if_the_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    refuse_renames(tmp_path, monkeypatch, number)
    store.save_tokens(KEY, build_tokens(1), None)
    tokens = FileStore(tmp_path).read(KEY).credentials.tokens
    assert tokens is not None
    assert tokens.refresh_token == Secret("refresh-1")


def refuse_renames(home: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real, tokens = os.replace, str(home / "mcp-tokens" / FILE_NAMES[-1])

    def refuse(source: str, target: str) -> None:
        if str(target) == tokens:
            raise OSError(number, os.strerror(number))
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)


@covers("killed")
@pytest.mark.parametrize("is_shorter", [False, True])
def test_a_write_in_place_that_stops_at_any_byte_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_shorter: bool
) -> None:
    store, old, new = FileStore(tmp_path), build_tokens(0), build_tokens(1)
    if is_shorter:
        new = build_credentials(1).tokens
        assert new is not None
        old = old.__class__(Secret("access-0" + "x" * 60), old.refresh_token, expires_at=old.expires_at)
    store.save_login(KEY, build_credentials(0))
    store.save_tokens(KEY, old, None)
    refuse_renames(tmp_path, monkeypatch, errno.EBUSY)
    path, real = tmp_path / "mcp-tokens" / FILE_NAMES[-1], os.write
    size = max(len(path.read_bytes()), 200)
    for stop in range(0, size, 7):
        store.save_tokens(KEY, old, None)

        def write_a_part(descriptor: int, data: bytes, stop: int = stop) -> int:
            real(descriptor, bytes(data)[:stop])
            raise Death

        with monkeypatch.context() as patched:
            patched.setattr(os, "write", write_a_part)
            with pytest.raises(Death), store.lock(KEY).hold(1):
                store.save_tokens(KEY, new, None)
        tokens = FileStore(tmp_path).read(KEY).credentials.tokens
        assert tokens is not None
        assert (tokens.access_token, tokens.refresh_token) == (new.access_token, new.refresh_token)


@covers("disk-refuses")
def test_a_full_disk_during_a_write_in_place_keeps_the_old_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    refuse_renames(tmp_path, monkeypatch, errno.EBUSY)
    path, real, calls = tmp_path / "mcp-tokens" / FILE_NAMES[-1], os.write, 0
    before = path.read_bytes()

    def write_until_full(descriptor: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return real(descriptor, bytes(data)[:30])
        if calls == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write_until_full)
        with pytest.raises(StoreUnwritable, match="No space"):
            store.save_tokens(KEY, build_tokens(1), None)
    assert path.read_bytes() == before
    assert not [entry for entry in path.parent.iterdir() if entry.suffix == ".tmp"]


def test_a_link_or_pipe_is_not_written_in_place(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"theirs")
    (tmp_path / "target").chmod(0o600)
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe"):
        with pytest.raises(StoreUnsafe):
            private_files.overwrite_private(tmp_path / name, b"ours")
    assert (tmp_path / "target").read_bytes() == b"theirs"


def test_an_own_file_with_a_read_only_mode_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "file", os.open
    private_files.write_private(path, b"old")
    path.chmod(0o400)

    def open_as_user(target: str, flags: int, mode: int = 0o777) -> int:
        # Fail as the system does for users other than root.
        if flags & os.O_RDWR and not path.stat().st_mode & 0o200:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(target, flags, mode)

    monkeypatch.setattr(os, "open", open_as_user)
    private_files.overwrite_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_an_unwritable_directory_is_detected_before_a_refresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    real = os.open

    def refuse(path: str, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT and str(path).endswith(".tmp"):
            raise OSError(number, os.strerror(number))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreUnwritable, match="could not be written"):
        store.check_can_store(KEY)


def test_the_check_before_a_refresh_leaves_no_file(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    store.save_login(KEY, build_credentials(0))
    before = sorted(path.name for path in (tmp_path / "mcp-tokens").iterdir())
    store.check_can_store(KEY)
    store.check_can_store(KEY.__class__("never seen"))
    assert sorted(path.name for path in (tmp_path / "mcp-tokens").iterdir()) == before
