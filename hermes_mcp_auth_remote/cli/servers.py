"""Which server a command means: a name in config.yaml, a URL, or a name that has logged in before."""

from __future__ import annotations

import os
from pathlib import Path

from hermes_mcp_auth_remote.config import find_server, home, server_from_url
from hermes_mcp_auth_remote.errors import ConfigError, ServerNotFound
from hermes_mcp_auth_remote.store.files import FileStore
from hermes_mcp_auth_remote.values import Key, Owner, Server


def the_home() -> Path:
    """Return the HERMES_HOME of this process."""
    return home(os.environ)


def named(name: str | None, url: str | None = None, owner: Owner = None) -> Server:
    """Return the server that a command names; raises ConfigError, ServerNotFound."""
    if url is not None:
        return server_from_url(url, name)
    if name is None:
        raise ConfigError("No server was named.", "Name one of config.yaml, or pass its address with --url.")
    if "://" in name:
        return server_from_url(name)
    try:
        return find_server(name, the_home(), os.environ)
    except ServerNotFound:
        # Logged in to with --url: no config knows it, its credentials do.
        binding = FileStore(the_home()).read(Key(name, owner)).binding
        if binding is None:
            raise
        return Server(name, binding.server_url)
