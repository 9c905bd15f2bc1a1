"""The servers of config.yaml, read again when the file changes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hermes_mcp_auth_remote.config import find_server, server_names
from hermes_mcp_auth_remote.errors import ServerNotFound
from hermes_mcp_auth_remote.store.files.private_files import MTIME_RESOLUTION_NS
from hermes_mcp_auth_remote.values import Server


class ConfigServers:
    """The servers of config.yaml. Changes to the file apply while the bot runs."""

    def __init__(self, home: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._home = home
        self._environ = environ
        self._snapshot = _ConfigSnapshot((), {})

    def names(self) -> list[str]:
        """Return the servers that use OAuth, including those with an invalid entry."""
        return list(self._current_snapshot().names)

    def find(self, name: str) -> Server:
        """Return one server; raises ServerNotFound."""
        snapshot = self._current_snapshot()
        if name not in snapshot.names:
            raise ServerNotFound(
                f"No server {name} is configured here.", "Choose one of the configured servers."
            )
        if name not in snapshot.servers:
            snapshot.servers[name] = find_server(name, self._home, self._environ)
        return snapshot.servers[name]

    def _current_snapshot(self) -> _ConfigSnapshot:
        """Return the last snapshot if the files have not changed since, else read them again."""
        versions = tuple(_file_version(self._home / name) for name in ("config.yaml", ".env"))
        if self._snapshot.versions != versions:
            names = tuple(server_names(self._home, self._environ))
            snapshot = _ConfigSnapshot(versions, {}, names)
            is_settled = time.time_ns() - max(version[0] for version in versions) > MTIME_RESOLUTION_NS
            self._snapshot = snapshot if is_settled else replace(snapshot, versions=())
            return snapshot
        return self._snapshot


@dataclass(frozen=True, slots=True)
class _ConfigSnapshot:
    """The contents of the files in these versions. `servers` is filled on demand."""

    versions: tuple[tuple[int, ...], ...]
    servers: dict[str, Server]
    names: tuple[str, ...] = ()


def _file_version(path: Path) -> tuple[int, ...]:
    """Return when a file last changed (nanoseconds), and the values that identify its version."""
    try:
        file, link = path.stat(), path.lstat()
    except OSError:
        return (0,)
    # The modification time alone is not enough: `cp -p` and `mv` set an older one.
    changed_at = max(file.st_ctime_ns, file.st_mtime_ns)
    return changed_at, file.st_mtime_ns, file.st_size, file.st_ino, link.st_ctime_ns, link.st_ino
