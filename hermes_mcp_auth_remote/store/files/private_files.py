"""Private files and directories: modes 0600 and 0700, atomic writes, no symbolic links. RFC 9700 §4.14.

This module imports very little, because the fast path of the `token` command needs it.
"""

# Importing pathlib would take a fifth of the fast path's time.
# ruff: noqa: PTH102, PTH116, PTH105, PTH108, PTH118, PTH120, PTH123

from __future__ import annotations

import contextlib
import errno
import os
import stat

from hermes_mcp_auth_remote.errors import StoreCorrupt, StoreUnsafe, StoreUnwritable
from hermes_mcp_auth_remote.store import MAX_FILE_BYTES

StrPath = str | os.PathLike[str]

TEMPORARY_SUFFIX = ".tmp"

_IS_POSIX = os.name == "posix"
_NOFOLLOW_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
# O_NONBLOCK: opening a named pipe must not hang.
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _NOFOLLOW_FLAGS
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW_FLAGS
_UPDATE_FLAGS = os.O_RDWR | getattr(os, "O_NONBLOCK", 0) | _NOFOLLOW_FLAGS
_PERMISSIONS_ADVICE = "Fix the permissions, or set HERMES_HOME to a directory of your own."
# Errors of `rename`: for a mount point, on a layered file system, and if single files are protected.
_NOT_REPLACEABLE_ERRNOS = frozenset({errno.EBUSY, errno.EXDEV, errno.EPERM})


class NotReplaceable(StoreUnwritable):
    """A file cannot be replaced or removed, such as a bind mount; it may still be writable in place."""

    advice = "Mount the directory mcp-tokens instead of single files in it, and mount it writable."


def read_private(path: StrPath, limit_bytes: int = MAX_FILE_BYTES) -> bytes | None:
    """Return the content of a file of this user, None if there is no file.

    A file that is open only to its group is made private. Raises StoreUnsafe for a symbolic link, anything
    but a plain file, another user's file, or a file that other users can access; StoreCorrupt above
    `limit_bytes`; StoreUnwritable if the disk fails.
    """
    result = read_private_with_status(path, limit_bytes)
    return None if result is None else result[0]


def read_private_with_status(
    path: StrPath, limit_bytes: int = MAX_FILE_BYTES
) -> tuple[bytes, os.stat_result] | None:
    """Return the content and the status of a file of this user; see `read_private`."""
    try:
        descriptor = os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _store_error(path, error, "read") from error
    try:
        status = _check_file(descriptor, path)
        data = _read_all(descriptor, path, status.st_size, limit_bytes)
    finally:
        os.close(descriptor)
    if len(data) > limit_bytes:
        raise StoreCorrupt(f"{os.fspath(path)} is larger than {limit_bytes // 1_048_576} MiB.")
    return data, status


def _check_file(descriptor: int, path: StrPath) -> os.stat_result:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise StoreUnsafe(f"{os.fspath(path)} is not a plain file.")
    _check_owner(status, path)
    if _IS_POSIX and status.st_mode & 0o077:
        # Import late: the fast path of the `token` command rarely needs this module.
        from hermes_mcp_auth_remote.store.files.file_modes import make_private  # noqa: PLC0415

        # A second hard link may belong to a file outside the store. Its mode must not change.
        make_private(descriptor, path, 0o600, is_trusted=not status.st_mode & 0o007 and status.st_nlink == 1)
    return status


def _read_all(descriptor: int, path: StrPath, size: int, limit_bytes: int) -> bytes:
    """Return the content of a plain file, cut after `limit_bytes` and one more; `size` is its size so far."""
    try:
        # A file object would cost more than the calls of the system.
        data = os.read(descriptor, min(size, limit_bytes) + 1)
        # Another process has written more since; only the end of a file makes a read shorter.
        while size < len(data) <= limit_bytes:
            size = len(data)
            data += os.read(descriptor, limit_bytes + 1 - size)
    except OSError as error:
        raise _store_error(path, error, "read") from error
    return data


def write_private(path: StrPath, data: bytes) -> os.stat_result:
    """Replace a file atomically, mode 0600; after a failure or a crash the old file is still there.

    Returns the status of the new file. The directory must exist. Raises StoreUnwritable; NotReplaceable if
    the old file cannot be replaced by a rename; StoreUnsafe if the file system does not support modes.
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
    """Write a temporary file beside `path`, mode 0600, and sync it; return its path and status.

    Its inode stays the same when `replace_staged` renames it. Raises StoreUnwritable.
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
    # Use exactly one leading dot, even for a hidden name: `remove_temporary_files` expects the stem after one
    # dot.
    name = name.removeprefix(".")
    return os.path.join(folder, f".{name}.{os.getpid()}.{os.urandom(6).hex()}{TEMPORARY_SUFFIX}")


def replace_staged(staged: str, path: StrPath) -> None:
    """Rename a staged file to `path`. Raises NotReplaceable or another StoreUnwritable."""
    try:
        os.replace(staged, path)
    except OSError as error:
        raise _store_error(path, error, "written", is_name_operation=True) from error


