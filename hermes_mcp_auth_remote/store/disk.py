"""Private files and directories: 0600 and 0700, whole or not at all, never through a link. RFC 9700 §4.14.

Imports next to nothing: the fast path of `token` stands on it.
"""

# Importing pathlib would take a fifth of that path's time.
# ruff: noqa: PTH103, PTH105, PTH108, PTH118, PTH123

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
    """Read a whole file of our own, or return None where there is none; one open to its group is tightened.

    Raises StoreUnsafe for a symbolic link, anything but a plain file, another user's file, or one that others
    can touch; StoreCorrupt above 1 MiB; StoreUnwritable where the disk fails.
    """
    try:
        descriptor = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _failure(path, error, "read") from error
    try:
        _check_file(descriptor, path)
        data = _read_all(descriptor, path)
    finally:
        os.close(descriptor)
    if len(data) > MAX_FILE_BYTES:
        raise StoreCorrupt(f"{os.fspath(path)} is larger than 1 MiB.")
    return data


def _check_file(descriptor: int, path: Place) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise StoreUnsafe(f"{os.fspath(path)} is not a plain file.")
    _check_owner(status, path)
    if _POSIX and status.st_mode & 0o077:
        # Loaded when it is needed: the fast path of `token` seldom meets such a file.
        from hermes_mcp_auth_remote.store.modes import make_private  # noqa: PLC0415

        # A second name may be of a file that is no part of the store, and that is not ours to change.
        make_private(descriptor, path, 0o600, is_trusted=not status.st_mode & 0o007 and status.st_nlink == 1)


def _read_all(descriptor: int, path: Place) -> bytes:
    try:
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _failure(path, error, "read") from error


def write_private(path: Place, data: bytes) -> os.stat_result:
    """Replace a file as a whole, 0600; after a failure or a crash the old one is still there.

    Returns what `stat` says of it until somebody else replaces it. Raises StoreUnwritable; StoreUnsafe if the
    file system keeps no modes. The directory must exist.
    """
    target: str = os.fspath(path)
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.{os.urandom(6).hex()}{TEMPORARY}")
    try:
        descriptor = os.open(temporary, _CREATE, 0o600)
        try:
            with open(descriptor, "wb") as file:
                _check_new(descriptor, target)
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
    """Make sure of a directory of our own, 0700; one that others cannot write to is tightened.

    Raises StoreUnsafe for a symbolic link, another user's directory, or one that others can write to:
    what is in it by now may be anybody's. Raises StoreUnwritable.
    """
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except FileExistsError:
        raise StoreUnsafe(f"{os.fspath(path)} is not a directory.") from None
    except OSError as error:
        failure = _failure(path, error, "created")
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            failure.advice = "Mend the permissions, or set HERMES_HOME to a directory of your own."
        raise failure from error
    _check_directory(path, 0o077)


def has_directory(path: Place) -> bool:
    """True where a directory is there and of our own, False where none is; raises StoreUnsafe.

    One that its group can write to is tightened.
    """
    return _check_directory(path, 0o022)


def _check_directory(path: Place, refused_bits: int) -> bool:
    """True if a directory is there, made private if its mode has one of these bits. Raises StoreUnsafe."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _failure(path, error, "read") from error
    if not stat.S_ISDIR(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a directory"
        raise StoreUnsafe(f"{os.fspath(path)} is {what}.")
    _check_owner(status, path)
    if _POSIX and status.st_mode & refused_bits:
        try:
            descriptor = os.open(path, _READ | os.O_DIRECTORY)
        except OSError as error:
            raise _failure(path, error, "read") from error
        try:
            from hermes_mcp_auth_remote.store.modes import make_private  # noqa: PLC0415  as above

            # Of what was opened: another directory may have taken its place.
            status = os.fstat(descriptor)
            _check_owner(status, path)
            make_private(descriptor, path, 0o700, is_trusted=not status.st_mode & 0o002)
        finally:
            os.close(descriptor)
    return True


def _check_new(descriptor: int, path: Place) -> None:
    """Refuse to write into a new file that is not as private as it was made."""
    status = os.fstat(descriptor)
    if _POSIX and status.st_mode & 0o077:
        from hermes_mcp_auth_remote.store.modes import check_allowed  # noqa: PLC0415  as above

        check_allowed(path, status.st_mode)


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
