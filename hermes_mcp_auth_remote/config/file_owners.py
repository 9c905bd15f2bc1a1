"""Refuse config.yaml and .env of another user, and warn about modes that let other users change or read them.

config.yaml decides where tokens are sent and whether certificates are checked (`ssl_verify: false`).
"""

from __future__ import annotations

import logging
import os
import shlex
import stat
from pathlib import Path

from hermes_mcp_auth_remote.errors import ConfigError
from hermes_mcp_auth_remote.platforms import PLATFORMS

_IS_POSIX = os.name == "posix"
# Each warning is logged once in a process: a bot reads the files again after each change.
_logged_warnings = set[str]()

_log = logging.getLogger(__name__)


def check_trusted(path: Path, status: os.stat_result) -> None:
    """Raise ConfigError for another user's file in a directory in which others can create files.

    `status` is the status of the opened file. If only this user can create files in the directory, the
    operator has put the file there (a bind mount), and a warning is enough. Also warn if every user can
    change the file.
    """
    if not _IS_POSIX:
        return
    if status.st_uid not in {os.geteuid(), 0}:
        if _is_open_to_others(path.parent):
            raise ConfigError(
                f"{path} belongs to another user, and other users can create files in its directory.",
                "Set HERMES_HOME to a directory of your own with mode 0700, and write the file there.",
            )
        _warn_once(f"{path} belongs to another user, who can change it.")
    if status.st_mode & stat.S_IWOTH and _can_be_entered_by_others(path.parent):
        _warn_once(
            f"{path} can be changed by all users of this machine. Run `chmod o-w {shlex.quote(str(path))}`."
        )


def warn_about_readable_tokens(path: Path, status: os.stat_result, text: str) -> None:
    """Warn if every user can read a .env that has a bot's token."""
    if not (_IS_POSIX and status.st_mode & stat.S_IROTH and _can_be_entered_by_others(path.parent)):
        return
    if any(platform.token_variable in text for platform in PLATFORMS.values()):
        _warn_once(
            f"{path} has a bot's token, and all users of this machine can read it. "
            f"Run `chmod 600 {shlex.quote(str(path))}`."
        )


def _is_open_to_others(directory: Path) -> bool:
    """Return True unless only this user and root can create files in a directory."""
    try:
        status = directory.stat()
    except OSError:
        return True
    # In a container, root may use a directory that belongs to a user of the host: treat it as root's own.
    is_own = status.st_uid in {os.geteuid(), 0} or os.geteuid() == 0
    return not is_own or bool(status.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _can_be_entered_by_others(directory: Path) -> bool:
    try:
        return bool(directory.stat().st_mode & stat.S_IXOTH)
    except OSError:
        return False


def _warn_once(text: str) -> None:
    if text not in _logged_warnings:
        _logged_warnings.add(text)
        _log.warning("%s", text)
