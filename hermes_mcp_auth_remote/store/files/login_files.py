"""Pending logins, `mcp-tokens/logins/<id>.json`: any process with the same home can finish them, one does."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

from hermes_mcp_auth_remote.errors import LoginNotFound, StoreBusy, StoreCorrupt, StoreError
from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.store.codec import decode_document, encode_document
from hermes_mcp_auth_remote.store.files.lock import FileLock
from hermes_mcp_auth_remote.store.files.private_files import (
    TEMPORARY_SUFFIX,
    ensure_private_directory,
    has_directory,
    read_private,
    remove_file,
    remove_if_older,
    write_private,
)
from hermes_mcp_auth_remote.store.login_codec import login_document, read_login, without_secrets

# A login that is over stays so long, for whoever still asks how it ended.
RETENTION_SECONDS = 3600
# A change is one small file's read and write.
LOCK_TIMEOUT_SECONDS = 30

# No dot and no slash: an id is a file's name, and it may come from a chat.
_ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{16,64}")
# The lock that a poller holds for as long as it lives; login.polled_by names it.
_POLLER_LOCK_SUFFIX = ".poller"


class LoginFiles:
    """Pending logins below `root` (`HERMES_HOME/mcp-tokens`). Any thread or process may use it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "logins"
        # As last read, by the version of its file: a gateway looks at all of them at every turn.
        self._cached_logins: dict[str, tuple[int, Login]] = {}
        # What this process wrote since, which it need not read.
        self._written_logins: dict[str, tuple[int, Login]] = {}
        # How often somebody has asked for all of them, and up to which of those the last answer goes.
        self._request_numbers = itertools.count(1)
        self._last_served_request = 0
        self._last_listing: list[Login] = []
        self.reset_in_child()
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Let go of what threads of a parent process may have held."""
        self._listing_lock = threading.Lock()
        self._change_lock = threading.Lock()

    def add(self, login: Login) -> None:
        """Store a new login; raises StoreUnwritable, StoreUnsafe."""
        self._prepare_folders()
        self._write(login)

    def get(self, login_id: str) -> Login:
        """Return a login; raises LoginNotFound (also where the id is none), StoreCorrupt, StoreUnsafe."""
        path = self._path(login_id)
        data = read_private(path) if self._has_folders() else None
        if data is None:
            raise LoginNotFound("There is no such login here; it may be over for long.")
        login = read_login(decode_document(data, str(path)), str(path))
        if login.id != login_id:
            raise StoreCorrupt(f"{path} holds another login than its name says.")
        return login

    def change(self, login_id: str, apply_change: Callable[[Login], Login]) -> Login:
        """Read, change and write a login in one step that no other process or thread comes between.

        What `change` raises is passed on, and nothing is written. Raises LoginNotFound, StoreBusy and the
        other StoreErrors.
        """
        self._path(login_id)
        if not self._has_folders():
            raise LoginNotFound("There is no such login here.")
        with self._exclusive_access():
            login = self.get(login_id)
            changed = apply_change(login)
            if changed != login:
                self._write(changed)
        return changed

    def list_all(self) -> list[Login]:
        """Return every login in the order of beginning; a file that cannot be read is left out, and left.

        Threads that ask at once look one after the other, and a look serves all who asked before it began:
        many that look at once would mostly wait for each other's turn to run.
        """
        mine = next(self._request_numbers)
        with self._listing_lock:
            if self._last_served_request < mine:
                # Whoever asks from now on may have written something that this look does not see.
                upto = next(self._request_numbers)
                self._last_listing = self._scan_folder()
                self._last_served_request = upto
            return list(self._last_listing)

    def _scan_folder(self) -> list[Login]:
        if not self._has_folders():
            return []
        written, self._written_logins = self._written_logins, {}
        known, found = {**self._cached_logins, **written}, dict[str, tuple[int, Login]]()
        # No Path for each of thousands: a gateway looks through them at every event.
        with os.scandir(self._folder) as entries:
            for entry in entries:
                stem, _, suffix = entry.name.partition(".")
                if suffix != "json" or not _ID_PATTERN.fullmatch(stem):
                    continue
                version_known, login = known.get(stem, (None, None))
                try:
                    version = _version_of(entry.stat(follow_symlinks=False))
                    if login is None or version != version_known:
                        login = self.get(stem)
                except (StoreError, LoginNotFound, OSError):
                    continue
                found[stem] = version, login
        self._cached_logins = found
        logins = (login for _, login in found.values())
        return sorted(logins, key=lambda login: (login.started_at, login.id))

    def changed_at(self) -> int:
        """Return when a login was last added, changed or removed, in nanoseconds of the disk's clock."""
        try:
            return self._folder.stat().st_mtime_ns
        except OSError:
            return 0

    def version(self, login_id: str) -> int | None:
        """Return a number that is another one after each change, None where there is no such login."""
        try:
            status = self._path(login_id).lstat()
        except OSError:
            return None
        return _version_of(status)

    def register_poller(self, poller_id: str) -> FileLock:
        """Make a poller known; it counts as alive until the lock is released, or the process has ended.

        Raises StoreUnwritable, StoreBusy and the other StoreErrors.
        """
        self._prepare_folders()
        lock = FileLock(self._poller_path(poller_id))
        # Not while another process clears away what dead pollers left.
        with self._exclusive_access():
            if not lock.try_acquire():
                raise StoreBusy(f"{lock.path} is locked by another poller.")
        return lock

    def is_poller_alive(self, poller_id: str) -> bool:
        """True where a poller of that id lives."""
        path = self._poller_path(poller_id)
        if not path.exists():
            return False
        lock = FileLock(path)
        is_free = lock.try_acquire()
        lock.release()
        return not is_free

    def unregister_poller(self, lock: FileLock) -> None:
        """Let a poller count as dead, and clear away its lock, as best it goes."""
        with contextlib.suppress(StoreError):
            remove_file(lock.path)
        lock.release()

    def _poller_path(self, poller_id: str) -> Path:
        if not _ID_PATTERN.fullmatch(poller_id):
            raise StoreCorrupt("A login names a poller that there cannot be.")
        return self._folder / f".{poller_id}{_POLLER_LOCK_SUFFIX}"

    def remove_expired(self, now: float) -> None:
        """Remove what has been over for an hour (`now`: epoch seconds). Raises StoreUnwritable, StoreBusy."""
        if not self._has_folders():
            return
        with self._exclusive_access():
            for login in self.list_all():
                if login.expires_at + RETENTION_SECONDS < now:
                    remove_file(self._path(login.id))
            # By the disk's clock, not by ours: a file that is being written just now is not old.
            old = self._folder.stat().st_mtime - RETENTION_SECONDS
            for path in list(self._folder.iterdir()):
                # Left behind by a writer that was killed.
                if path.name.endswith(TEMPORARY_SUFFIX):
                    remove_if_older(path, old)

    def _path(self, login_id: str) -> Path:
        if not _ID_PATTERN.fullmatch(login_id):
            raise LoginNotFound("That is no login's id.")
        return self._folder / f"{login_id}.json"

    @contextlib.contextmanager
    def _exclusive_access(self) -> Generator[None]:
        """Keep other threads and processes from changing anything meanwhile; raises StoreBusy.

        Threads take turns before they ask for the file's lock, at which all but one would poll.
        """
        lock, deadline = FileLock(self._folder / ".lock"), time.monotonic() + LOCK_TIMEOUT_SECONDS
        if not self._change_lock.acquire(timeout=LOCK_TIMEOUT_SECONDS):
            raise StoreBusy(f"{lock.path} has been locked by this process for {LOCK_TIMEOUT_SECONDS} s.")
        try:
            with lock.hold(deadline - time.monotonic()):
                yield
        finally:
            self._change_lock.release()

    def _has_folders(self) -> bool:
        return has_directory(self._root) and has_directory(self._folder)

    def _prepare_folders(self) -> None:
        ensure_private_directory(self._root)
        ensure_private_directory(self._folder)

    def _write(self, login: Login) -> None:
        kept = without_secrets(login) if login.is_over else login
        status = write_private(self._path(login.id), encode_document(login_document(kept)))
        if self._last_served_request:
            # Somebody looks, again and again.
            self._written_logins[login.id] = _version_of(status), kept


def _version_of(status: os.stat_result) -> int:
    return status.st_mtime_ns << 64 | status.st_ino
