"""What to do with a file or directory of this user's own whose mode gives access to others.

Kubernetes' `fsGroup` opens each file of a volume to its group (0660, directories 2770) whenever a pod starts:
what is open to the group alone is made private and used. What all others could touch is refused, because they
may know it or have changed it. If the file system keeps no modes (drvfs, CIFS, FAT), nothing can be made
private; ALLOW_OPEN_STORE then decides.
"""

from __future__ import annotations

import errno
import logging
import os
import stat

from hermes_mcp_auth_remote.errors import StoreUnsafe

StrPath = str | os.PathLike[str]

ALLOW_OPEN_STORE = "HERMES_MCP_AUTH_ALLOW_OPEN_STORE"
"""Environment variable: `1` uses a store whose file system keeps no modes. Owners and links still count."""

# What chmod answers on a file system that keeps no modes, if it does not just ignore the call.
_UNSUPPORTED_ERRNOS = frozenset({errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
# Another process may change a mode between a change and a look at it.
_ATTEMPTS = 3
# The stores that a warning was given about, once per process.
_warned_stores: dict[str, object] = {}

_log = logging.getLogger(__name__)


def make_private(descriptor: int, path: StrPath, mode: int, *, is_trusted: bool) -> None:
    """Give an open file or directory of our own this mode, or raise StoreUnsafe.

    One that is not trusted keeps its mode and is refused; it would pass for private the next time.
    """
    before = os.fstat(descriptor).st_mode
    if is_trusted:
        if _set_private_mode(descriptor, path, mode, before):
            if stat.S_ISREG(before) or before & 0o020:
                _warn_once(path)
            return
        if stat.S_ISDIR(before) and not before & 0o022:
            # Others can list it; each file in it is checked by itself.
            return
    elif _supports_modes(descriptor, before):
        raise _open_to_others_error(path, before)
    check_open_store_allowed(path, before)


def _set_private_mode(descriptor: int, path: StrPath, mode: int, old_mode: int) -> bool:
    """Set a mode that closes a file to others; False if it has no effect. Raises StoreUnsafe."""
    for _ in range(_ATTEMPTS):
        try:
            os.fchmod(descriptor, mode)
        except OSError as error:
            if error.errno == errno.EROFS and stat.S_ISDIR(old_mode) and not old_mode & 0o022:
                # The disk is read-only, and others can only list the directory.
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
    """True unless the file system ignores or refuses a change of mode that gives access to no one."""
    bit = stat.S_ISVTX if stat.S_ISDIR(old_mode) else stat.S_IXUSR
    mode, shown = stat.S_IMODE(old_mode), {old_mode}
    try:
        for _ in range(_ATTEMPTS):
            # Another process may try the same now: its change must not hide the effect of this one.
            for tried in (mode | bit, mode & ~bit):
                os.fchmod(descriptor, tried)
                shown.add(os.fstat(descriptor).st_mode)
        os.fchmod(descriptor, mode)
    except OSError as error:
        return error.errno not in _UNSUPPORTED_ERRNOS
    return len(shown) > 1


def check_open_store_allowed(path: StrPath, mode: int) -> None:
    """Raise StoreUnsafe unless the operator allows a store whose modes mean nothing."""
    if os.environ.get(ALLOW_OPEN_STORE) != "1":
        raise StoreUnsafe(
            f"{os.fspath(path)} is open to others (mode {stat.S_IMODE(mode):04o}), and chmod changes nothing "
            "there.",
            "Set HERMES_HOME to a directory on a disk that keeps modes (for a volume in Kubernetes, set "
            "`fsGroupChangePolicy: OnRootMismatch` in the pod's securityContext); or, if no other user can "
            f"reach that disk, set {ALLOW_OPEN_STORE}=1 in the environment.",
        )


def _open_to_others_error(path: StrPath, mode: int, *, is_read_only: bool = False) -> StoreUnsafe:
    name, shown = os.fspath(path), f"{stat.S_IMODE(mode):04o}"
    if is_read_only:
        return StoreUnsafe(
            f"{name} is open to others (mode {shown}).",
            "Its disk is read-only: mount it writable, or make files 0600 and directories 0700 before.",
        )
    if stat.S_ISDIR(mode):
        return StoreUnsafe(
            f"{name} can be changed by others (mode {shown}).",
            f"Look at what is in it, then run `chmod 700 '{name}'`.",
        )
    return StoreUnsafe(
        f"{name} is open to others (mode {shown}).",
        f"Run `chmod 600 '{name}'`; if others use this machine, log out and in again.",
    )


def _warn_once(path: StrPath) -> None:
    """Tell the operator that a store was open to its group, once per process and store."""
    store, separator, _ = os.fspath(path).partition(f"{os.sep}mcp-tokens")
    store, mine = f"{store}{separator}", object()
    if _warned_stores.setdefault(store, mine) is not mine:
        return
    _log.warning(
        "%s was open to its group, as Kubernetes' fsGroup makes it when a pod starts. It is private again; "
        "set `fsGroupChangePolicy: OnRootMismatch` in the pod's securityContext.",
        store,
    )
