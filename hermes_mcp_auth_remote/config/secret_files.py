"""Read a secret from a file that the operator or a container runtime provides, such as a bot's token.

Such a file often belongs to root and not to this user: Docker mounts secrets with mode 0444, Kubernetes as
links through `..data/`, systemd credentials with 0440. So this module only refuses files that other users can
change, and unsafe modes that this user has set.
"""

from __future__ import annotations

import os
import shlex
import stat

from hermes_mcp_auth_remote.errors import StoreUnsafe, StoreUnwritable
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals

MAX_SECRET_BYTES = 65_536
_IS_POSIX = os.name == "posix"
# O_NONBLOCK: opening a named pipe must not hang.
_READ_FLAGS = (
    os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
)
_PLAIN_FILE_ADVICE = "Name a file that contains only the secret."


@with_hidden_locals
def read_secret_file(path: str) -> bytes | None:
    """Return the content of a file that only this user and root can change; None if there is no file.

    Follows links of this user and of root. Raises StoreUnsafe for anything but a plain file, for another
    user's file or link, for a file that others can change, and for one that is too large; StoreUnwritable if
    it cannot be read. A file on a read-only disk, such as a mounted secret, may have any owner and mode.
    """
    try:
        link_status = os.lstat(path)
        descriptor = os.open(path, _READ_FLAGS)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreUnwritable(
            f"{path} could not be read: {error.strerror}.", "Let the user who runs this program read it."
        ) from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        # `open` refuses the descriptor of a directory, with a text that names only the descriptor.
        os.close(descriptor)
        raise StoreUnsafe(f"{path} is not a plain file.", _PLAIN_FILE_ADVICE)
    with open(descriptor, "rb") as file:  # noqa: PTH123  a descriptor
        if _IS_POSIX and not os.fstatvfs(descriptor).f_flag & os.ST_RDONLY:
            # A link of another user could lead to any file that this user can read.
            _check_owner(link_status, path)
            _check_owner(status, path)
            _check_mode(status, path, is_link=stat.S_ISLNK(link_status.st_mode))
        data = file.read(MAX_SECRET_BYTES + 1)
    if len(data) > MAX_SECRET_BYTES:
        raise StoreUnsafe(f"{path} is larger than {MAX_SECRET_BYTES // 1024} KiB.", _PLAIN_FILE_ADVICE)
    return data


def _check_owner(status: os.stat_result, path: str) -> None:
    if status.st_uid not in {os.geteuid(), 0}:
        raise StoreUnsafe(
            f"{path} belongs to another user, who could change it.",
            "Name a file that belongs to root or to the user who runs this program.",
        )


def _check_mode(status: os.stat_result, path: str, *, is_link: bool) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o022:
        raise StoreUnsafe(
            f"{path} can be changed by others (mode {mode:04o}).",
            f"Check its content, then run `chmod go-w {shlex.quote(path)}`.",
        )
    # A container runtime has set the mode if no user may write the file (0444, 0440) or a link leads to it.
    # Another mode is a mistake that this user can fix.
    if mode & 0o077 and mode & 0o200 and status.st_uid == os.geteuid() and not is_link:
        raise StoreUnsafe(
            f"{path} is open to others (mode {mode:04o}).", f"Run `chmod 600 {shlex.quote(path)}`."
        )
