from __future__ import annotations

from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StoreBusy, StoreUnsafe, StoreUnwritable
from hermes_mcp_auth_remote.store.files.lock import FileLock


def test_two_locks_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.try_acquire()
    assert not second.try_acquire()
    assert not first.try_acquire()
    first.release()
    assert second.try_acquire()
    second.release()


def test_releasing_a_lock_that_is_not_held_does_nothing(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.try_acquire()
    second.release()
    assert not second.try_acquire()
    first.release()
    first.release()


def test_the_lock_file_is_private_and_is_never_removed_or_truncated(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with FileLock(path).hold(0):
        assert path.stat().st_mode & 0o777 == 0o600
        path.write_bytes(b"Hermes was here")
    with FileLock(path).hold(0):
        pass
    assert path.read_bytes() == b"Hermes was here"


def test_a_lock_that_stays_taken_is_reported_as_busy(tmp_path: Path) -> None:
    holder = FileLock(tmp_path / "lock")
    with holder.hold(0), pytest.raises(StoreBusy, match="lock"), FileLock(tmp_path / "lock").hold(0.02):
        pytest.fail("two are inside")
    assert holder.try_acquire()
    holder.release()


def test_an_exception_in_the_block_releases_the_lock(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    with pytest.raises(KeyError), lock.hold(0):
        raise KeyError
    assert lock.try_acquire()
    lock.release()


def test_a_link_instead_of_the_lock_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnsafe, match="symbolic link"):
        FileLock(tmp_path / "lock").try_acquire()
    assert not (tmp_path / "elsewhere").exists()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnwritable, match="nowhere"):
        FileLock(tmp_path / "nowhere" / "lock").try_acquire()
