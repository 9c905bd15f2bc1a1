"""The record of files that are replaced together (`commit`): what it says of each, as values and as JSON."""

# ruff: noqa: PTH119

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import cast

from hermes_mcp_auth_remote.errors import StoreCorrupt, StoreError, StoreUnwritable
from hermes_mcp_auth_remote.store import MAX_FILE_BYTES
from hermes_mcp_auth_remote.store.codec import decode_document
from hermes_mcp_auth_remote.store.files.private_files import (
    NotReplaceable,
    StrPath,
    overwrite_private,
    read_private,
    remove_file,
)
from hermes_mcp_auth_remote.store.json_fields import FORMAT_VERSION, DocumentReader

# inode, size, mtime_ns, ctime_ns.
FileIdentity = tuple[int, int, int, int]

# Stands for a missing file where a mount point cannot be removed; it is no JSON of any credentials.
BLANK = b"{}"
# Old and new contents of five files of 1 MiB, each byte written as six (`\\u0000`).
MAX_RECORD_BYTES = 10 * 6 * MAX_FILE_BYTES


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file: its name, its new content (None: remove it), and what it replaces.

    `staged` is the temporary name of the new file, `wrote` its inode, size and mtime_ns. `replaces` is the
    identity of the old file, None if there was none; `old` is None also if that file was unreadable. If
    `in_place` is true, the old file is written over.
    """

    name: str
    # These hold secrets.
    new: bytes | None = field(repr=False)
    staged: str | None
    wrote: tuple[int, ...] | None
    replaces: tuple[int, ...] | None
    old: bytes | None = field(repr=False)
    in_place: bool = False


def decode_record(data: bytes, path: str) -> tuple[tuple[FileChange, ...], str | None]:
    """Read a record's content: the parts and the login. Raises StoreCorrupt naming the path."""
    members = DocumentReader(decode_document(data, path), path)
    members.check_version()
    listed = members.document.get("parts")
    if not isinstance(listed, list) or not listed:
        raise StoreCorrupt(f"{path} lists no files.")
    parts = tuple(_read_change(DocumentReader(part, path), path) for part in cast("list[object]", listed))
    return parts, members.optional_string("login_id")


def _read_change(members: DocumentReader, path: str) -> FileChange:
    name, staged = members.string("name"), members.optional_string("staged")
    if any(os.path.basename(each) != each for each in (name, staged or "")):
        raise StoreCorrupt(f"{path} names a file of another folder.")
    return FileChange(
        name,
        _encode_content(members.optional_string("new")),
        staged,
        _int_tuple(members.document.get("wrote")),
        _int_tuple(members.document.get("replaces")),
        _encode_content(members.optional_string("old")),
        in_place=members.boolean("in_place"),
    )


def _int_tuple(value: object) -> tuple[int, ...] | None:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return tuple(item for item in items if isinstance(item, int)) or None


def encode_record(changes: tuple[FileChange, ...], login_id: str | None) -> bytes:
    """Write a record's content, which `read_parts` reads."""
    documents = [
        asdict(part) | {"new": _decode_content(part.new), "old": _decode_content(part.old)}
        for part in changes
    ]
    return json.dumps({"version": FORMAT_VERSION, "login_id": login_id, "parts": documents}).encode()


def _decode_content(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _encode_content(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogateescape")


def read_identity(path: StrPath) -> FileIdentity | None:
    """Return what tells a file from its successor, None if there is none. Raises StoreUnwritable."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreUnwritable(f"{os.fspath(path)} is out of reach: {error.strerror}.") from error
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def remove_or_blank(path: StrPath) -> bool:
    """Remove a file, or blank a mount point; True if something was there. Raises StoreUnwritable."""
    try:
        return remove_file(path)
    except NotReplaceable:
        was_there = read_private(path) != BLANK
        overwrite_private(path, BLANK)
        return was_there


def is_blank(path: StrPath) -> bool:
    """True if a file stands for a missing one; False also if it cannot be read."""
    try:
        # Reading each file would cost more than one look at its size.
        return os.lstat(path).st_size == len(BLANK) and read_private(path) == BLANK
    except (OSError, StoreError):
        return False
