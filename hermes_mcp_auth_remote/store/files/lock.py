"""An advisory file lock, so that one process refreshes at a time; later versions of Hermes use it too."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from hermes_mcp_auth_remote.errors import StoreBusy, StoreUnsafe, StoreUnwritable
from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.store.files.private_files import StrPath, advice_for

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_LOCKED_ERRNOS = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
POLL_SECONDS = 0.01


class FileLock:
    """An exclusive lock on a file, for one holder; it never removes or truncates the file.

    Two locks on the same file exclude each other within a process as well. The operating system frees the
    lock of a process that dies. The directory must exist.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = os.fspath(path)
        # A file lock does not record requests (`store.protocol.Lease`).
        self.request_sent_at: float | None = None
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """True while this object holds the lock."""
        return self._descriptor is not None

    def record_request(self) -> None:
        """Do nothing: the system frees the lock of a process that dies, and keeps no record of it."""

    def try_acquire(self) -> bool:
        """Take the lock at once, or return False if it is held. Raises StoreUnsafe, StoreUnwritable."""
        if self._descriptor is not None:
            return False
        try:
            descriptor = os.open(self.path, _OPEN_FLAGS, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StoreUnsafe(f"{self.path} is a symbolic link.") from error
            raise StoreUnwritable(
                f"{self.path} could not be opened: {error.strerror}.", advice_for(error)
            ) from error
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno in _LOCKED_ERRNOS:
                return False
            raise StoreUnwritable(
                f"{self.path} could not be locked: {error.strerror}.",
                "Put HERMES_HOME on a file system that supports file locks.",
            ) from error
        self._descriptor = descriptor
        reset_after_fork(self)
        return True

    def release(self) -> None:
        """Release the lock; does nothing if it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                # Closing is not enough: a child that was forked in the meantime has a copy.
                _unlock(descriptor)
            finally:
                os.close(descriptor)

    def reset_in_child(self) -> None:
        """Close a forked child's copy of the file, which would keep it locked after the parent's death."""
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptor in a forked child without unlocking; the parent still holds the lock."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @contextmanager
    def hold(self, timeout_seconds: float) -> Generator[None]:
        """Hold the lock for a block; raises StoreBusy after `timeout_seconds`. Blocks the thread."""
        deadline = time.monotonic() + timeout_seconds
        while not self.try_acquire():
            if time.monotonic() >= deadline:
                raise StoreBusy(f"{self.path} has been locked by another process for {timeout_seconds:g} s.")
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            self.release()
