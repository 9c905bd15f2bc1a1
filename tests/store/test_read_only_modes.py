"""Stores on a read-only disk: although chmod fails, a store is used if other users cannot change it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import StoreUnsafe
from hermes_mcp_auth_remote.store.files.private_files import (
    ensure_private_directory,
    has_directory,
    read_private,
)
from tests.requirements import covers
from tests.service.fakes import DUE_AT, OLD_HEADER, FakeServer, get_header, make_service, make_store


@pytest.fixture
def read_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    open_file = os.open

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    def open_unless_written(path: str, flags: int, mode: int = 0o777) -> int:
        if str(path).startswith(str(tmp_path)) and flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return open_file(path, flags, mode)

    make_store(tmp_path)
    (tmp_path / "mcp-tokens").chmod(0o755)
    monkeypatch.setattr(os, "fchmod", refuse)
    monkeypatch.setattr(os, "open", open_unless_written)


@covers("disk-refuses")
@pytest.mark.usefixtures("read_only")
def test_a_token_is_read_from_a_read_only_directory_that_others_can_list(tmp_path: Path) -> None:
    assert get_header(make_service(tmp_path, FakeServer(), DUE_AT)) == OLD_HEADER
    ensure_private_directory(tmp_path / "mcp-tokens")


@covers("disk-refuses")
@pytest.mark.usefixtures("read_only")
def test_a_read_only_file_open_to_a_group_is_refused_with_advice(tmp_path: Path) -> None:
    tokens = tmp_path / "mcp-tokens" / "notes.json"
    tokens.chmod(0o660)
    with pytest.raises(StoreUnsafe, match=r"open to others \(mode 0660\)") as caught:
        read_private(tokens)
    assert "mount it writable" in caught.value.advice
    (tmp_path / "mcp-tokens").chmod(0o770)
    with pytest.raises(StoreUnsafe) as caught:
        has_directory(tmp_path / "mcp-tokens")
    assert "chmod" not in caught.value.advice
