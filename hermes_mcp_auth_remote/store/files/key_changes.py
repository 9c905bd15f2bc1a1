"""Find the stored credentials that have changed since the last scan, with one `stat` per folder.

Programs replace a file by a rename, which changes the times of its folder. So the files of a folder with the
same times as before are not scanned. A bind-mounted file is written in place. A commit then keeps a copy
beside the file, which also changes the times of the folder.
"""

# Path objects cost more than the system calls, and there may be ten thousand folders.
# ruff: noqa: PTH118

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from hermes_mcp_auth_remote.errors import StoreError, StoreUnwritable
from hermes_mcp_auth_remote.hermes_home import is_settled
from hermes_mcp_auth_remote.store.files.paths import COMMIT_RECORD, OWNERS_FOLDER, TOKENS, owner_from_folder
from hermes_mcp_auth_remote.store.files.private_files import advice_for, has_directory
from hermes_mcp_auth_remote.values import CredentialKey, Owner

_FolderVersion = tuple[int, int, int]
# Another program may write a file in place. After this time, scan the files of all folders again.
FULL_SCAN_SECONDS = 3600.0


class KeyFiles(Protocol):
    """The files of a store, as `FileStore` has them."""

    @property
    def root(self) -> Path:
        """The folder of the operator's files."""
        ...

    def read(self, key: CredentialKey) -> object:
        """Read the credentials of a key; completes or rolls back a half-stored login."""
        ...

    def key_for_stem(self, folder: str, stem: str, owner: Owner) -> CredentialKey | None:
        """Return the key of the files with a stem, None if no key has these files."""
        ...


@dataclass(slots=True)
class _Folder:
    """The last scan of an owner's folder. `version` is None if a later change could leave the same times."""

    owner: Owner
    version: _FolderVersion | None = None
    # The hash of the names and versions of the files, by stem.
    files: dict[str, int] = field(default_factory=dict[str, int])
    keys: dict[str, CredentialKey] = field(default_factory=dict[str, CredentialKey])


class FileKeyChanges:
    """Finds the keys whose stored files were added, changed or removed. Use it in one thread at a time."""

    def __init__(self, store: KeyFiles) -> None:
        self._store = store
        self._root = str(store.root)
        self.forget()

    def forget(self) -> None:
        """Let the next call of `poll` return all stored keys."""
        self._folders: dict[str, _Folder] = {}
        self._next_full_scan_at = 0.0
        # The keys that the next successful call returns: an earlier call may find some and then fail.
        self._changed = set[CredentialKey]()

    def poll(self) -> set[CredentialKey]:
        """Return the keys that have changed since the last call; all stored keys at the first call.

        Raises StoreUnsafe, StoreUnwritable.
        """
        # This refuses a folder that other users can change.
        has_directory(self._root)
        if time.monotonic() >= self._next_full_scan_at:
            self._next_full_scan_at = time.monotonic() + FULL_SCAN_SECONDS
            for known_folder in self._folders.values():
                known_folder.version = None
        current_names, now_ns = set[str](), time.time_ns()
        for name, path, version in self._list_folders():
            current_names.add(name)
            folder = self._folders.get(name)
            if folder is not None and folder.version == version:
                continue
            if folder is None:
                folder = self._folders[name] = _Folder(owner_from_folder(name) if name else None)
            if name and folder.owner is None:
                # This folder belongs to no owner.
                folder.version = version
                continue
            self._scan_folder(folder, path)
            folder.version = version if is_settled(max(version[:2]), now_ns) else None
        for name in self._folders.keys() - current_names:
            self._changed.update(self._folders.pop(name).keys.values())
        changed, self._changed = self._changed, set[CredentialKey]()
        return changed

    def _list_folders(self) -> Iterator[tuple[str, str, _FolderVersion]]:
        """Yield the name ("" for the operator's), the path and the version of each folder."""
        try:
            yield "", self._root, _version_of(os.stat(self._root, follow_symlinks=False))  # noqa: PTH116
            with os.scandir(os.path.join(self._root, OWNERS_FOLDER)) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        yield entry.name, entry.path, _version_of(entry.stat(follow_symlinks=False))
        except (FileNotFoundError, NotADirectoryError):
            return

    def _scan_folder(self, folder: _Folder, path: str) -> None:
        """Compare the files in a folder with those of the last scan, and record the changed keys."""
        scan = _scan_files(path)
        for stem in scan.unfinished_stems:
            # A process was killed while it stored a login. A read completes the commit or rolls it back.
            with suppress(StoreError):
                self._store.read(CredentialKey(stem, folder.owner))
        for stem in folder.files.keys() | scan.files.keys():
            if folder.files.get(stem) == scan.files.get(stem):
                continue
            if (previous_key := folder.keys.pop(stem, None)) is not None:
                self._changed.add(previous_key)
            if stem not in scan.stems_with_tokens:
                continue
            if (key := self._store.key_for_stem(path, stem, folder.owner)) is not None:
                folder.keys[stem] = key
                self._changed.add(key)
        folder.files = scan.files


def _version_of(status: os.stat_result) -> _FolderVersion:
    return status.st_mtime_ns, status.st_ctime_ns, status.st_ino


class _FolderScan(NamedTuple):
    files: dict[str, int]
    stems_with_tokens: set[str]
    unfinished_stems: list[str]


def _scan_files(path: str) -> _FolderScan:
    """Return the files in a folder, by stem; raises StoreUnwritable."""
    versions, stems_with_tokens, unfinished_stems = (
        dict[str, list[tuple[str, int, int, int]]](),
        set[str](),
        list[str](),
    )
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name.startswith("."):
                    if name.endswith(COMMIT_RECORD):
                        unfinished_stems.append(name[1 : -len(COMMIT_RECORD)])
                elif entry.is_file(follow_symlinks=False):
                    stem, dot, extension = name.partition(".")
                    status = entry.stat(follow_symlinks=False)
                    versions.setdefault(stem, []).append(
                        (extension, status.st_mtime_ns, status.st_size, status.st_ino)
                    )
                    if dot + extension == TOKENS:
                        stems_with_tokens.add(stem)
    except (FileNotFoundError, NotADirectoryError):
        return _FolderScan({}, set(), [])
    except OSError as error:
        raise StoreUnwritable(f"{path} cannot be read: {error.strerror}.", advice_for(error)) from error
    files = {stem: hash(tuple(sorted(file_versions))) for stem, file_versions in versions.items()}
    return _FolderScan(files, stems_with_tokens, unfinished_stems)
