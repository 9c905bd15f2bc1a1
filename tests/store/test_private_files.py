from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StoreCorrupt, StoreUnsafe, StoreUnwritable
from hermes_mcp_auth_remote.hermes_home import file_stem
from hermes_mcp_auth_remote.store import MAX_FILE_BYTES
from hermes_mcp_auth_remote.store.files import private_files


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_file_is_private_at_any_umask(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        private_files.write_private(tmp_path / "file", b"text")
    finally:
        os.umask(umask)
    assert mode_of(tmp_path / "file") == 0o600
    assert private_files.read_private(tmp_path / "file") == b"text"


def test_a_missing_file_reads_as_none(tmp_path: Path) -> None:
    assert private_files.read_private(tmp_path / "file") is None


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644, 0o666, 0o777])
def test_a_file_open_to_others_is_refused_with_a_chmod_command(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"text")
    path.chmod(mode)
    with pytest.raises(StoreUnsafe, match=f"mode {mode:04o}") as caught:
        private_files.read_private(path)
    assert f"chmod 600 '{path}'" in caught.value.advice


def test_a_symbolic_link_is_not_followed_for_reading(tmp_path: Path) -> None:
    private_files.write_private(tmp_path / "file", b"text")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with pytest.raises(StoreUnsafe, match="symbolic link"):
        private_files.read_private(tmp_path / "link")


def test_writing_replaces_a_symbolic_link_but_not_its_target(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"theirs")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    private_files.write_private(tmp_path / "link", b"ours")
    assert (tmp_path / "target").read_bytes() == b"theirs"
    assert private_files.read_private(tmp_path / "link") == b"ours"


def test_a_named_pipe_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(StoreUnsafe, match="plain file"):
        private_files.read_private(tmp_path / "pipe")


def test_a_directory_instead_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir(mode=0o700)
    with pytest.raises(StoreUnsafe, match="plain file"):
        private_files.read_private(tmp_path / "file")


def test_another_users_file_and_directory_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private_files.write_private(tmp_path / "file", b"text")
    me = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: me + 1)
    with pytest.raises(StoreUnsafe, match="another user"):
        private_files.read_private(tmp_path / "file")
    with pytest.raises(StoreUnsafe, match="another user"):
        private_files.ensure_private_directory(tmp_path)


def test_a_file_above_one_mebibyte_is_refused(tmp_path: Path) -> None:
    private_files.write_private(tmp_path / "file", b"x" * MAX_FILE_BYTES)
    assert len(private_files.read_private(tmp_path / "file") or b"") == MAX_FILE_BYTES
    private_files.write_private(tmp_path / "file", b"x" * (MAX_FILE_BYTES + 1))
    with pytest.raises(StoreCorrupt, match="1 MiB"):
        private_files.read_private(tmp_path / "file")


def test_a_private_directory_is_created_with_its_parents(tmp_path: Path) -> None:
    private_files.ensure_private_directory(tmp_path / "home" / "tokens")
    assert mode_of(tmp_path / "home" / "tokens") == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o711])
def test_a_directory_that_others_can_read_is_made_private(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "tokens"
    folder.mkdir()
    folder.chmod(mode)
    private_files.ensure_private_directory(folder)
    assert mode_of(folder) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702, 0o2777])
def test_a_directory_that_others_can_write_to_is_refused_unchanged(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "tokens"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(StoreUnsafe, match="changed by others"):
        private_files.ensure_private_directory(folder)
    with pytest.raises(StoreUnsafe, match="changed by others"):
        private_files.has_directory(folder)
    assert mode_of(folder) == mode


def test_a_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "tokens").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnsafe, match="symbolic link"):
        private_files.ensure_private_directory(tmp_path / "tokens")


def test_a_file_instead_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_bytes(b"")
    with pytest.raises(StoreUnsafe, match="not a directory"):
        private_files.ensure_private_directory(tmp_path / "tokens")


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_failed_write_names_the_path_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    path = tmp_path / "file"
    private_files.write_private(path, b"old")

    def fail(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(StoreUnwritable, match="could not be written") as caught:
            private_files.write_private(path, b"a new secret")
    assert str(path) in str(caught.value)
    assert os.strerror(number) in str(caught.value)
    assert "a new secret" not in str(caught.value)
    assert private_files.read_private(path) == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failed_read_raises_store_unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        with pytest.raises(StoreUnwritable, match="could not be read"):
            private_files.read_private(tmp_path / "file")


@pytest.mark.parametrize(
    ("server", "stem"),
    [
        ("notes", "notes"),
        ("my.server", "my_server"),
        ("my_server", "my_server"),
        ("../../etc/passwd", "etc_passwd"),
        ("häuser", "häuser"),
        ("a b", "a_b"),
        ("___", "default"),
        ("", "default"),
        ("x" * 200, "x" * 128),
        ("a\0b", "a_b"),
    ],
)
def test_the_file_stem_of_a_server_matches_hermes(server: str, stem: str) -> None:
    assert file_stem(server) == stem


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "Fix the permissions, or set HERMES_HOME"),
        (errno.ENOTDIR, "Set HERMES_HOME"),
        (errno.ENOENT, "Set HERMES_HOME"),
        (errno.ENOSPC, "Free some space"),
        (errno.EDQUOT, "Free some space"),
    ],
)
def test_the_advice_fits_the_error_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(StoreUnwritable) as caught:
        private_files.ensure_private_directory(tmp_path / "tokens")
    assert caught.value.advice.startswith(advice)
