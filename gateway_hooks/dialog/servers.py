"""The servers that users can connect in a chat: from config.yaml, or passed in by a program."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from hermes_mcp_auth_remote.config import find_server, server_names
from hermes_mcp_auth_remote.errors import McpAuthError, ServerNotFound
from hermes_mcp_auth_remote.store.files.private_files import MTIME_RESOLUTION_NS
from hermes_mcp_auth_remote.values import Server

TAG_CHARS = 16


class Servers(Protocol):
    """The servers of one bot. May read files: do not call it on the event loop."""

    def names(self) -> list[str]:
        """Return the names in display order; raises ConfigError."""
        ...

    def find(self, name: str) -> Server:
        """Return one server; raises ServerNotFound, or ConfigError if its entry is invalid."""
        ...


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


class StaticServers:
    """Servers that a program passes in."""

    def __init__(self, servers: Iterable[Server]) -> None:
        self._servers = {server.name: server for server in servers}

    def names(self) -> list[str]:
        """Return the names in the order of the servers passed in."""
        return list(self._servers)

    def find(self, name: str) -> Server:
        """Return one server; raises ServerNotFound."""
        if name not in self._servers:
            raise ServerNotFound(
                f"No server {name} is configured here.", "Choose one of the configured servers."
            )
        return self._servers[name]


def tag_of(server_name: str) -> str:
    """Return a short tag for a server's name: a button has no room for a long one."""
    return sha256(server_name.encode("utf-8", "surrogatepass")).hexdigest()[:TAG_CHARS]


def resolve_server(servers: Servers, name: str, server_tag: str = "") -> Server | None:
    """Return the server with this tag or name, ignoring case if unambiguous; None if there is none.

    Raises ConfigError if its entry is invalid.
    """
    names = servers.names()
    if server_tag:
        server_name = next((candidate for candidate in names if tag_of(candidate) == server_tag), None)
    elif name in names:
        server_name = name
    else:
        matches = [candidate for candidate in names if candidate.casefold() == name.casefold()]
        server_name = matches[0] if len(matches) == 1 else None
    return None if server_name is None else servers.find(server_name)


def redirect_uris(servers: Servers) -> tuple[str, ...]:
    """Return the redirect URIs that the servers' options name; skip invalid entries."""
    uris = list[str]()
    with contextlib.suppress(McpAuthError):
        for name in servers.names():
            with contextlib.suppress(McpAuthError):
                uri = servers.find(name).options.redirect_uri
                uris += [] if uri is None else [uri]
    return tuple(uris)
