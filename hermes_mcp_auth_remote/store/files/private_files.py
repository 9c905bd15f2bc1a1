"""Private files and directories: 0600 and 0700, whole or not at all, never through a link. RFC 9700 §4.14.

Imports next to nothing: the fast path of `token` stands on it.
"""

# Importing pathlib would take a fifth of that path's time.
# ruff: noqa: PTH103, PTH105, PTH108, PTH118, PTH120, PTH123

from __future__ import annotations

import contextlib
import errno
import os
import stat

from hermes_mcp_auth_remote.errors import StoreCorrupt, StoreUnsafe, StoreUnwritable
from hermes_mcp_auth_remote.store import MAX_FILE_BYTES

StrPath = str | os.PathLike[str]

# No honest file of ours or of Hermes's comes near it.
TEMPORARY_SUFFIX = ".tmp"
# What is younger may change again within the same tick of the disk's clock, and that would go unseen.
MTIME_RESOLUTION_NS = 50_000_000

_IS_POSIX = os.name == "posix"
_NOFOLLOW_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
# Not blocking: opening a named pipe that somebody put there must not hang.
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _NOFOLLOW_FLAGS
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW_FLAGS
_UPDATE_FLAGS = os.O_RDWR | getattr(os, "O_NONBLOCK", 0) | _NOFOLLOW_FLAGS
# What `rename` says of a mount point, of layered file systems, and of those that protect single files.
_NOT_REPLACEABLE_ERRNOS = frozenset({errno.EBUSY, errno.EXDEV, errno.EPERM})


class NotReplaceable(StoreUnwritable):
    """A file cannot be replaced or removed by its name, such as a bind mount; perhaps it can be written."""

    advice = "Mount the directory mcp-tokens instead of single files in it, and mount it writable."


def read_private(path: StrPath, limit_bytes: int = MAX_FILE_BYTES) -> bytes | None:
    """Read a whole file of our own, or return None where there is none; one open to its group is tightened.

    Raises StoreUnsafe for a symbolic link, anything but a plain file, another user's file, or one that others
    can touch; StoreCorrupt above `limit_bytes`; StoreUnwritable where the disk fails.
    """
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _store_error(path, error, "read") from error
    try:
        _check_file(descriptor, path)
        data = _read_all(descriptor, path, limit_bytes)
    finally:
        os.close(descriptor)
    if len(data) > limit_bytes:
        raise StoreCorrupt(f"{os.fspath(path)} is larger than {limit_bytes // 1_048_576} MiB.")
    return data


def _check_file(descriptor: int, path: StrPath) -> None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise StoreUnsafe(f"{os.fspath(path)} is not a plain file.")
    _check_owner(status, path)
    if _IS_POSIX and status.st_mode & 0o077:
        # Loaded when it is needed: the fast path of `token` seldom meets such a file.
        from hermes_mcp_auth_remote.store.files.file_modes import make_private  # noqa: PLC0415

        # A second name may be of a file that is no part of the store, and that is not ours to change.
        make_private(descriptor, path, 0o600, is_trusted=not status.st_mode & 0o007 and status.st_nlink == 1)


def _read_all(descriptor: int, path: StrPath, limit_bytes: int) -> bytes:
    try:
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit_bytes + 1)
    except OSError as error:
        raise _store_error(path, error, "read") from error


def write_private(path: StrPath, data: bytes) -> os.stat_result:
    """Replace a file as a whole, 0600; after a failure or a crash the old one is still there.

    Returns what `stat` says of it until another process replaces it. Raises StoreUnwritable, NotReplaceable
    if the old file cannot be replaced by a rename; StoreUnsafe if the file system keeps no modes. The
    directory must exist.
    """
    target: str = os.fspath(path)
    staged, status = stage_private(target, data)
    try:
        replace_staged(staged, target)
    except BaseException:
        _remove_quietly(staged)
        raise
    sync_directory(os.path.dirname(target))
    return status


