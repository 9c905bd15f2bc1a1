"""Hermes's rules for its home directory and the names of its token files. Imports very little."""

# Importing pathlib would take a fifth of the time of the fast path of `token`.
# ruff: noqa: PTH109, PTH111, PTH116, PTH117, PTH118

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache

from hermes_mcp_auth_remote.errors import ConfigError

CONFIG_FILES = ("config.yaml", ".env")
# If a file changed within this time before a read, its next change may leave its modification time the same.
_MTIME_RESOLUTION_NS = 50_000_000
# Some file systems (FAT, HFS+, older NFS) store times in seconds, or in steps of two seconds.
_COARSE_MTIME_RESOLUTION_NS = 3_000_000_000


def hermes_home(environ: Mapping[str, str]) -> str:
    """Return Hermes's home as an absolute path: HERMES_HOME, else ~/.hermes.

    Raises ConfigError if a `~` has no home directory, or if a relative path has no current directory.
    """
    home = expand_user(
        environ.get("HERMES_HOME", "").strip() or "~/.hermes", "Set HERMES_HOME to a directory of your own."
    )
    try:
        # The current directory may change later. Not `abspath`: it removes `link/..`.
        return os.path.join(os.getcwd(), home) if not os.path.isabs(home) else home
    except OSError:
        raise ConfigError(
            "HERMES_HOME is a relative path, and the current directory is gone.",
            "Set HERMES_HOME to an absolute path.",
        ) from None


def expand_user(path: str, advice: str) -> str:
    """Return a path with `~` or `~user` in front expanded; raises ConfigError with this advice.

    Python leaves `~` unchanged if the password database has no entry, for example for OpenShift's arbitrary
    user ids. Files would then be written to a directory named `~` in the current directory.
    """
    if not path.startswith("~"):
        return path
    user = re.split(r"[/\\]", path)[0] if os.name == "nt" else path.partition("/")[0]
    if user == "~" and os.name == "posix" and not os.path.isabs(os.environ.get("HOME", "/")):
        # An empty HOME would mean `/.hermes`; a relative HOME would mean a path in the current directory.
        raise ConfigError("HOME is set, but not to an absolute path.", advice)
    expanded = os.path.expanduser(path)
    if os.path.isabs(expanded):
        return expanded
    if user == "~":
        message = "This user has no home directory: HOME is not set, and the password database has no entry."
    else:
        message = f"There is no home directory for {user}: the password database has no such user."
    raise ConfigError(message, advice)


def config_identity(home: str | os.PathLike[str]) -> str:
    """Return a text that changes when config.yaml or .env in a home is changed, replaced or removed.

    Raises OSError if the status of a file cannot be read.
    """
    identities: list[str] = []
    for name in CONFIG_FILES:
        path = os.path.join(home, name)
        identities.append(file_identity(_read_status(path, follow=False), _read_status(path, follow=True)))
    return join_identities(*identities)


def file_identity(link_status: os.stat_result | None, file_status: os.stat_result | None) -> str:
    """Return the identity of a file from the status of its path (`lstat`) and its target; None: missing.

    It includes the ctime, because `cp -p` and `mv` can set an older mtime.
    """
    return f"{_format_status(link_status)}/{_format_status(file_status)}"


def is_settled(changed_at_ns: int, now_ns: int) -> bool:
    """True if a change after `now_ns` cannot get the same time as the last change.

    `changed_at_ns` is the time of the last change of a file or a folder. Ask for `now_ns` before you read its
    status. Both are in epoch nanoseconds.
    """
    is_coarse = changed_at_ns % 1_000_000_000 == 0
    return now_ns - changed_at_ns > (_COARSE_MTIME_RESOLUTION_NS if is_coarse else _MTIME_RESOLUTION_NS)


def join_identities(config: str, env: str) -> str:
    """Return the identity of config.yaml and .env together."""
    return f"{config} {env}"


def _read_status(path: str, *, follow: bool) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _format_status(status: os.stat_result | None) -> str:
    if status is None:
        return "-"
    return f"{status.st_ino}.{status.st_size}.{status.st_ctime_ns}.{status.st_mtime_ns}"


@lru_cache(maxsize=1024)
def file_stem(server_name: str) -> str:
    """Return Hermes's file stem for a server's name; `my.server` and `my_server` have the same one."""
    return re.sub(r"[^\w\-]", "_", server_name).strip("_")[:128] or "default"
