"""The servers of config.yaml, read again when the file changes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from hermes_mcp_auth_remote.config import Configuration, read_configuration
from hermes_mcp_auth_remote.errors import McpAuthError, ServerNotFound
from hermes_mcp_auth_remote.hermes_home import CONFIG_FILES, is_settled
from hermes_mcp_auth_remote.values import Server


class ConfigServers:
    """The servers of config.yaml. Changes to the file apply while the bot runs."""

    def __init__(self, home: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._home = home
        self._environ = environ
        # Strings, because each event checks the files: Path objects would cost more than the system calls.
        self._paths = [str(home / name) for name in CONFIG_FILES]
        self._snapshot = _ConfigSnapshot(())

    def names(self) -> list[str]:
        """Return the servers that use OAuth, including those with an invalid entry."""
        return list(self._current_snapshot().names)

    def find(self, name: str) -> Server:
        """Return one server; raises ServerNotFound."""
        snapshot = self._current_snapshot()
        if name not in snapshot.names or snapshot.configuration is None:
            raise ServerNotFound(
                f"No server {name} is configured here.", "Choose one of the configured servers."
            )
        return snapshot.configuration.find_server(name)

    def entry_names(self) -> list[str]:
        """Return the names of all entries of config.yaml, also of those that users cannot log in to."""
        configuration = self._current_snapshot().configuration
        return [] if configuration is None else configuration.entry_names()

    def find_entry(self, name: str) -> Server | None:
        """Return the server of any entry with a URL; None if there is none, or if the entry is invalid."""
        configuration = self._current_snapshot().configuration
        with contextlib.suppress(McpAuthError):
            return None if configuration is None else configuration.get_server(name)
        return None

    def _current_snapshot(self) -> _ConfigSnapshot:
        """Return the last snapshot if the files have not changed since then, else read the files again."""
        now_ns = time.time_ns()
        versions = tuple(map(_file_version, self._paths))
        if self._snapshot.versions != versions:
            configuration = read_configuration(self._home, self._environ)
            snapshot = _ConfigSnapshot(versions, configuration, dict.fromkeys(configuration.server_names()))
            is_final = is_settled(max(version[0] for version in versions), now_ns)
            self._snapshot = snapshot if is_final else replace(snapshot, versions=())
            return snapshot
        return self._snapshot


@dataclass(frozen=True, slots=True)
class _ConfigSnapshot:
    """The content of the files, the versions of the files, and the servers' names in their order."""

    versions: tuple[tuple[int, ...], ...]
    configuration: Configuration | None = None
    names: Mapping[str, None] = field(default_factory=dict[str, None])


def _file_version(path: str) -> tuple[int, ...]:
    """Return when a file last changed (nanoseconds), and the values that identify its version."""
    try:
        file, link = os.stat(path), os.lstat(path)  # noqa: PTH116  see ConfigServers._paths
    except OSError:
        return (0,)
    # The modification time alone is not enough: `cp -p` and `mv` can set an older time.
    changed_at = max(file.st_ctime_ns, file.st_mtime_ns)
    return changed_at, file.st_mtime_ns, file.st_size, file.st_ino, link.st_ctime_ns, link.st_ino
