"""The record of files that are replaced together (`login_commit`): its values and its JSON document."""

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
    advice_for,
    overwrite_private,
    read_private,
    remove_file,
)
from hermes_mcp_auth_remote.store.json_fields import FORMAT_VERSION, DocumentReader

# inode, size, mtime_ns, ctime_ns.
FileIdentity = tuple[int, int, int, int]

# The content of a mount point that cannot be removed. It means that the file is missing.
BLANK = b"{}"
# Old and new contents of five files of 1 MiB; JSON may write each byte as six (`\\u0000`).
MAX_RECORD_BYTES = 10 * 6 * MAX_FILE_BYTES


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file: its name, its new content (None: remove the file), and the file that it replaces.

    `staged` is the temporary name of the new file; `wrote` is its inode, size and mtime_ns. `replaces` is the
    identity of the old file, or None if there was none. `old` is the content of the old file; it is also
    None if that file was unreadable. If `in_place` is true, the old file is overwritten.
    """

    name: str
    # `new` and `old` contain secrets.
    new: bytes | None = field(repr=False)
    staged: str | None
    wrote: tuple[int, ...] | None
    replaces: tuple[int, ...] | None
    old: bytes | None = field(repr=False)
    in_place: bool = False


def decode_record(data: bytes, path: str) -> tuple[tuple[FileChange, ...], str | None]:
    """Return the changes and the login id of a record; raises StoreCorrupt, which names the path."""
    reader = DocumentReader(decode_document(data, path), path)
    reader.check_version()
    parts = reader.document.get("parts")
    if not isinstance(parts, list) or not parts:
        raise StoreCorrupt(f"{path} lists no files.")
    changes = tuple(_read_change(DocumentReader(part, path), path) for part in cast("list[object]", parts))
    return changes, reader.optional_string("login_id")


def _read_change(reader: DocumentReader, path: str) -> FileChange:
    name, staged = reader.string("name"), reader.optional_string("staged")
    if any(os.path.basename(file_name) != file_name for file_name in (name, staged or "")):
        raise StoreCorrupt(f"{path} names a file of another folder.")
    return FileChange(
        name,
        _encode_content(reader.optional_string("new")),
        staged,
        _int_tuple(reader.document.get("wrote")),
        _int_tuple(reader.document.get("replaces")),
        _encode_content(reader.optional_string("old")),
        in_place=reader.boolean("in_place"),
    )


def _int_tuple(value: object) -> tuple[int, ...] | None:
    items = cast("list[object]", value) if isinstance(value, list) else []
    return tuple(item for item in items if isinstance(item, int)) or None


def encode_record(changes: tuple[FileChange, ...], login_id: str | None) -> bytes:
    """Return the content of a record, which `decode_record` reads."""
    documents = [
        asdict(change) | {"new": _decode_content(change.new), "old": _decode_content(change.old)}
        for change in changes
    ]
    return json.dumps({"version": FORMAT_VERSION, "login_id": login_id, "parts": documents}).encode()


def _decode_content(data: bytes | None) -> str | None:
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _encode_content(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogateescape")


def read_identity(path: StrPath) -> FileIdentity | None:
    """Return the identity of a file, None if there is no file. Raises StoreUnwritable."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise StoreUnwritable(
            f"{os.fspath(path)} cannot be read: {error.strerror}.", advice_for(error)
        ) from error
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def remove_or_blank(path: StrPath) -> bool:
    """Remove a file, or blank a mount point; True if it had content. Raises StoreUnwritable."""
    try:
        return remove_file(path)
    except NotReplaceable:
        had_content = read_private(path) != BLANK
        overwrite_private(path, BLANK)
        return had_content


def is_blank(path: StrPath) -> bool:
    """True if a file is blank, which means that it is missing; False if it cannot be read."""
    try:
        # Compare the size first: reading each file would cost more.
        return os.lstat(path).st_size == len(BLANK) and read_private(path) == BLANK
    except (OSError, StoreError):
        return False
