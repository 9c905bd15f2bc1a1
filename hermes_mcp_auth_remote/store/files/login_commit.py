"""Replace several files together: all of them or none, even if the process is killed.

A login consists of a binding, a client, metadata, perhaps a key, and tokens. `begin_commit` writes each new
file under a temporary name. Then it writes the record `.<stem>.pending.tmp` with one rename: the new and the
old contents, and the identity of each file that is replaced. `complete` renames the files to their final
names, the tokens last; `delete_record` removes the record. All of this happens under the lock of the
credentials. Therefore, if a holder of the lock finds a record, the process that wrote it has died, and
`login_commit_recovery` completes the commit or rolls it back.

The rename of the last file to its final name removes its temporary name. So if the temporary name is gone,
the commit is done, and recovery only removes the record. The content of the files does not matter then.

Other programs write the same files and do not know the record: Hermes, which renames its files and takes no
lock (0.19), and older versions of this program. Between the death of the process and the recovery, they may
do this:

- Nothing: the login is completed.
- Hermes refreshes the old tokens. The tokens file is neither the old nor the new one: the login is rolled
  back, so that the old client is beside the tokens that belong to it.
- Hermes refreshes the new tokens. The temporary name of the tokens is gone: the files stay as they are.
- Hermes drops the new client, because the server refused it together with the old tokens. The client file is
  missing and the tokens file is the old one: the login is completed, and the client is written again.
- Hermes logs in: it removes the tokens, then writes client, metadata and tokens. The tokens file is missing,
  or a client or metadata file is neither the old nor the new one: the login is rolled back. The files of
  Hermes stay.
- An old version of this program refreshes: as with Hermes.
- An old version logs in: as with Hermes. The files that it wrote stay even if their content equals that of
  the new files, because inode and time differ.
- An old version logs out: it removes each file of the stem that ends in `.tmp`, so it also removes the record
  and the new files.
- An old version, or this one, declares the login failed: `login_commit_recovery` rolls it back.
- A program changes mode, owner or times of a file: the file has its old content, and the login is completed.

A rollback restores the old content of each file that this commit wrote, the last file first. It leaves a file
that another program has replaced since. If a process dies while it completes or rolls back, the record stays,
and the next holder of the lock continues.

A file that cannot be replaced by a rename (a bind mount gives EBUSY, some file systems EXDEV or EPERM) is
written in place. Before that, the record is updated to say so. The temporary file and the record are the
recovery copies. If the write is interrupted, the file has a mixture of old and new bytes, and recovery writes
it again.
RFC 9700 section 4.14.2.
"""

# Paths are strings: this module handles each file of a login, and `private_files` uses strings too.
# ruff: noqa: PTH118, PTH119, PTH120

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest

from hermes_mcp_auth_remote.errors import StoreError
from hermes_mcp_auth_remote.store.files.login_commit_record import (
    BLANK,
    MAX_RECORD_BYTES,
    FileChange,
    decode_record,
    encode_record,
    read_identity,
    remove_or_blank,
)
from hermes_mcp_auth_remote.store.files.private_files import (
    NotReplaceable,
    StrPath,
    overwrite_private,
    read_private,
    remove_file,
    replace_staged,
    stage_private,
    sync_directory,
    write_private,
)


