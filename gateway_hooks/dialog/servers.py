"""The servers that users can connect in a chat, and the lookup of a server by typed name or button."""

from __future__ import annotations

import contextlib
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches
from hashlib import sha256
from typing import Protocol, runtime_checkable

from hermes_mcp_auth_remote.config.server_names import find_spelling
from hermes_mcp_auth_remote.errors import McpAuthError, ServerNotFound
from hermes_mcp_auth_remote.values import Server

TAG_CHARS = 16
# A longer text is not a mistyped name.
MAX_NAME_CHARS = 60


class Servers(Protocol):
    """The servers of one bot. The methods may read files: do not call them on the event loop."""

    def names(self) -> list[str]:
        """Return the names in display order; raises ConfigError."""
        ...

    def find(self, name: str) -> Server:
        """Return one server; raises ServerNotFound, or ConfigError if its entry is invalid."""
        ...


@runtime_checkable
class ServerEntries(Protocol):
    """The part of `Servers` with a configuration file, which may have entries that chats do not offer."""

    def entry_names(self) -> list[str]:
        """Return the names of all entries; raises ConfigError."""
        ...

    def find_entry(self, name: str) -> Server | None:
        """Return the server of any entry with a URL; None if there is none, or if the entry is invalid."""
        ...


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


def tag_of(name: str) -> str:
    """Return a short tag of a server's name or a user's id, for the action of a button.

    A platform limits the length of actions: Telegram to 64 bytes.
    """
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:TAG_CHARS]


def resolve_server(servers: Servers, name: str, server_tag: str = "") -> Server | None:
    """Return the server with this tag or, if the tag is empty, with this name; None if there is none.

    A name that differs only in case or Unicode normal form also matches, if only one server has it.
    Raises ConfigError if the server's entry is invalid.
    """
    names = servers.names()
    if server_tag:
        server_name = next((candidate for candidate in names if tag_of(candidate) == server_tag), None)
    elif (spelling := find_spelling(name, names)) is not None:
        server_name = spelling
    else:
        folded_name = unicodedata.normalize("NFKC", name).casefold()
        matches = [
            candidate
            for candidate in names
            if unicodedata.normalize("NFKC", candidate).casefold() == folded_name
        ]
        server_name = matches[0] if len(matches) == 1 else None
    return None if server_name is None else servers.find(server_name)


def similar_server(names: Iterable[str], name: str) -> str | None:
    """Return the server whose name is most similar to a mistyped one; None if none is similar.

    The bot's reply may repeat a text that is similar to a name: it is a mistyped name, not a code.
    """
    names_by_folded = {candidate.casefold(): candidate for candidate in names}
    matches = get_close_matches(name.casefold()[:MAX_NAME_CHARS], list(names_by_folded), 1)
    return names_by_folded[matches[0]] if matches else None


def redirect_uris(servers: Servers) -> tuple[str, ...]:
    """Return the redirect URIs in the servers' options; skip invalid entries."""
    uris = list[str]()
    with contextlib.suppress(McpAuthError):
        for name in servers.names():
            with contextlib.suppress(McpAuthError):
                uri = servers.find(name).options.redirect_uri
                uris += [] if uri is None else [uri]
    return tuple(uris)
