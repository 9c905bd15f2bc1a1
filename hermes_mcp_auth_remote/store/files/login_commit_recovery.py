"""Complete or roll back the commit of a process that died (`login_commit`), under the credentials' lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hermes_mcp_auth_remote.errors import LoginError, StoreCorrupt, StoreError
from hermes_mcp_auth_remote.login import apply_event
from hermes_mcp_auth_remote.store.codec import PREVIOUS_BINDING_MEMBER, decode_document, encode_document
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.store.files.login_commit import Commit, read_record
from hermes_mcp_auth_remote.store.files.login_files import LoginFiles
from hermes_mcp_auth_remote.store.files.paths import BINDING
from hermes_mcp_auth_remote.store.files.private_files import StrPath, read_private, remove_file, write_private


class RecoveringLock(FileLock):
    """The lock of one server's credentials. It recovers a half-stored login when it is acquired.

    If the disk refuses the recovery, the record stays and the holder reads the files as they are.
    """

    def __init__(self, path: StrPath, recover: Callable[[], None]) -> None:
        super().__init__(path)
        self._recover = recover

    def try_acquire(self) -> bool:
        """Take the lock at once, or return False if it is held. Raises StoreUnsafe, StoreUnwritable."""
        if not super().try_acquire():
            return False
        try:
            with suppress(StoreError):
                self._recover()
        except BaseException:
            self.release()
            raise
        return True


def recover_commit(record_path: Path, logins: LoginFiles) -> None:
    """Complete the login of a record, or roll it back; the caller holds the lock. Raises StoreError.

    A login that was declared failed in the meantime is rolled back: its user has been told.
    """
    try:
        commit = read_record(record_path)
    except StoreCorrupt:
        if not _has_later_version(record_path):
            remove_file(record_path)
        raise
    if commit is None:
        return
    if commit.is_committed:
        finish_commit(commit)
    elif not _has_login_failed(commit.login_id, logins) and commit.can_complete():
        finish_commit(commit.complete())
    else:
        commit.roll_back()
        commit.delete_record()
        return
    if commit.login_id is not None:
        with suppress(StoreError, LoginError):
            logins.change(commit.login_id, lambda login: apply_event(login, "succeed"))


def finish_commit(commit: Commit) -> None:
    """Remove the previous binding from the new binding's file, then the record of the complete commit."""
    with suppress(StoreError):
        for change in commit.changes:
            path = commit.path_for(change)
            if change.name.endswith(BINDING) and commit.has_written(change):
                document = decode_document(read_private(path) or b"", path)
                if document.get(PREVIOUS_BINDING_MEMBER) is not None:
                    without_previous = {
                        name: value for name, value in document.items() if name != PREVIOUS_BINDING_MEMBER
                    }
                    write_private(path, encode_document(without_previous))
    commit.delete_record()


def _has_later_version(record_path: Path) -> bool:
    try:
        version = decode_document(read_private(record_path) or b"", os.fspath(record_path)).get("version")
    except StoreError:
        return False
    return isinstance(version, int) and version > 1


def _has_login_failed(login_id: str | None, logins: LoginFiles) -> bool:
    if login_id is None:
        return False
    try:
        login = logins.get(login_id)
    except (StoreError, LoginError):
        # The login cannot be read, perhaps because it was removed. Treat it as not failed.
        return False
    return login.is_over and login.status != "done"
