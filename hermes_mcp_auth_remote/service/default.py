"""The default service of this process: HERMES_HOME and its config.yaml."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from hermes_mcp_auth_remote.config import find_server, hermes_home_path, server_from_url
from hermes_mcp_auth_remote.errors import ServerNotFound
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals
from hermes_mcp_auth_remote.values import CredentialKey, Owner, Server


@lru_cache(maxsize=8)
def service_at(home: Path) -> AuthService:
    """Return the service of a HERMES_HOME; all callers in a process share it and its sessions."""
    return AuthService(home)


def default_service() -> AuthService:
    """Return the service of this process's HERMES_HOME."""
    return service_at(hermes_home_path(os.environ))


@with_hidden_locals
def server_by_name(name: str, owner: Owner = None) -> Server:
    """Return a server by its URL, its name in config.yaml, or the name that a login by URL gave it.

    Raises ConfigError, ServerNotFound, StoreError.
    """
    if "://" in name:
        return server_from_url(name)
    home = hermes_home_path(os.environ)
    try:
        return find_server(name, home, os.environ)
    except ServerNotFound as not_found:
        # The user logged in by URL: only the credentials know this server, not config.yaml.
        binding = FileStore(home).read(CredentialKey(name, owner)).binding
        if binding is None:
            raise
        return Server(name, binding.server_url, config_files=not_found.config_files)


@with_hidden_locals
def open_session(server: str) -> Session:
    """Return the operator's session of a server, by its URL or name; raises as `server_by_name` does."""
    return service_at(hermes_home_path(os.environ)).session(server_by_name(server))
