"""The files of a store that contain one small record: of a session, or a list.

`mcp-tokens/<stem>.refresh-failure` says why the last refresh of a session failed.
`mcp-tokens/<stem>.token-refusal` says that the server refuses refreshed tokens too. Older versions and Hermes
neither read nor rewrite these files. They contain a fingerprint of their tokens, so they do not apply to
later tokens. Nothing depends on them: a file that cannot be read counts as missing.

The notices to users are in `mcp-tokens/logins/.notices.json`: they survive restarts, so that each user
receives each notice once. The users that administrators have admitted are in `mcp-auth-people.json`, beside
config.yaml, which belongs to the operator and which this package never writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

from hermes_mcp_auth_remote.errors import StoreError
from hermes_mcp_auth_remote.hermes_home import is_settled
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.wire import Document
from hermes_mcp_auth_remote.store.codec import decode_document, encode_document
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.store.files.private_files import (
    ensure_private_directory,
    has_directory,
    read_private,
    remove_file,
    write_private,
)
from hermes_mcp_auth_remote.store.protocol import Notice, Person
from hermes_mcp_auth_remote.store.record_codec import (
    notices_document,
    people_document,
    read_notices,
    read_people,
)
from hermes_mcp_auth_remote.values import CredentialKey

T = TypeVar("T")

PEOPLE_FILE_NAME = "mcp-auth-people.json"
# A list has up to 200 bytes per user, and no server can make it longer: 80 000 users have room.
MAX_LIST_BYTES = 16 * 1_048_576
# Under the lock, a process reads and writes one file.
LOCK_TIMEOUT_SECONDS = 30


class SessionRecordFiles(Generic[T]):
    """One record for each session's tokens: `RefreshFailureStore`, `TokenRefusalStore`. No method raises."""

    def __init__(
        self,
        path_for: Callable[[CredentialKey], str],
        encode: Callable[[Tokens, T], Document],
        decode: Callable[[Document, Tokens, str], T | None],
    ) -> None:
        self._path_for = path_for
        self._encode = encode
        self._decode = decode

    def read(self, key: CredentialKey, tokens: Tokens) -> T | None:
        """Return the record of these tokens, None if there is none."""
        path = self._path_for(key)
        with suppress(StoreError, OSError):
            data = read_private(path)
            if data is not None:
                return self._decode(decode_document(data, path), tokens, path)
        return None

    def write(self, key: CredentialKey, tokens: Tokens, record: T) -> None:
        """Store a record, in place of an earlier one; ignores errors of the disk."""
        with suppress(StoreError, OSError):
            write_private(self._path_for(key), encode_document(self._encode(tokens, record)))

    def clear(self, key: CredentialKey) -> None:
        """Remove the stored record."""
        with suppress(StoreError, OSError):
            remove_file(self._path_for(key))


class ListFile(Generic[T]):
    """A file with one list, in the last of `folders`. Any thread or process may use it.

    `folders` are the folders that must be private, from the outside in; those that are missing are created.
    """

    def __init__(
        self,
        path: Path,
        lock_path: Path,
        folders: tuple[Path, ...],
        encode: Callable[[Iterable[T]], Document],
        decode: Callable[[Document, str], list[T]],
    ) -> None:
        self._path = path
        self._lock_path = lock_path
        self._folders = folders
        self._encode = encode
        self._decode = decode
        # The file's version and content at the last read; None if a later change could leave that version.
        self._last_read: tuple[tuple[int, ...], tuple[T, ...]] | None = None

    def list_all(self) -> list[T]:
        """Return the list; raises StoreCorrupt, StoreUnsafe, StoreUnwritable."""
        if not all(map(has_directory, self._folders)):
            return []
        now_ns, version = time.time_ns(), self._version()
        last_read = self._last_read
        if last_read is not None and last_read[0] == version:
            return list(last_read[1])
        data = read_private(self._path, MAX_LIST_BYTES)
        path = str(self._path)
        items = [] if data is None else self._decode(decode_document(data, path), path)
        is_final = version is not None and is_settled(version[0], now_ns)
        self._last_read = (version, tuple(items)) if version is not None and is_final else None
        return items

    def _version(self) -> tuple[int, ...] | None:
        try:
            status = os.lstat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino

    def change(self, apply_change: Callable[[list[T]], Iterable[T]]) -> tuple[list[T], list[T]]:
        """Read, change and write the list in one step; return it as it was before and as it is after.

        Writes nothing if nothing changes. If `apply_change` raises, the exception is passed on. Raises
        StoreBusy and the other StoreErrors.
        """
        for folder in self._folders:
            ensure_private_directory(folder)
        with FileLock(self._lock_path).hold(LOCK_TIMEOUT_SECONDS):
            before = self.list_all()
            after = list(apply_change(list(before)))
            if after != before:
                write_private(self._path, encode_document(self._encode(after), MAX_LIST_BYTES))
        return before, after


class NoticeFile:
    """The notices below `root` (`HERMES_HOME/mcp-tokens`); a `NoticeStore`."""

    def __init__(self, root: Path) -> None:
        folder = root / "logins"
        self._file = ListFile[Notice](
            folder / ".notices.json",
            folder / ".notices.lock",
            (root, folder),
            notices_document,
            read_notices,
        )

    def list_all(self) -> list[Notice]:
        """Return all notices; raises StoreCorrupt, StoreUnsafe, StoreUnwritable."""
        return self._file.list_all()

    def replace(self, previous: Notice | None, replacement: Notice | None) -> bool:
        """Store a notice in the place of another one; raises as `ListFile.change` does."""
        notice_keys = {notice.deduplication_key for notice in (previous, replacement) if notice is not None}
        if len(notice_keys) != 1:
            raise ValueError("both notices have the same recipient and session")
        is_replaced = False

        def replace_current(notices: list[Notice]) -> list[Notice]:
            nonlocal is_replaced
            current = next((notice for notice in notices if notice.deduplication_key in notice_keys), None)
            is_replaced = current == previous
            if not is_replaced:
                return notices
            others = [notice for notice in notices if notice is not current]
            return others if replacement is None else [*others, replacement]

        self._file.change(replace_current)
        return is_replaced


class PeopleFile:
    """The admitted users of one HERMES_HOME; a `PeopleStore`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        path = home / PEOPLE_FILE_NAME
        self._file = ListFile[Person](path, path.with_suffix(".lock"), (), people_document, read_people)

    def list_all(self) -> list[Person]:
        """Return all admitted users; raises StoreCorrupt, StoreUnsafe, StoreUnwritable."""
        return self._file.list_all()

    def change(self, apply_change: Callable[[list[Person]], Iterable[Person]]) -> list[Person]:
        """Change the users, and return them as they are after it (`ListFile.change`).

        Creates a missing HERMES_HOME. The mode of an existing one is Hermes's own.
        """
        if not has_directory(self._home):
            ensure_private_directory(self._home)
        return self._file.change(apply_change)[1]
