"""Which servers people can connect in a chat: those of config.yaml, or those that a program hands in."""

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
    """The servers of one chat. May read files: called off the event loop."""

    def names(self) -> list[str]:
        """List their names, in the order in which people see them; raises ConfigError."""
        ...

    def find(self, name: str) -> Server:
        """Return one; raises ServerNotFound, or ConfigError where its entry has a mistake."""
        ...


class ConfigServers:
    """What config.yaml names, as it is at the time: the operator may change it while the bot runs."""

    def __init__(self, home: Path, environ: Mapping[str, str] = os.environ) -> None:
        self._home = home
        self._environ = environ
        self._snapshot = _ConfigSnapshot((), {})

    def names(self) -> list[str]:
        """List the servers that use OAuth, also those with a mistake in their entries."""
        return list(self._current_snapshot().names)

    def find(self, name: str) -> Server:
        """Return one of them."""
        read = self._current_snapshot()
        if name not in read.names:
            raise ServerNotFound(f"No server {name} is configured here.", "Choose one of those that are.")
        if name not in read.servers:
            read.servers[name] = find_server(name, self._home, self._environ)
        return read.servers[name]

    def _current_snapshot(self) -> _ConfigSnapshot:
        """Return what was read, if the files are as they were then, else read anew."""
        versions = tuple(_file_version(self._home / name) for name in ("config.yaml", ".env"))
        if self._snapshot.versions != versions:
            names = tuple(server_names(self._home, self._environ))
            read = _ConfigSnapshot(versions, {}, names)
            is_settled = time.time_ns() - max(each[0] for each in versions) > MTIME_RESOLUTION_NS
            self._snapshot = read if is_settled else replace(read, versions=())
            return read
        return self._snapshot


@dataclass(frozen=True, slots=True)
class _ConfigSnapshot:
    """What the files said in those versions; servers as they are asked for."""

    versions: tuple[tuple[int, ...], ...]
    servers: dict[str, Server]
    names: tuple[str, ...] = ()


def _file_version(path: Path) -> tuple[int, ...]:
    """Return when a file was last changed (nanoseconds), and what else tells it from what it was."""
    try:
        file, link = path.stat(), path.lstat()
    except OSError:
        return (0,)
    # The time of writing alone does not do: `cp -p` and `mv` bring an older one.
    changed_at = max(file.st_ctime_ns, file.st_mtime_ns)
    return changed_at, file.st_mtime_ns, file.st_size, file.st_ino, link.st_ctime_ns, link.st_ino


class StaticServers:
    """Servers that a program hands in."""

    def __init__(self, servers: Iterable[Server]) -> None:
        self._servers = {server.name: server for server in servers}

    def names(self) -> list[str]:
        """List them as they were given."""
        return list(self._servers)

    def find(self, name: str) -> Server:
        """Return one of them."""
        if name not in self._servers:
            raise ServerNotFound(f"No server {name} is known here.", "Choose one of those that are.")
        return self._servers[name]


def tag_of(server_name: str) -> str:
    """Return what stands for a server's name in a button, which has no room for long ones."""
    return sha256(server_name.encode("utf-8", "surrogatepass")).hexdigest()[:TAG_CHARS]


def resolve_server(servers: Servers, name: str, server_tag: str = "") -> Server | None:
    """Return the server of a name, as a person may write it, or of a tag; None where there is no such.

    Raises ConfigError where its entry has a mistake.
    """
    names = servers.names()
    if server_tag:
        found = next((each for each in names if tag_of(each) == server_tag), None)
    elif name in names:
        found = name
    else:
        alike = [each for each in names if each.casefold() == name.casefold()]
        found = alike[0] if len(alike) == 1 else None
    return None if found is None else servers.find(found)


def redirect_uris(servers: Servers) -> tuple[str, ...]:
    """List the redirect URIs that the servers' options name; an entry with a mistake has none."""
    found = list[str]()
    with contextlib.suppress(McpAuthError):
        for name in servers.names():
            with contextlib.suppress(McpAuthError):
                uri = servers.find(name).options.redirect_uri
                found += [] if uri is None else [uri]
    return tuple(found)
