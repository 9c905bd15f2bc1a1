"""The default service of this process: HERMES_HOME and its config.yaml."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from hermes_mcp_auth_remote.config import Configuration, hermes_home_path, read_configuration
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import Owner, Server


@lru_cache(maxsize=8)
def service_at(home: Path) -> AuthService:
    """Return the service of a HERMES_HOME; all callers in a process share it and its sessions."""
    return AuthService(home)


def default_service() -> AuthService:
    """Return the service of this process's HERMES_HOME."""
    return service_at(hermes_home_path(os.environ))


@with_hidden_locals
def server_by_name(
    name: str,
    owner: Owner = None,
    configuration: Configuration | None = None,
    *,
    with_suggestions: bool = True,
) -> Server:
    """Return a server by its name or its address, as `server_lookup.find_server` does.

    Blocks while it reads the files and the store.
    `configuration` is config.yaml and .env as the caller has read them; None: read them now.
    """
    home = hermes_home_path(os.environ)
    configuration = configuration or read_configuration(home, os.environ)
    return service_at(home).blocking.find_server(
        name, owner, configuration, with_suggestions=with_suggestions
    )


def stored_server_names(owner: Owner = None) -> list[str]:
    """List the names of the servers with a stored or waiting login of an owner. Raises StoreError."""
    return default_service().blocking.stored_names(owner)


@with_hidden_locals
def open_session(server: str, owner: Owner = None) -> Session:
    """Return an owner's session of a server, by its URL or name; raises as `server_by_name` does.

    Blocks while it reads config.yaml, and for a name that is not there also the store.
    """
    return service_at(hermes_home_path(os.environ)).session(server_by_name(server, owner), owner)