def stage_private(path: StrPath, data: bytes) -> tuple[str, os.stat_result]:
    """Write a new file beside `path`, 0600, on the disk when this returns; returns its path and status.

    Its inode stays the same when `replace_staged` puts it in place. Raises StoreUnwritable.
    """
    target: str = os.fspath(path)
    folder, name = os.path.split(target)
    staged = _temporary_path(folder, name)
    try:
        descriptor = os.open(staged, _CREATE_FLAGS, 0o600)
        try:
            with open(descriptor, "wb") as file:
                _check_new_file(descriptor, os.fspath(path))
                file.write(data)
                file.flush()
                os.fsync(descriptor)
                status = os.fstat(descriptor)
        except BaseException:
            _remove_quietly(staged)
            raise
    except OSError as error:
        raise _store_error(path, error, "written") from error
    return staged, status


def _temporary_path(folder: str, name: str) -> str:
    # One dot before a hidden name as well: `sweep` looks for the stem after it.
    name = name.removeprefix(".")
    return os.path.join(folder, f".{name}.{os.getpid()}.{os.urandom(6).hex()}{TEMPORARY_SUFFIX}")


def replace_staged(staged: str, path: StrPath) -> None:
    """Rename a staged file to its place. Raises NotReplaceable or another StoreUnwritable."""
    try:
        os.replace(staged, path)
    except OSError as error:
        raise _store_error(path, error, "written", is_name_operation=True) from error


def overwrite_private(path: StrPath, data: bytes) -> None:
    """Write a file in place that cannot be replaced; the caller holds a lock and has a copy of `data`.

    A reader that takes no lock meets the old or the new content, unless the disk divides the one write.
    After a failure the old content is there again, if the disk takes it. Raises StoreUnsafe, StoreUnwritable.
    """
    try:
        try:
            descriptor = os.open(path, _UPDATE_FLAGS)
        except PermissionError:
            _make_writable(path)
            descriptor = os.open(path, _UPDATE_FLAGS)
    except OSError as error:
        raise _store_error(path, error, "written") from error
    try:
        _check_file(descriptor, path)
        old = _read_all(descriptor, path, MAX_FILE_BYTES)
        try:
            _overwrite(descriptor, data, len(old))
        except OSError as error:
            with contextlib.suppress(OSError):
                _overwrite(descriptor, old, len(data))
            raise _store_error(path, error, "written") from error
    finally:
        os.close(descriptor)


def _make_writable(path: StrPath) -> None:
    """Give a file of our own that is read-only by its mode the mode that it should have."""
    descriptor = os.open(path, _READ_FLAGS)
    try:
        _check_file(descriptor, path)
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _overwrite(descriptor: int, data: bytes, old_bytes: int) -> None:
    # Spaces to the old end: JSON allows them there, and the file is whole before it is cut.
    left = memoryview(data.ljust(old_bytes))
    os.lseek(descriptor, 0, os.SEEK_SET)
    while left:
        left = left[os.write(descriptor, left) :]
    os.ftruncate(descriptor, len(data))
    os.fsync(descriptor)


def check_writable(path: StrPath) -> None:
    """Raise StoreUnwritable if a file certainly cannot be written, in its directory or as it is: read-only.

    Writes nothing. A full disk is not noticed.
    """
    target: str = os.fspath(path)
    folder, name = os.path.split(target)
    probe = _temporary_path(folder, name)
    try:
        os.close(os.open(probe, _CREATE_FLAGS, 0o600))
        os.unlink(probe)
    except OSError as error:
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            raise _store_error(path, error, "written") from error
    try:
        os.close(os.open(path, _UPDATE_FLAGS))
    except OSError as error:
        # EACCES says nothing: a rename takes the place of a file that is read-only by its mode.
        if error.errno in {errno.EROFS, errno.EPERM}:
            raise _store_error(path, error, "written", is_name_operation=True) from error


def remove_file(path: StrPath) -> bool:
    """Remove a file; True where it was there. Raises StoreUnwritable, NotReplaceable for a mount point."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _store_error(path, error, "removed", is_name_operation=True) from error
    return True


def remove_if_older(path: StrPath, before: float | None) -> None:
    """Remove a file that was last written before a time (epoch seconds; None: at any time)."""
    try:
        stale = before is None or os.lstat(path).st_mtime < before
    except FileNotFoundError:
        return
    if stale:
        remove_file(path)


def remove_temporary_files(path_prefix: str, before: float | None) -> None:
    """Remove what killed writers left beside a stem's files, all or older than `before` (epoch seconds)."""
    folder, name = os.path.split(path_prefix)
    with os.scandir(folder) as found:
        left = [each.path for each in found if each.name.startswith(f".{name}.")]
    for path in left:
        if path.endswith(TEMPORARY_SUFFIX):
            remove_if_older(path, before)


