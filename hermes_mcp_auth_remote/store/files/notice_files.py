"""Whom we have told that a session needs a person, `mcp-tokens/logins/.notices.json`: once, over restarts."""

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
from hermes_mcp_auth_remote.values import CredentialKey

# A change is one small file's read and write.
LOCK_TIMEOUT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one user about one session; `message` is its id, empty until the platform gave one.

    `is_over` says whether the session had ended then, or was about to. `of_tokens` (None where nothing is
    known) tells the tokens that it was about from any that came later. `at` is when we set about writing it.
    Both are in epoch seconds.
    """

    platform: str
    user: str
    key: CredentialKey
    is_over: bool
    at: float
    of_tokens: float | None = None
    message: str = ""

    @property
    def deduplication_key(self) -> tuple[str, str, CredentialKey]:
        """Who was told about which session: there is one notice for each."""
        return self.platform, self.user, self.key


class NoticeFile:
    """The notices below `root` (`HERMES_HOME/mcp-tokens`). Any thread or process may use it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "logins"
        self._path = self._folder / ".notices.json"

    def list_all(self) -> list[Notice]:
        """Return all of them; raises StoreCorrupt, StoreUnsafe, StoreUnwritable."""
        if not (has_directory(self._root) and has_directory(self._folder)):
            return []
        data = read_private(self._path)
        return [] if data is None else _read_notices(data, str(self._path))

    def change(self, apply_change: Callable[[list[Notice]], Iterable[Notice]]) -> None:
        """Read, change and write them in one step; nothing is written where nothing changes.

        What `change` raises is passed on. Raises StoreBusy and the other StoreErrors.
        """
        ensure_private_directory(self._root)
        ensure_private_directory(self._folder)
        with FileLock(self._folder / ".notices.lock").hold(LOCK_TIMEOUT_SECONDS):
            before = self.list_all()
            after = list(apply_change(before))
            if after != before:
                document = {
                    "version": FORMAT_VERSION,
                    "notices": [_notice_document(notice) for notice in after],
                }
                write_private(self._path, encode_document(document))


def _notice_document(notice: Notice) -> dict[str, object]:
    return asdict(notice) | {"key": {"server": notice.key.server_name, "owner": notice.key.owner}}


def _read_notices(data: bytes, path: str) -> list[Notice]:
    members = DocumentReader(decode_document(data, path), path)
    members.check_version()
    listed = members.document.get("notices")
    if not isinstance(listed, list):
        raise StoreCorrupt(f"{path}: `notices` is missing or of the wrong kind.")
    return [_read_notice(DocumentReader(each, path)) for each in cast("list[object]", listed)]


def _read_notice(members: DocumentReader) -> Notice:
    key = members.child("key")
    return Notice(
        members.string("platform"),
        members.string("user"),
        CredentialKey(key.string("server"), key.optional_string("owner")),
        members.boolean("is_over"),
        members.number("at"),
        members.optional_number("of_tokens"),
        members.string("message"),
    )
