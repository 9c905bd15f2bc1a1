"""Several files replaced as one: all of them or none, whenever the process is killed.

A login consists of a binding, a client, metadata, perhaps a key, and tokens. `begin` writes each new file
under a temporary name and then, with one rename, the record `.<stem>.pending.tmp`: the new contents, the old
contents, and the identity of each file that is replaced. `complete` renames the files to their places, the
tokens last; `end` removes the record. All of that happens under the lock of the credentials. Therefore a
record that a holder of the lock finds belongs to a process that died, and `settling` completes the work or
takes it back.

Whether the last file was committed is known exactly: the rename that puts it in place takes its temporary
name away. If that name is gone, only the record is left to remove, whatever the files hold by now.

Other programs write the same files and do not know the record: Hermes, which renames its files and takes no
lock (0.19), and versions of this program from before the record existed. What they may do between the death
and the completion, and what happens then:

- Nothing: the login is completed.
- Hermes refreshes the old tokens. The tokens file is neither the old one nor ours: the login is taken back,
  so that the old client lies beside the tokens that belong to it.
- Hermes refreshes the new tokens. The temporary name of the tokens is gone: the files stay as they are.
- Hermes drops the client because the server refused it beside the old tokens. The client file is missing and
  the tokens file is the old one: the login is completed, and the client is written again.
- Hermes logs in: it removes the tokens, then writes client, metadata and tokens. The tokens file is missing,
  or a client or metadata file is neither old nor ours: the login is taken back. The files of Hermes stay.
- An old version of this program refreshes: as with Hermes.
- An old version logs in: as with Hermes. Files that it wrote stay, even if their content equals ours,
  because inode and time tell them from ours.
- An old version logs out: it removes each file of the stem that ends in `.tmp`, so the record and the new
  files go as well.
- An old version, or this one, declares the login failed: `settling` takes it back.
- A program changes mode, owner or times of a file: its content is the old one, and the login is completed.

Taking back means: each file that is still the one that we wrote gets its old content again, the last one
first. A process that dies while it completes or takes back leaves the record, and the next holder of the lock
goes on.

A file that cannot be replaced by a rename (a bind mount gives EBUSY, some file systems EXDEV or EPERM) is
written in place, after the record says so. Its temporary file and the record are the recovery copies: a
mixture of old and new bytes is half of such a write, and is written again. RFC 9700 section 4.14.2.
"""

# Plain strings: this is called for each file of a login, and `disk` speaks of paths as strings, too.
# ruff: noqa: PTH118, PTH119, PTH120

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import zip_longest

from hermes_mcp_auth_remote.errors import StoreError
from hermes_mcp_auth_remote.store.files.commit_record import (
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
    """Files of one folder that are replaced together, in this order; `login_id` is what brought them."""

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
        """True if no other program has written any of the files since. Raises StoreError."""
        return self._has_old_content(self.changes[-1]) and all(
            self._has_old_or_new_content(part) for part in self.changes[:-1]
        )

    def complete(self) -> Commit:
        """Put every file that is not there yet in its place; returns what the record says then.

        Raises StoreError; may be repeated.
        """
        commit = self._restage_missing()
        for number, part in enumerate(commit.changes):
            if number == len(self.changes) - 1:
                # A disk that loses power must not keep the last file and lose one of the others.
                sync_directory(self.folder)
            if part.staged is None:
                remove_or_blank(self.path_for(part))
            elif self._exists(part.staged):
                try:
                    replace_staged(self._path_in_folder(part.staged), self.path_for(part))
                except NotReplaceable:
                    commit = commit.write_in_place(number)
        sync_directory(self.folder)
        return commit

    def write_in_place(self, index: int) -> Commit:
        """Write a file that cannot be replaced; returns what the record says then. Raises StoreError."""
        part = replace(self.changes[index], in_place=True)
        commit = replace(self, changes=(*self.changes[:index], part, *self.changes[index + 1 :]))
        commit.write_record()
        overwrite_private(self.path_for(part), part.new or b"")
        remove_file(self._path_in_folder(part.staged or ""))
        return commit

    def roll_back(self) -> None:
        """Give each file that is still ours its old content again. Raises StoreError; may be repeated."""
        is_old_session = self._has_old_content(self.changes[-1])
        for part in reversed(self.changes):
            is_done = part.staged is None or not self._exists(part.staged)
            if read_identity(self.path_for(part)) is None:
                # Removed by us, or by a program that met our client beside the old tokens.
                is_restored = is_done and is_old_session and part.old is not None
            else:
                is_restored = self.has_written(part) or self._is_half_written(part)
            if is_restored:
                self._restore_old_content(part)

    def delete_record(self) -> None:
        """Remove the record, and then what is left of the new files. Raises StoreUnwritable."""
        remove_file(self.record_path)
        sync_directory(self.folder)
        for part in self.changes:
            if part.staged is not None:
                with suppress(StoreError):
                    remove_file(self._path_in_folder(part.staged))

    def path_for(self, change: FileChange) -> str:
        """Return the place of a file."""
        return self._path_in_folder(change.name)

    def has_written(self, change: FileChange) -> bool:
        """True if a file is the very one that this commit wrote. Raises StoreError."""
        identity = read_identity(self.path_for(change))
        if change.new is None or identity is None:
            return False
        is_same = change.in_place or identity[:3] == change.wrote
        return is_same and self._read_content(change) == change.new != change.old

    def write_record(self) -> None:
        """Write the record; from here on the commit survives this process. Raises StoreUnwritable."""
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
        """Make a new file again for each that was put in its place and is not there any more."""
        if self.is_committed:
            return self
        parts = tuple(self._restage(part) if self._is_missing(part) else part for part in self.changes)
        if parts == self.changes:
            return self
        again = replace(self, changes=parts)
        again.write_record()
        return again

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
        """True for what a write in place leaves if it is cut off, at any byte or block."""
        if change.old is None or not (change.in_place or change.new is None):
            return False
        content, new = self._read_content(change) or b"", change.new if change.new is not None else BLANK
        # Shorter content is padded with spaces before it is cut; a block that was not written yet is zero.
        rows = zip_longest(content, new, change.old, fillvalue=0x20)
        return content != change.old and all(byte in {a, b, 0} for byte, a, b in rows)

    def _read_content(self, change: FileChange) -> bytes | None:
        return read_private(self.path_for(change))

    def _exists(self, name: str) -> bool:
        return read_identity(self._path_in_folder(name)) is not None

    def _path_in_folder(self, name: str) -> str:
        return os.path.join(self.folder, name)


def begin_commit(
    record_path: StrPath, contents: Mapping[str, bytes | None], login_id: str | None = None
) -> Commit:
    """Write new files under temporary names, and the record; the caller holds the lock. None removes a file.

    `contents` is by file name, in the order of writing; the last one is not None. Raises StoreUnwritable, and
    nothing has changed then.
    """
    path_of_record: str = os.fspath(record_path)
    folder = os.path.dirname(path_of_record)
    parts: list[FileChange] = []
    try:
        for name, new in contents.items():
            path = os.path.join(folder, name)
            replaces, old = read_identity(path), None
            with suppress(StoreError):
                old = read_private(path)
            part = FileChange(name, new, None, None, replaces, old)
            parts.append(part if new is None else _stage_change(part, path, new))
        commit = Commit(folder, path_of_record, tuple(parts), login_id)
        commit.write_record()
    except StoreError:
        for part in parts:
            if part.staged is not None:
                with suppress(StoreError):
                    remove_file(os.path.join(folder, part.staged))
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
    parts, login_id = decode_record(data, path)
    return Commit(os.path.dirname(path), path, parts, login_id)
