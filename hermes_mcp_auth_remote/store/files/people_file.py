"""The users that administrators have admitted in a chat, `HERMES_HOME/mcp-auth-people.json`, mode 0600.

config.yaml belongs to the operator, and this package never writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from hermes_mcp_auth_remote.errors import StoreCorrupt
from hermes_mcp_auth_remote.store.codec import decode_document, encode_document
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.store.files.private_files import (
    ensure_private_directory,
    has_directory,
    read_private,
    write_private,
)
from hermes_mcp_auth_remote.store.json_fields import FORMAT_VERSION, DocumentReader

FILE_NAME = "mcp-auth-people.json"
# Under the lock, a process reads and writes one small file.
LOCK_TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Person:
    """An admitted user of a platform. `admitted_by` is a user's id, or "" for the operator's terminal.

    `admitted_at` is in epoch seconds.
    """

    platform: str
    user_id: str
    is_admin: bool
    admitted_by: str
    admitted_at: float


class PeopleFile:
    """The admitted users of one HERMES_HOME. Any thread or process may use it."""

    def __init__(self, home: Path) -> None:
        self._path = home / FILE_NAME

    def list_all(self) -> list[Person]:
        """Return all admitted users; raises StoreCorrupt, StoreUnsafe, StoreUnwritable."""
        data = read_private(self._path)
        if data is None:
            return []
        reader = DocumentReader(decode_document(data, str(self._path)), str(self._path))
        reader.check_version()
        people = reader.document.get("people")
        if not isinstance(people, list):
            raise StoreCorrupt(f"{self._path}: `people` is missing or of the wrong kind.")
        return [self._read_person(person) for person in cast("list[object]", people)]

    def change(self, apply_change: Callable[[list[Person]], Iterable[Person]]) -> list[Person]:
        """Read, change and write the users in one step; return them. Raises StoreBusy, StoreError.

        Creates a missing HERMES_HOME. The mode of an existing one is Hermes's own.
        """
        if not has_directory(self._path.parent):
            ensure_private_directory(self._path.parent)
        with FileLock(self._path.with_suffix(".lock")).hold(LOCK_TIMEOUT_SECONDS):
            before = self.list_all()
            after = list(apply_change(before))
            if after != before:
                people = [asdict(person) for person in after]
                write_private(self._path, encode_document({"version": FORMAT_VERSION, "people": people}))
        return after

    def _read_person(self, document: object) -> Person:
        reader = DocumentReader(document, str(self._path))
        return Person(
            reader.string("platform"),
            reader.string("user_id"),
            reader.boolean("is_admin"),
            reader.string("admitted_by"),
            reader.number("admitted_at"),
        )