def overwrite_private(path: StrPath, data: bytes) -> None:
    """Overwrite a file that cannot be replaced; the caller holds a lock and has a copy of `data`.

    A reader without the lock reads the old or the new content, unless the disk splits the write. After a
    failure, try to restore the old content. Raises StoreUnsafe, StoreUnwritable.
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
        status = _check_file(descriptor, path)
        old = _read_all(descriptor, path, status.st_size, MAX_FILE_BYTES)
        try:
            _overwrite(descriptor, data, len(old))
        except OSError as error:
            with contextlib.suppress(OSError):
                _overwrite(descriptor, old, len(data))
            raise _store_error(path, error, "written") from error
    finally:
        os.close(descriptor)


def _make_writable(path: StrPath) -> None:
    """Set mode 0600 on a file of this user that is read-only by its mode."""
    descriptor = os.open(path, _READ_FLAGS)
    try:
        _check_file(descriptor, path)
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _overwrite(descriptor: int, data: bytes, old_bytes: int) -> None:
    # Pad with spaces to the old length: JSON allows them, so the file is valid before it is truncated.
    remaining = memoryview(data.ljust(old_bytes))
    os.lseek(descriptor, 0, os.SEEK_SET)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]
    os.ftruncate(descriptor, len(data))
    os.fsync(descriptor)


def check_writable(path: StrPath) -> None:
    """Raise StoreUnwritable if a file or its directory is certainly read-only.

    Leaves the file unchanged. Does not detect a full disk.
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
        # Ignore EACCES: a rename can replace a file that is read-only by its mode.
        if error.errno in {errno.EROFS, errno.EPERM}:
            raise _store_error(path, error, "written", is_name_operation=True) from error


def remove_file(path: StrPath) -> bool:
    """Remove a file; True if it existed. Raises StoreUnwritable, NotReplaceable for a mount point."""
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
        is_old = before is None or os.lstat(path).st_mtime < before
    except FileNotFoundError:
        return
    if is_old:
        remove_file(path)


def remove_temporary_files(path_prefix: str, before: float | None) -> None:
    """Remove temporary files of killed writers that are older than `before` (epoch seconds; None: all)."""
    folder, name = os.path.split(path_prefix)
    with os.scandir(folder) as entries:
        paths = [entry.path for entry in entries if entry.name.startswith(f".{name}.")]
    for path in paths:
        if path.endswith(TEMPORARY_SUFFIX):
            remove_if_older(path, before)


def ensure_private_directory(path: StrPath) -> None:
    """Create a directory of this user with mode 0700, or make an existing one private.

    Raises StoreUnsafe for a symbolic link, another user's directory, or a directory that all users can write
    to, because they may have put files there. Raises StoreUnwritable.
    """
    try:
        _make_directories(os.fspath(path))
    except FileExistsError:
        raise StoreUnsafe(f"{os.fspath(path)} is not a directory.") from None
    except OSError as error:
        store_error = _store_error(path, error, "created")
        if error.errno == errno.EROFS:
            store_error.advice = _PERMISSIONS_ADVICE
        raise store_error from error
    _check_directory(path, 0o077)


def _make_directories(path: str) -> None:
    """Create a directory and its missing parents with mode 0700, even if the umask is 0."""
    # Not `os.makedirs`: it creates the parents with the mode that the umask leaves.
    parent = os.path.dirname(path.rstrip(os.sep))
    if parent and not os.path.lexists(parent):
        _make_directories(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            raise


def has_directory(path: StrPath) -> bool:
    """True if a directory exists and belongs to this user, False if there is none; raises StoreUnsafe.

    A directory that its group can write to is made private.
    """
    return _check_directory(path, 0o022)


def _check_directory(path: StrPath, refused_mode_bits: int) -> bool:
    """True if a directory exists; make it private if its mode has one of these bits. Raises StoreUnsafe."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _store_error(path, error, "read") from error
    if not stat.S_ISDIR(status.st_mode):
        kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "not a directory"
        raise StoreUnsafe(f"{os.fspath(path)} is {kind}.")
    _check_owner(status, path)
    if _IS_POSIX and status.st_mode & refused_mode_bits:
        try:
            descriptor = os.open(path, _READ_FLAGS | os.O_DIRECTORY)
        except OSError as error:
            raise _store_error(path, error, "read") from error
        try:
            from hermes_mcp_auth_remote.store.files.file_modes import make_private  # noqa: PLC0415  as above

            # Check the opened directory: another one may have replaced it in the meantime.
            status = os.fstat(descriptor)
            _check_owner(status, path)
            make_private(descriptor, path, 0o700, is_trusted=not status.st_mode & 0o002)
        finally:
            os.close(descriptor)
    return True


def _check_new_file(descriptor: int, path: StrPath) -> None:
    """Raise StoreUnsafe if a new file is open to other users although it was created with mode 0600."""
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
    """Write renames and removals in a directory to the disk, if its file system supports this."""
    # Ignore errors: the rename has succeeded even if the file system cannot sync a directory.
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


def advice_for(error: OSError) -> str | None:
    """Return what the user can do about an OSError, None for the advice of StoreUnwritable."""
    if error.errno == errno.EROFS:
        return NotReplaceable.advice
    if error.errno in {errno.EACCES, errno.EPERM}:
        return _PERMISSIONS_ADVICE
    if error.errno in {errno.ENOTDIR, errno.ENOENT, errno.EISDIR, errno.ENAMETOOLONG}:
        return "Set HERMES_HOME to a directory of your own."
    return None


def _store_error(
    path: StrPath, error: OSError, action: str, *, is_name_operation: bool = False
) -> StoreUnsafe | StoreUnwritable:
    """Return the StoreError for an OSError; `is_name_operation` for a rename or a removal."""
    if error.errno in {errno.ELOOP, errno.ENXIO}:
        kind = "a symbolic link" if error.errno == errno.ELOOP else "not a plain file"
        return StoreUnsafe(f"{os.fspath(path)} is {kind}.")
    is_not_replaceable = is_name_operation and error.errno in _NOT_REPLACEABLE_ERRNOS
    return (NotReplaceable if is_not_replaceable else StoreUnwritable)(
        f"{os.fspath(path)} could not be {action}: {error.strerror or 'the system refused'}.",
        NotReplaceable.advice if is_not_replaceable else advice_for(error),
    )