@dataclass(frozen=True, slots=True)
class Commit:
    """Files of one folder that are replaced together, in this order; `login_id` names their login."""

    folder: str
    record_path: str
    changes: tuple[FileChange, ...]
    login_id: str | None = None

    @property
    def is_committed(self) -> bool:
        """True if the last file has been renamed to its place."""
        staged = self.changes[-1].staged
        return staged is not None and not self._exists(staged)

    def can_complete(self) -> bool:
        """True if no other program has written any of the files since the commit began. Raises StoreError."""
        return self._has_old_content(self.changes[-1]) and all(
            self._has_old_or_new_content(change) for change in self.changes[:-1]
        )

    def complete(self) -> Commit:
        """Give every file its new content; returns the commit that the record describes afterwards.

        Raises StoreError. Can be repeated.
        """
        commit = self._restage_missing()
        for index, change in enumerate(commit.changes):
            if index == len(self.changes) - 1:
                # After a power failure, the last file must not be on disk without the others.
                sync_directory(self.folder)
            if change.staged is None:
                remove_or_blank(self.path_for(change))
            elif self._exists(change.staged):
                try:
                    replace_staged(self._path_in_folder(change.staged), self.path_for(change))
                except NotReplaceable:
                    commit = commit.write_in_place(index)
        sync_directory(self.folder)
        return commit

    def write_in_place(self, index: int) -> Commit:
        """Overwrite a file that cannot be replaced; returns the changed commit. Raises StoreError."""
        change = replace(self.changes[index], in_place=True)
        commit = replace(self, changes=(*self.changes[:index], change, *self.changes[index + 1 :]))
        commit.write_record()
        overwrite_private(self.path_for(change), change.new or b"")
        remove_file(self._path_in_folder(change.staged or ""))
        return commit

    def roll_back(self) -> None:
        """Restore the old content of each file that this commit wrote. Raises StoreError; can be repeated."""
        is_old_session = self._has_old_content(self.changes[-1])
        for change in reversed(self.changes):
            is_done = change.staged is None or not self._exists(change.staged)
            if read_identity(self.path_for(change)) is None:
                # This commit removed the file, or Hermes dropped the new client because of the old tokens.
                is_restored = is_done and is_old_session and change.old is not None
            else:
                is_restored = self.has_written(change) or self._is_half_written(change)
            if is_restored:
                self._restore_old_content(change)

    def delete_record(self) -> None:
        """Remove the record, and then the remaining temporary files. Raises StoreUnwritable."""
        remove_file(self.record_path)
        sync_directory(self.folder)
        for change in self.changes:
            if change.staged is not None:
                with suppress(StoreError):
                    remove_file(self._path_in_folder(change.staged))

    def read_last_version(self) -> tuple[int, int, int]:
        """Return (mtime_ns, size, inode) of the last file as this commit wrote it. Raises StoreError.

        For a renamed file, these are the recorded values: another program may have replaced the file since.
        """
        change = self.changes[-1]
        if change.in_place or change.wrote is None:
            inode, size, mtime_ns = (read_identity(self.path_for(change)) or (0, 0, 0))[:3]
        else:
            inode, size, mtime_ns = change.wrote
        return mtime_ns, size, inode

    def path_for(self, change: FileChange) -> str:
        """Return the final path of a file."""
        return self._path_in_folder(change.name)

    def has_written(self, change: FileChange) -> bool:
        """True if a file is the one that this commit wrote, by inode, size and mtime. Raises StoreError."""
        identity = read_identity(self.path_for(change))
        if change.new is None or identity is None:
            return False
        is_same_file = change.in_place or identity[:3] == change.wrote
        return is_same_file and self._read_content(change) == change.new != change.old

    def write_record(self) -> None:
        """Write the record; from then on the commit survives this process. Raises StoreUnwritable."""
        write_private(self.record_path, encode_record(self.changes, self.login_id))

    def _restore_old_content(self, change: FileChange) -> None:
        path = self.path_for(change)
        if change.old is None:
            remove_or_blank(path)
            return
        try:
            write_private(path, change.old)
        except NotReplaceable:
            overwrite_private(path, change.old)

    def _restage_missing(self) -> Commit:
        """Write the temporary file again for each file that was renamed into place and is missing now."""
        if self.is_committed:
            return self
        changes = tuple(
            self._restage(change) if self._is_missing(change) else change for change in self.changes
        )
        if changes == self.changes:
            return self
        restaged = replace(self, changes=changes)
        restaged.write_record()
        return restaged

    def _is_missing(self, change: FileChange) -> bool:
        if change.new is None or change.staged is None or self._exists(change.staged):
            return False
        return read_identity(self.path_for(change)) is None or self._read_content(change) != change.new

    def _restage(self, change: FileChange) -> FileChange:
        return _stage_change(change, self.path_for(change), change.new or b"")

    def _has_old_or_new_content(self, change: FileChange) -> bool:
        identity = read_identity(self.path_for(change))
        return identity is None or self._has_old_content(change) or self._read_content(change) == change.new

    def _has_old_content(self, change: FileChange) -> bool:
        identity = read_identity(self.path_for(change))
        if identity is None or identity == change.replaces:
            return identity == change.replaces
        return (change.old is not None and self._read_content(change) == change.old) or self._is_half_written(
            change
        )

    def _is_half_written(self, change: FileChange) -> bool:
        """True if a file has the content of a write in place that was cut off at any byte or block."""
        if change.old is None or not (change.in_place or change.new is None):
            return False
        content, new = self._read_content(change) or b"", change.new if change.new is not None else BLANK
        # Shorter content is padded with spaces before the file is truncated. An unwritten block is zero.
        byte_rows = zip_longest(content, new, change.old, fillvalue=0x20)
        return content != change.old and all(
            byte in {new_byte, old_byte, 0} for byte, new_byte, old_byte in byte_rows
        )

    def _read_content(self, change: FileChange) -> bytes | None:
        return read_private(self.path_for(change))

    def _exists(self, name: str) -> bool:
        return read_identity(self._path_in_folder(name)) is not None

    def _path_in_folder(self, name: str) -> str:
        return os.path.join(self.folder, name)


def begin_commit(
    record_path: StrPath, contents: Mapping[str, bytes | None], login_id: str | None = None
) -> Commit:
    """Write new files under temporary names, then the record; the caller holds the lock.

    `contents` maps file names to contents, in the order of writing; None removes a file. The last content is
    not None. Raises StoreUnwritable; then nothing has changed.
    """
    record: str = os.fspath(record_path)
    folder = os.path.dirname(record)
    changes: list[FileChange] = []
    try:
        for name, new in contents.items():
            path = os.path.join(folder, name)
            replaces, old = read_identity(path), None
            with suppress(StoreError):
                old = read_private(path)
            change = FileChange(name, new, None, None, replaces, old)
            changes.append(change if new is None else _stage_change(change, path, new))
        commit = Commit(folder, record, tuple(changes), login_id)
        commit.write_record()
    except StoreError:
        for change in changes:
            if change.staged is not None:
                with suppress(StoreError):
                    remove_file(os.path.join(folder, change.staged))
        raise
    return commit


def _stage_change(change: FileChange, path: str, new_content: bytes) -> FileChange:
    staged, status = stage_private(path, new_content)
    wrote = status.st_ino, status.st_size, status.st_mtime_ns
    return replace(change, staged=os.path.basename(staged), wrote=wrote, in_place=False)


def read_record(record_path: StrPath) -> Commit | None:
    """Read a record; None if there is none. Raises StoreCorrupt, StoreUnsafe, StoreUnwritable."""
    data = read_private(record_path, MAX_RECORD_BYTES)
    if data is None:
        return None
    path: str = os.fspath(record_path)
    changes, login_id = decode_record(data, path)
    return Commit(os.path.dirname(path), path, changes, login_id)
