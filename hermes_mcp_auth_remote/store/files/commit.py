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
    Part,
    find_identity,
    read_parts,
    record_bytes,
    remove_or_blank,
)
from hermes_mcp_auth_remote.store.files.private_files import (
    NotReplaceable,
    Place,
    overwrite_private,
    read_private,
    remove,
    replace_staged,
    stage_private,
    sync_directory,
    write_private,
)


@dataclass(frozen=True, slots=True)
class Commit:
    """Files of one folder that are replaced together, in this order; `login_id` is what brought them."""

    folder: str
    record: str
    parts: tuple[Part, ...]
    login_id: str | None = None

    @property
    def is_committed(self) -> bool:
        """True if the last file has been renamed to its place."""
        staged = self.parts[-1].staged
        return staged is not None and not self._exists(staged)

    def can_complete(self) -> bool:
        """True if no other program has written any of the files since. Raises StoreError."""
        return self._is_old(self.parts[-1]) and all(self._is_known(part) for part in self.parts[:-1])

    def complete(self) -> Commit:
        """Put every file that is not there yet in its place; returns what the record says then.

        Raises StoreError; may be repeated.
        """
        commit = self._stage_again()
        for number, part in enumerate(commit.parts):
            if number == len(self.parts) - 1:
                # A disk that loses power must not keep the last file and lose one of the others.
                sync_directory(self.folder)
            if part.staged is None:
                remove_or_blank(self.path(part))
            elif self._exists(part.staged):
                try:
                    replace_staged(self._at(part.staged), self.path(part))
                except NotReplaceable:
                    commit = commit.write_in_place(number)
        sync_directory(self.folder)
        return commit

    def write_in_place(self, number: int) -> Commit:
        """Write a file that cannot be replaced; returns what the record says then. Raises StoreError."""
        part = replace(self.parts[number], in_place=True)
        commit = replace(self, parts=(*self.parts[:number], part, *self.parts[number + 1 :]))
        commit.save()
        overwrite_private(self.path(part), part.new or b"")
        remove(self._at(part.staged or ""))
        return commit

    def take_back(self) -> None:
        """Give each file that is still ours its old content again. Raises StoreError; may be repeated."""
        is_old_session = self._is_old(self.parts[-1])
        for part in reversed(self.parts):
            is_done = part.staged is None or not self._exists(part.staged)
            if find_identity(self.path(part)) is None:
                # Removed by us, or by a program that met our client beside the old tokens.
                is_restored = is_done and is_old_session and part.old is not None
            else:
                is_restored = self.is_ours(part) or self._is_half_written(part)
            if is_restored:
                self._restore(part)

    def end(self) -> None:
        """Remove the record, and then what is left of the new files. Raises StoreUnwritable."""
        remove(self.record)
        sync_directory(self.folder)
        for part in self.parts:
            if part.staged is not None:
                with suppress(StoreError):
                    remove(self._at(part.staged))

    def path(self, part: Part) -> str:
        """Return the place of a file."""
        return self._at(part.name)

    def is_ours(self, part: Part) -> bool:
        """True if a file is the very one that this commit wrote. Raises StoreError."""
        identity = find_identity(self.path(part))
        if part.new is None or identity is None:
            return False
        is_same = part.in_place or identity[:3] == part.wrote
        return is_same and self._content(part) == part.new != part.old

    def save(self) -> None:
        """Write the record; from here on the commit survives this process. Raises StoreUnwritable."""
        write_private(self.record, record_bytes(self.parts, self.login_id))

    def _restore(self, part: Part) -> None:
        path = self.path(part)
        if part.old is None:
            remove_or_blank(path)
            return
        try:
            write_private(path, part.old)
        except NotReplaceable:
            overwrite_private(path, part.old)

    def _stage_again(self) -> Commit:
        """Make a new file again for each that was put in its place and is not there any more."""
        if self.is_committed:
            return self
        parts = tuple(self._restaged(part) if self._is_lost(part) else part for part in self.parts)
        if parts == self.parts:
            return self
        again = replace(self, parts=parts)
        again.save()
        return again

    def _is_lost(self, part: Part) -> bool:
        if part.new is None or part.staged is None or self._exists(part.staged):
            return False
        return find_identity(self.path(part)) is None or self._content(part) != part.new

    def _restaged(self, part: Part) -> Part:
        return _stage(part, self.path(part), part.new or b"")

    def _is_known(self, part: Part) -> bool:
        identity = find_identity(self.path(part))
        return identity is None or self._is_old(part) or self._content(part) == part.new

    def _is_old(self, part: Part) -> bool:
        identity = find_identity(self.path(part))
        if identity is None or identity == part.replaces:
            return identity == part.replaces
        return (part.old is not None and self._content(part) == part.old) or self._is_half_written(part)

    def _is_half_written(self, part: Part) -> bool:
        """True for what a write in place leaves if it is cut off, at any byte or block."""
        if part.old is None or not (part.in_place or part.new is None):
            return False
        content, new = self._content(part) or b"", part.new if part.new is not None else BLANK
        # Shorter content is padded with spaces before it is cut; a block that was not written yet is zero.
        rows = zip_longest(content, new, part.old, fillvalue=0x20)
        return content != part.old and all(byte in {a, b, 0} for byte, a, b in rows)

    def _content(self, part: Part) -> bytes | None:
        return read_private(self.path(part))

    def _exists(self, name: str) -> bool:
        return find_identity(self._at(name)) is not None

    def _at(self, name: str) -> str:
        return os.path.join(self.folder, name)


def begin(record: Place, contents: Mapping[str, bytes | None], login_id: str | None = None) -> Commit:
    """Write new files under temporary names, and the record; the caller holds the lock. None removes a file.

    `contents` is by file name, in the order of writing; the last one is not None. Raises StoreUnwritable, and
    nothing has changed then.
    """
    path_of_record: str = os.fspath(record)
    folder = os.path.dirname(path_of_record)
    parts: list[Part] = []
    try:
        for name, new in contents.items():
            path = os.path.join(folder, name)
            replaces, old = find_identity(path), None
            with suppress(StoreError):
                old = read_private(path)
            part = Part(name, new, None, None, replaces, old)
            parts.append(part if new is None else _stage(part, path, new))
        commit = Commit(folder, path_of_record, tuple(parts), login_id)
        commit.save()
    except StoreError:
        for part in parts:
            if part.staged is not None:
                with suppress(StoreError):
                    remove(os.path.join(folder, part.staged))
        raise
    return commit


def _stage(part: Part, path: str, new: bytes) -> Part:
    staged, status = stage_private(path, new)
    wrote = status.st_ino, status.st_size, status.st_mtime_ns
    return replace(part, staged=os.path.basename(staged), wrote=wrote, in_place=False)


def read_record(record: Place) -> Commit | None:
    """Read a record; None if there is none. Raises StoreCorrupt, StoreUnsafe, StoreUnwritable."""
    data = read_private(record, MAX_RECORD_BYTES)
    if data is None:
        return None
    path: str = os.fspath(record)
    parts, login_id = read_parts(data, path)
    return Commit(os.path.dirname(path), path, parts, login_id)