def ensure_private_directory(path: StrPath) -> None:
    """Make sure of a directory of our own, 0700; one that others cannot write to is tightened.

    Raises StoreUnsafe for a symbolic link, another user's directory, or one that others can write to:
    what is in it by now may be anybody's. Raises StoreUnwritable.
    """
    try:
        os.makedirs(path, 0o700, exist_ok=True)
    except FileExistsError:
        raise StoreUnsafe(f"{os.fspath(path)} is not a directory.") from None
    except OSError as error:
        failure = _store_error(path, error, "created")
        if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
            failure.advice = "Mend the permissions, or set HERMES_HOME to a directory of your own."
        raise failure from error
    _check_directory(path, 0o077)


def has_directory(path: StrPath) -> bool:
    """True where a directory is there and of our own, False where none is; raises StoreUnsafe.

    One that its group can write to is tightened.
    """
    return _check_directory(path, 0o022)


def _check_directory(path: StrPath, refused_mode_bits: int) -> bool:
    """True if a directory is there, made private if its mode has one of these bits. Raises StoreUnsafe."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _store_error(path, error, "read") from error
    if not stat.S_ISDIR(status.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a directory"
        raise StoreUnsafe(f"{os.fspath(path)} is {what}.")
    _check_owner(status, path)
    if _IS_POSIX and status.st_mode & refused_mode_bits:
        try:
            descriptor = os.open(path, _READ_FLAGS | os.O_DIRECTORY)
        except OSError as error:
            raise _store_error(path, error, "read") from error
        try:
            from hermes_mcp_auth_remote.store.files.file_modes import make_private  # noqa: PLC0415  as above

            # Of what was opened: another directory may have taken its place.
            status = os.fstat(descriptor)
            _check_owner(status, path)
            make_private(descriptor, path, 0o700, is_trusted=not status.st_mode & 0o002)
        finally:
            os.close(descriptor)
    return True


def _check_new_file(descriptor: int, path: StrPath) -> None:
    """Refuse to write into a new file that is not as private as it was made."""
    status = os.fstat(descriptor)
    if _IS_POSIX and status.st_mode & 0o077:
        from hermes_mcp_auth_remote.store.files.file_modes import check_open_store_allowed  # noqa: PLC0415  as above

        check_open_store_allowed(path, status.st_mode)


def _check_owner(status: os.stat_result, path: StrPath) -> None:
    if _IS_POSIX and status.st_uid != os.getuid():
        raise StoreUnsafe(
            f"{os.fspath(path)} belongs to another user.",
            "Run this as the user who owns it, or set HERMES_HOME to a directory of your own.",
        )


def sync_directory(folder: str) -> None:
    """Bring renames and removals in a directory to the disk, as far as its file system can."""
    # The rename has happened; a file system that cannot sync a directory is no reason to call it a failure.
    try:
        descriptor = os.open(folder or ".", os.O_RDONLY | _NOFOLLOW_FLAGS)
    except OSError:
        return
    with contextlib.suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)


def _remove_quietly(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _store_error(
    path: StrPath, error: OSError, action: str, *, is_name_operation: bool = False
) -> StoreUnsafe | StoreUnwritable:
    """Make an error of one that the system raised; `has_name_only` if only the file's name was touched."""
    if error.errno in {errno.ELOOP, errno.ENXIO}:
        kind = "a symbolic link" if error.errno == errno.ELOOP else "not a plain file"
        return StoreUnsafe(f"{os.fspath(path)} is {kind}.")
    is_fixed = is_name_operation and error.errno in _NOT_REPLACEABLE_ERRNOS
    return (NotReplaceable if is_fixed else StoreUnwritable)(
        f"{os.fspath(path)} could not be {action}: {error.strerror or 'the system refused'}.",
        NotReplaceable.advice if is_fixed or error.errno == errno.EROFS else None,
    )
