"""Handle files and directories of this user whose mode gives access to other users.

When a pod starts, Kubernetes' `fsGroup` gives the group access to each file of a volume (0660, directories
2770). So this module makes a file private if it is open only to its group. It refuses a file that all users
can access, because they may have read or changed it. If the file system does not support modes (drvfs, CIFS,
FAT), it refuses the file unless ALLOW_OPEN_STORE is set.
"""

from __future__ import annotations

import errno
import logging
import os
import stat

from hermes_mcp_auth_remote.errors import StoreUnsafe

StrPath = str | os.PathLike[str]

ALLOW_OPEN_STORE = "HERMES_MCP_AUTH_ALLOW_OPEN_STORE"
"""Environment variable: `1` allows a file system without modes. Owners and links are still checked."""

# On a file system that does not support modes, chmod fails with one of these or has no effect.
_UNSUPPORTED_ERRNOS = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
# Another process may change a mode between fchmod and fstat.
_ATTEMPTS = 3
# The stores about which this process has logged a warning.
_warned_stores: dict[str, object] = {}

_log = logging.getLogger(__name__)


def make_private(descriptor: int, path: StrPath, mode: int, *, is_trusted: bool) -> None:
    """Set this mode on an open file or directory of this user, or raise StoreUnsafe.

    `is_trusted` is True if no user outside the group can have changed the file. A file that is not trusted is
    refused and keeps its mode: if the mode became private, the next read would accept the file.
    """
    before = os.fstat(descriptor).st_mode
    if is_trusted:
        if _set_private_mode(descriptor, path, mode, before):
            if stat.S_ISREG(before) or before & 0o020:
                _warn_once(path)
            return
        if stat.S_ISDIR(before) and not before & 0o022:
            # Other users can only list the directory; each file in it is checked separately.
            return
    elif _supports_modes(descriptor, before):
        raise _open_to_others_error(path, before)
    check_open_store_allowed(path, before)


def _set_private_mode(descriptor: int, path: StrPath, mode: int, old_mode: int) -> bool:
    """Set a mode that excludes other users; False if it has no effect. Raises StoreUnsafe."""
    for _ in range(_ATTEMPTS):
        try:
            os.fchmod(descriptor, mode)
        except OSError as error:
            if error.errno == errno.EROFS and stat.S_ISDIR(old_mode) and not old_mode & 0o022:
                # The disk is read-only, and other users can only list the directory.
                return False
            if error.errno not in _UNSUPPORTED_ERRNOS:
                raise _open_to_others_error(
                    path, old_mode, is_read_only=error.errno == errno.EROFS
                ) from error
            return False
        if not os.fstat(descriptor).st_mode & 0o077:
            return True
    return False


def _supports_modes(descriptor: int, old_mode: int) -> bool:
    """Return False if the file system ignores or refuses a harmless change of mode, else True."""
    # These bits give no other user access.
    bit = stat.S_ISVTX if stat.S_ISDIR(old_mode) else stat.S_IXUSR
    mode, observed_modes = stat.S_IMODE(old_mode), {old_mode}
    try:
        for _ in range(_ATTEMPTS):
            # Try both values: another process may do the same now and hide the effect of one change.
            for new_mode in (mode | bit, mode & ~bit):
                os.fchmod(descriptor, new_mode)
                observed_modes.add(os.fstat(descriptor).st_mode)
        os.fchmod(descriptor, mode)
    except OSError as error:
        return error.errno not in _UNSUPPORTED_ERRNOS
    return len(observed_modes) > 1


def check_open_store_allowed(path: StrPath, mode: int) -> None:
    """Raise StoreUnsafe unless the operator allows a file system that does not support modes."""
    if os.environ.get(ALLOW_OPEN_STORE) != "1":
        raise StoreUnsafe(
            f"{os.fspath(path)} is open to others (mode {stat.S_IMODE(mode):04o}), and chmod has no effect "
            "there.",
            "Set HERMES_HOME to a directory on a disk that supports modes (for a volume in Kubernetes, set "
            "`fsGroupChangePolicy: OnRootMismatch` in the pod's securityContext); or, if no other user can "
            f"reach that disk, set {ALLOW_OPEN_STORE}=1 in the environment.",
        )


def _open_to_others_error(path: StrPath, mode: int, *, is_read_only: bool = False) -> StoreUnsafe:
    name, octal_mode = os.fspath(path), f"{stat.S_IMODE(mode):04o}"
    if is_read_only:
        return StoreUnsafe(
            f"{name} is open to others (mode {octal_mode}).",
            "Its disk is read-only: mount it writable, or set mode 0600 for files and 0700 for directories.",
        )
    if stat.S_ISDIR(mode):
        return StoreUnsafe(
            f"{name} can be changed by others (mode {octal_mode}).",
            f"Check its contents, then run `chmod 700 '{name}'`.",
        )
    return StoreUnsafe(
        f"{name} is open to others (mode {octal_mode}).",
        f"Run `chmod 600 '{name}'`; if others use this machine, log out of the server and log in again.",
    )


def _warn_once(path: StrPath) -> None:
    """Warn the operator that a store was open to its group, once per process and store."""
    store, separator, _ = os.fspath(path).partition(f"{os.sep}mcp-tokens")
    store, marker = f"{store}{separator}", object()
    if _warned_stores.setdefault(store, marker) is not marker:
        return
    _log.warning(
        "%s was open to its group (Kubernetes' fsGroup does this when a pod starts). It is private again. To "
        "prevent this, set `fsGroupChangePolicy: OnRootMismatch` in the pod's securityContext.",
        store,
    )
