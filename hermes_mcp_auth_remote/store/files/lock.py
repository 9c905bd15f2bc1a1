"""One refresh at a time across processes: an advisory lock on a side file, which later Hermes takes too."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from hermes_mcp_auth_remote.errors import StoreBusy, StoreUnsafe, StoreUnwritable
from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.store.files.private_files import StrPath

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
    """An exclusive lock on a file, made for one holder; the file is never removed and never truncated.

    Two locks on the same file exclude each other within a process as well. The system frees the lock of a
    process that dies. The directory must exist.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = os.fspath(path)
        self._descriptor: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock at once, or return False where it is held. Raises StoreUnsafe, StoreUnwritable."""
        if self._descriptor is not None:
            return False
        try:
            descriptor = os.open(self.path, _OPEN_FLAGS, 0o600)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise StoreUnsafe(f"{self.path} is a symbolic link.") from error
            raise StoreUnwritable(f"{self.path} could not be opened: {error.strerror}.") from error
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
        """Give the lock back; does nothing where it is not held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                # Not by closing alone: a child that was forked meanwhile holds a copy.
                _unlock(descriptor)
            finally:
                os.close(descriptor)

    def reset_in_child(self) -> None:
        """Close a forked child's copy, which would keep the file locked after the parent's death."""
        self.abandon()

    def abandon(self) -> None:
        """Forget the lock in a forked child, where it is the parent's; the parent goes on holding it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @contextmanager
    def hold(self, timeout_seconds: float) -> Generator[None]:
        """Hold the lock for a block; waits up to `seconds`, then raises StoreBusy. Not for an event loop."""
        deadline = time.monotonic() + timeout_seconds
        while not self.try_acquire():
            if time.monotonic() >= deadline:
                raise StoreBusy(f"{self.path} has been locked by another process for {timeout_seconds:g} s.")
            time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            self.release()
