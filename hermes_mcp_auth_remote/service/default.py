"""The default service of this process: HERMES_HOME and its config.yaml."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from hermes_mcp_auth_remote.config import (
    Configuration,
    hermes_home_path,
    read_configuration,
    server_from_url,
)
from hermes_mcp_auth_remote.config.server_names import spellings
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
    """Return a server by its URL, its name in config.yaml, or the name that a login by URL gave it.

    Blocks while it reads the files and, for a name that is not in config.yaml, the store.
    `configuration` is config.yaml and .env as the caller has read them; None: read them now. Raises
    ConfigError, StoreError, and ServerNotFound, which lists similar names if `with_suggestions`.
    """
    if "://" in name:
        return server_from_url(name)
    home = hermes_home_path(os.environ)
    configuration = configuration or read_configuration(home, os.environ)
    server = configuration.get_server(name) or _stored_server(service_at(home), name, owner, configuration)
    if server is None:
        raise configuration.server_not_found(name, with_suggestions=with_suggestions)
    return server


@with_hidden_locals
def _stored_server(
    service: AuthService, name: str, owner: Owner, configuration: Configuration
) -> Server | None:
    """Return a server that is only in the stored credentials (the user logged in by URL), else None.

    The name may be in any Unicode normal form. Raises StoreError.
    """
    for spelling in spellings(name):
        binding = service.blocking.read_credentials(Server(spelling, ""), owner).binding
        if binding is not None:
            return Server(
                spelling,
                binding.server_url,
                config_files=configuration.identity,
                is_public_only=binding.is_public_only,
            )
    return None


@with_hidden_locals
def open_session(server: str, owner: Owner = None) -> Session:
    """Return an owner's session of a server, by its URL or name; raises as `server_by_name` does.

    Blocks while it reads config.yaml, and for a name that is not there also the store.
    """
    return service_at(hermes_home_path(os.environ)).session(server_by_name(server, owner), owner)
