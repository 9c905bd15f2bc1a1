"""Private files and directories: 0600 and 0700, whole or not at all, never through a link. RFC 9700 §4.14.

Imports next to nothing: the fast path of `token` stands on it.
"""

# Importing pathlib would take a fifth of that path's time.
# ruff: noqa: PTH101, PTH103, PTH105, PTH108, PTH118, PTH123

from __future__ import annotations

import contextlib
import errno
import os
import stat

from hermes_mcp_auth_remote.errors import StoreCorrupt, StoreUnsafe, StoreUnwritable

Place = str | os.PathLike[str]

# No honest file of ours or of Hermes's comes near it.
MAX_FILE_BYTES = 1_048_576
TEMPORARY = ".tmp"
# What is younger may change again within the same tick of the disk's clock, and that would go unseen.
SETTLE_NS = 50_000_000

_POSIX = os.name == "posix"
_PLAIN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
# Not blocking: opening a named pipe that somebody put there must not hang.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _PLAIN
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _PLAIN


def read_private(path: Place) -> bytes | None:
    """Read a whole file of our own, or return None where there is none.

    Raises StoreUnsafe for a symbolic link, anything but a plain file, another user's file, or one that its
    group or others can touch; StoreCorrupt above 1 MiB; StoreUnwritable where the disk fails.
    """
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failure(path, error, "read") from error
    try:
        _check_file(os.fstat(descriptor), path)
        data = _read_all(descriptor, path)
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise StoreCorrupt(f"{os.fspath(path)} is larger than 1 MiB.")
    return data


def _check_file(status: os.stat_result, path: Place) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StoreUnsafe(f"{os.fspath(path)} is not a plain file.")
    _check_owner(status, path)
    if _POSIX and status.st_mode & 0o077:
        raise StoreUnsafe(
            f"{os.fspath(path)} is open to others (mode {stat.S_IMODE(status.st_mode):04o}).",
            f"Run `chmod 600 '{os.fspath(path)}'`; if others use this machine, log out and in again.",
        )


def _read_all(descriptor: int, path: Place) -> bytes:
    try:
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _failure(path, error, "read") from error


def write_private(path: Place, data: bytes) -> os.stat_result:
    """Replace a file as a whole, 0600; after a failure or a crash the old one is still there.

    Returns what `stat` says of it until somebody else replaces it. Raises StoreUnwritable. The directory must
    exist.
    """
    target: str = os.fspath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.{os.urandom(6).hex()}{TEMPORARY}")
    try:
        descriptor = os.open(temporary, _CREATE, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(descriptor)
                status = os.fstat(descriptor)
            os.replace(temporary, target)
        except BaseException:
            _discard(temporary)
            raise
    except OSError as error:
        raise _failure(path, error, "written") from error
    _sync_directory(folder)
    return status


def remove(path: Place) -> bool:
    """Remove a file; True where it was there. Raises StoreUnwritable."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _failure(path, error, "removed") from error
    return True


def remove_older(path: Place, before: float | None) -> None:
    """Remove a file that was last written before a time (epoch seconds; None: at any time)."""
    try:
        stale = before is None or os.lstat(path).st_mtime < before
    except FileNotFoundError:
        return
    if stale:
        remove(path)


def sweep(stem: str, before: float | None) -> None:
    """Remove what killed writers left beside a stem's files, all or older than `before` (epoch seconds)."""
    folder, name = os.path.split(stem)
    with os.scandir(folder) as found:
        left = [each.path for each in found if each.name.startswith(f".{name}.")]
    for path in left:
        if path.endswith(TEMPORARY):
            remove_older(path, before)


def private_directory(path: Place) -> None:
    """Make sure of a directory of our own, 0700; one that others can only read is tightened.

    Raises StoreUnsafe for a symbolic link, another user's directory, or one that others can write to:
    what is in it by now may be anybody's. Raises StoreUnwritable.
    """
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except FileExistsError:
        raise StoreUnsafe(f"{os.fspath(path)} is not a directory.") from None
    except OSError as error:
        raise _failure(path, error, "created") from error
    status = _directory_status(path)
    if status is not None and _POSIX and status.st_mode & 0o077:
        try:
            os.chmod(path, 0o700)
        except OSError as error:
            raise _failure(path, error, "made private") from error


def has_directory(path: Place) -> bool:
    """True where a directory is there and of our own, False where none is; raises StoreUnsafe."""
    return _directory_status(path) is not None


def _directory_status(path: Place) -> os.stat_result | None:
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _failure(path, error, "read") from error
    if not stat.S_ISDIR(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a directory"
        raise StoreUnsafe(f"{os.fspath(path)} is {what}.")
    _check_owner(status, path)
    if _POSIX and status.st_mode & 0o022:
        raise StoreUnsafe(
            f"{os.fspath(path)} can be changed by others (mode {stat.S_IMODE(status.st_mode):04o}).",
            f"Look at what is in it, then run `chmod 700 '{os.fspath(path)}'`.",
        )
    return status


def _check_owner(status: os.stat_result, path: Place) -> None:
    if _POSIX and status.st_uid != os.getuid():
        raise StoreUnsafe(
            f"{os.fspath(path)} belongs to another user.",
            "Run this as the user who owns it, or set HERMES_HOME to a directory of your own.",
        )


def _sync_directory(folder: str) -> None:
    # The rename has happened; a file system that cannot sync a directory is no reason to call it a failure.
    try:
        descriptor = os.open(folder or ".", os.O_RDONLY | _PLAIN)
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)


def _discard(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _failure(path: Place, error: OSError, what: str) -> StoreUnsafe | StoreUnwritable:
    if error.errno in {errno.ELOOP, errno.ENXIO}:
        kind = "a symbolic link" if error.errno == errno.ELOOP else "not a plain file"
        return StoreUnsafe(f"{os.fspath(path)} is {kind}.")
    return StoreUnwritable(
        f"{os.fspath(path)} could not be {what}: {error.strerror or 'the system refused'}."
    )
