"""Hermes's own rules: where its home is, how its token files are named. Imports next to nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

CONFIG_FILES = ("config.yaml", ".env")


def hermes_home(environ: Mapping[str, str]) -> str:
    """Return Hermes's home: HERMES_HOME, else ~/.hermes."""
    return os.path.expanduser(environ.get("HERMES_HOME", "").strip() or "~/.hermes")  # noqa: PTH111


def config_identity(home: str | os.PathLike[str]) -> str:
    """Return a text that changes when config.yaml or .env in a home is changed, replaced or removed.

    Raises OSError for a file that cannot be looked at.
    """
    identities: list[str] = []
    for name in CONFIG_FILES:
        path = os.path.join(home, name)  # noqa: PTH118  importing pathlib would slow down `token`
        identities.append(file_identity(_status(path, follow=False), _status(path, follow=True)))
    return join_identities(*identities)


def file_identity(link: os.stat_result | None, file: os.stat_result | None) -> str:
    """Return the identity of one file: of its path (`lstat`) and of what the path leads to; None: missing.

    The time of the last change (ctime) is part of it, because `cp -p` and `mv` bring older times of writing.
    """
    return f"{_numbers(link)}/{_numbers(file)}"


def join_identities(config: str, env: str) -> str:
    """Return the identity of config.yaml and .env together."""
    return f"{config} {env}"


def _status(path: str, *, follow: bool) -> os.stat_result | None:
    try:
        return os.stat(path, follow_symlinks=follow)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None


def _numbers(status: os.stat_result | None) -> str:
    if status is None:
        return "-"
    return f"{status.st_ino}.{status.st_size}.{status.st_ctime_ns}.{status.st_mtime_ns}"


def file_stem(server: str) -> str:
    """Turn a server's name into Hermes's file stem. Not reversible: `my.server` and `my_server` share one."""
    return re.sub(r"[^\w\-]", "_", server).strip("_")[:128] or "default"
