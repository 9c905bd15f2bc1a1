"""Pending logins, `mcp-tokens/logins/<id>.json`.

Any process with the same home can complete a login. Each login can be completed only once.
"""

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
from hermes_mcp_auth_remote.hermes_home import is_settled
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
from hermes_mcp_auth_remote.store.protocol import ANY, UNKNOWN, AnyValue, LoginChange, Unknown, Version
from hermes_mcp_auth_remote.values import Owner

# A login that is over stays this long, so that callers can still ask for its result.
RETENTION_SECONDS = 3600
# A process holds the lock only while it reads and writes small files.
LOCK_TIMEOUT_SECONDS = 30

# No dot and no slash: an id is a file name, and it may come from a chat.
_ID_PATTERN = re.compile(r"[A-Za-z0-9_-]{16,64}")
# A poller holds this lock as long as it lives. `Login.polled_by` is the id of the poller.
_POLLER_LOCK_SUFFIX = ".poller"


class LoginFiles:
    """Pending logins below `root` (`HERMES_HOME/mcp-tokens`). Any thread or process may use it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / "logins"
        # Logins as last read, with the version of the file: a gateway lists all logins at every event.
        self._cached_logins: dict[str, tuple[int, Login]] = {}
        # Logins that this process has written since the last listing.
        self._written_logins: dict[str, tuple[int, Login]] = {}
        # `list_all` numbers its calls. The last listing may serve calls up to `_last_served_request`.
        self._request_numbers = itertools.count(1)
        self._last_served_request = 0
        self._last_listing: list[Login] = []
        self.reset_in_child()
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Reset the locks, which threads of the parent process may have held."""
        self._listing_lock = threading.Lock()
        self._change_lock = threading.Lock()

    def add(self, login: Login) -> Version:
        """Store a new login; raises StoreUnwritable, StoreUnsafe."""
        self._prepare_folders()
        return self._write(login)

    def get(self, login_id: str) -> Login:
        """Return a login; raises LoginNotFound (also for an invalid id), StoreCorrupt, StoreUnsafe."""
        path = self._path(login_id)
        data = read_private(path) if self._has_folders() else None
        if data is None:
            raise LoginNotFound("There is no such login here; it may have ended long ago.")
        login = read_login(decode_document(data, str(path)), str(path))
        if login.id != login_id:
            raise StoreCorrupt(f"{path} contains another login than its name says.")
        return login

    def change(self, login_id: str, apply_change: Callable[[Login], Login]) -> LoginChange:
        """Read, change and write a login atomically with respect to other processes and threads.

        `apply_change` is pure (`store.protocol`). If it raises, nothing is written and the exception is
        passed on. Raises LoginNotFound, StoreBusy and the other StoreErrors.
        """
        self._path(login_id)
        if not self._has_folders():
            raise LoginNotFound("There is no such login here; it may have ended long ago.")
        with self._exclusive_access():
            # No process writes the login while this one holds the lock, so this is the version of `login`.
            version = self._read_version(login_id)
            login = self.get(login_id)
            changed = apply_change(login)
            if changed != login or version is None:
                version = self._write(changed)
        return LoginChange(login, changed, version)

    def list_all(self) -> list[Login]:
        """Return every login, ordered by start time; skip files that cannot be read.

        One thread scans the folder at a time, and a scan serves all threads that called before it began. Many
        parallel scans would mostly wait for each other.
        """
        request_number = next(self._request_numbers)
        with self._listing_lock:
            if self._last_served_request < request_number:
                # This scan does not serve later callers: they may have written a login that it misses.
                last_request_served = next(self._request_numbers)
                self._last_listing = self._scan_folder()
                self._last_served_request = last_request_served
            return list(self._last_listing)

    def _scan_folder(self) -> list[Login]:
        if not self._has_folders():
            return []
        written, self._written_logins = self._written_logins, {}
        cached, scanned = {**self._cached_logins, **written}, dict[str, tuple[int, Login]]()
        # Avoid Path objects: there may be thousands of files, and a gateway scans them at every event.
        with os.scandir(self._folder) as entries:
            for entry in entries:
                stem, _, suffix = entry.name.partition(".")
                if suffix != "json" or not _ID_PATTERN.fullmatch(stem):
                    continue
                cached_version, login = cached.get(stem, (None, None))
                try:
                    version = _version_of(entry.stat(follow_symlinks=False))
                    if login is None or version != cached_version:
                        login = self.get(stem)
                except (StoreError, LoginNotFound, OSError):
                    continue
                scanned[stem] = version, login
        self._cached_logins = scanned
        logins = (login for _, login in scanned.values())
        return sorted(logins, key=lambda login: (login.started_at, login.id))

    def list_open(self, owner: Owner | AnyValue = ANY, platform: str | AnyValue = ANY) -> list[Login]:
        """Return the logins that are not over, optionally of one owner or of one platform."""
        return [
            login
            for login in self.list_all()
            if not login.is_over
            and owner in {ANY, login.key.owner}
            and platform in {ANY, login.origin.platform}
        ]

    def glance_all(self) -> Version | Unknown:
        """Return a version of the folder, by one stat.

        UNKNOWN if the folder has just changed: a second change within one tick of the disk's clock would have
        the same time.
        """
        now_ns = time.time_ns()
        try:
            changed_at_ns = self._folder.stat().st_mtime_ns
        except OSError:
            return Version("")
        return Version(f"{changed_at_ns:x}") if is_settled(changed_at_ns, now_ns) else UNKNOWN

    def glance(self, login_id: str) -> Version | Unknown | None:
        """Return the version of a login by one stat, None if there is no such login."""
        try:
            return self._read_version(login_id)
        except LoginNotFound:
            return None

    def _read_version(self, login_id: str) -> Version | None:
        try:
            return _encode_version(self._path(login_id).lstat())
        except OSError:
            return None

    def try_poller_lease(self, poller_id: str) -> PollerLock | None:
        """Register a poller; it counts as alive until the lease is released or the process ends.

        Returns None if another poller has this id. Raises StoreBusy and the other StoreErrors.
        """
        self._prepare_folders()
        lock = PollerLock(self._poller_path(poller_id))
        with self._exclusive_access():
            return lock if lock.try_acquire() else None

    def is_poller_alive(self, poller_id: str) -> bool:
        """True if a poller with this id is alive."""
        path = self._poller_path(poller_id)
        if not path.exists():
            return False
        lock = FileLock(path)
        is_free = lock.try_acquire()
        lock.release()
        return not is_free

    def _poller_path(self, poller_id: str) -> Path:
        if not _ID_PATTERN.fullmatch(poller_id):
            raise StoreCorrupt("A login names an invalid poller.")
        return self._folder / f".{poller_id}{_POLLER_LOCK_SUFFIX}"

    def remove_expired(self, now: float) -> None:
        """Remove logins that expired an hour before `now` (epoch seconds).

        Raises StoreUnwritable, StoreBusy and the other StoreErrors.
        """
        if not self._has_folders():
            return
        with self._exclusive_access():
            for login in self.list_all():
                if login.expires_at + RETENTION_SECONDS < now:
                    remove_file(self._path(login.id))
            # Use the clock of the disk, so that a file that is being written now never counts as old.
            cutoff = self._folder.stat().st_mtime - RETENTION_SECONDS
            for path in list(self._folder.iterdir()):
                # A writer that was killed has left this file.
                if path.name.endswith(TEMPORARY_SUFFIX):
                    remove_if_older(path, cutoff)
                elif path.name.endswith(_POLLER_LOCK_SUFFIX):
                    # A poller that was killed has left its lock file. The lock of a live poller is not free.
                    lock = PollerLock(path)
                    if path.lstat().st_mtime < cutoff and lock.try_acquire():
                        lock.release()

    def _path(self, login_id: str) -> Path:
        if not _ID_PATTERN.fullmatch(login_id):
            raise LoginNotFound("That is not the id of a login.")
        return self._folder / f"{login_id}.json"

    @contextlib.contextmanager
    def _exclusive_access(self) -> Generator[None]:
        """Exclude changes by other threads and processes during a block; raises StoreBusy.

        A thread lock comes first: without it, all threads of a process would poll the file lock.
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

    def _write(self, login: Login) -> Version:
        stored = without_secrets(login) if login.is_over else login
        status = write_private(self._path(login.id), encode_document(login_document(stored)))
        if self._last_served_request:
            # Cache the login, because this process lists logins: the next listing need not read the file.
            self._written_logins[login.id] = _version_of(status), stored
        return _encode_version(status)


class PollerLock(FileLock):
    """The lock that a poller holds as long as it lives; `release` removes the file."""

    def release(self) -> None:
        """Release the lock, so that the poller counts as dead, and try to remove the file."""
        if self.is_held:
            with contextlib.suppress(StoreError):
                remove_file(self.path)
        super().release()


def _version_of(status: os.stat_result) -> int:
    return status.st_mtime_ns << 64 | status.st_ino


def _encode_version(status: os.stat_result) -> Version:
    return Version(f"{status.st_mtime_ns:x}.{status.st_ino:x}")
