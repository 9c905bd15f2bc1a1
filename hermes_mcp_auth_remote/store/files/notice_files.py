"""Whom we have told that a session needs a person, `mcp-tokens/logins/.notices.json`: once, over restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from hermes_mcp_auth_remote.errors import StoreCorrupt
from hermes_mcp_auth_remote.store.codec import from_bytes, to_bytes
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.store.files.private_files import (
    has_directory,
    private_directory,
    read_private,
    write_private,
)
from hermes_mcp_auth_remote.store.json_fields import VERSION, Members
from hermes_mcp_auth_remote.values import Key

# A change is one small file's read and write.
LOCK_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one user about one session; `message` is its id, empty until the platform gave one.

    `is_over` says whether the session had ended then, or was about to. `of_tokens` (None where nothing is
    known) tells the tokens that it was about from any that came later. `at` is when we set about writing it.
    Both are in epoch seconds.
    """

    platform: str
    user: str
    key: Key
    is_over: bool
    at: float
    of_tokens: float | None = None
    message: str = ""

    @property
    def about(self) -> tuple[str, str, Key]:
        """Who was told about which session: there is one notice for each."""
        return self.platform, self.user, self.key


class NoticeFile:
    """The notices below `root` (`HERMES_HOME/mcp-tokens`). Any thread or process may use it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "logins"
        self._path = self._folder / ".notices.json"

    def all(self) -> list[Notice]:
        """Return all of them; raises StoreCorrupt, StoreUnsafe, StoreUnwritable."""
        if not (has_directory(self._root) and has_directory(self._folder)):
            return []
        data = read_private(self._path)
        return [] if data is None else _read(data, str(self._path))

    def change(self, change: Callable[[list[Notice]], Iterable[Notice]]) -> None:
        """Read, change and write them in one step; nothing is written where nothing changes.

        What `change` raises is passed on. Raises StoreBusy and the other StoreErrors.
        """
        private_directory(self._root)
        private_directory(self._folder)
        with FileLock(self._folder / ".notices.lock").hold(LOCK_SECONDS):
            before = self.all()
            after = list(change(before))
            if after != before:
                document = {"version": VERSION, "notices": [asdict(notice) for notice in after]}
                write_private(self._path, to_bytes(document))


def _read(data: bytes, path: str) -> list[Notice]:
    members = Members(from_bytes(data, path), path)
    members.check_version()
    listed = members.all.get("notices")
    if not isinstance(listed, list):
        raise StoreCorrupt(f"{path}: `notices` is missing or of the wrong kind.")
    return [_notice(Members(each, path)) for each in cast("list[object]", listed)]


def _notice(members: Members) -> Notice:
    key = members.part("key")
    return Notice(
        members.text("platform"),
        members.text("user"),
        Key(key.text("server"), key.maybe_text("owner")),
        members.flag("is_over"),
        members.number("at"),
        members.maybe_number("of_tokens"),
        members.text("message"),
    )
