"""The notices that users have received about their sessions, `mcp-tokens/logins/.notices.json`.

The file survives restarts, so that each user receives each notice once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import cast

from hermes_mcp_auth_remote.errors import StoreCorrupt
from hermes_mcp_auth_remote.hermes_home import MTIME_RESOLUTION_NS
from hermes_mcp_auth_remote.store.codec import decode_document, encode_document
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.store.files.private_files import (
    ensure_private_directory,
    has_directory,
    read_private,
    write_private,
)
from hermes_mcp_auth_remote.store.json_fields import FORMAT_VERSION, DocumentReader
from hermes_mcp_auth_remote.store.protocol import Notice
from hermes_mcp_auth_remote.values import CredentialKey

# Under the lock, a process reads and writes one small file.
LOCK_TIMEOUT_SECONDS = 30


class NoticeFile:
    """The notices below `root` (`HERMES_HOME/mcp-tokens`). Any thread or process may use it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "logins"
        self._path = self._folder / ".notices.json"
        # The file's version and content at the last read; None if a later change could leave that version.
        self._last_read: tuple[tuple[int, ...], tuple[Notice, ...]] | None = None

    def list_all(self) -> list[Notice]:
        """Return all notices; raises StoreCorrupt, StoreUnsafe, StoreUnwritable."""
        if not (has_directory(self._root) and has_directory(self._folder)):
            return []
        now_ns, version = time.time_ns(), self._version()
        if self._last_read is not None and self._last_read[0] == version:
            return list(self._last_read[1])
        data = read_private(self._path)
        notices = [] if data is None else _read_notices(data, str(self._path))
        is_settled = version is not None and now_ns - version[0] > MTIME_RESOLUTION_NS
        self._last_read = (version, tuple(notices)) if version is not None and is_settled else None
        return notices

    def _version(self) -> tuple[int, ...] | None:
        try:
            status = os.lstat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino

    def change(self, apply_change: Callable[[list[Notice]], Iterable[Notice]]) -> list[Notice]:
        """Read, change and write the notices in one step, and return them as they were before.

        Writes nothing if nothing changes. If `apply_change` raises, the exception is passed on. Raises
        StoreBusy and the other StoreErrors.
        """
        ensure_private_directory(self._root)
        ensure_private_directory(self._folder)
        with FileLock(self._folder / ".notices.lock").hold(LOCK_TIMEOUT_SECONDS):
            before = self.list_all()
            after = list(apply_change(list(before)))
            if after != before:
                document = {
                    "version": FORMAT_VERSION,
                    "notices": [_notice_document(notice) for notice in after],
                }
                write_private(self._path, encode_document(document))
        return before


def _notice_document(notice: Notice) -> dict[str, object]:
    document: dict[str, object] = asdict(notice)
    # Earlier versions read these member names.
    document["key"] = {"server": notice.key.server_name, "owner": notice.key.owner}
    return document


def _read_notices(data: bytes, path: str) -> list[Notice]:
    reader = DocumentReader(decode_document(data, path), path)
    reader.check_version()
    notices = reader.document.get("notices")
    if not isinstance(notices, list):
        raise StoreCorrupt(f"{path}: `notices` is missing or has the wrong type.")
    return [_read_notice(DocumentReader(notice, path)) for notice in cast("list[object]", notices)]


def _read_notice(reader: DocumentReader) -> Notice:
    key = reader.child("key")
    return Notice(
        reader.string("platform"),
        reader.string("user"),
        CredentialKey(key.string("server"), key.optional_string("owner")),
        reader.boolean("is_over"),
        reader.number("at"),
        reader.optional_number("of_tokens"),
        reader.string("message"),
    )
