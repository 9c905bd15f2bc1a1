"""The service of this process: HERMES_HOME and its config.yaml, for callers that have nothing to hand in."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from hermes_mcp_auth_remote.config import find_server, home, server_from_url
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import Session


@lru_cache(maxsize=8)
def service_at(home: Path) -> AuthService:
    """Return the one service of a HERMES_HOME, so that all callers of a process share its sessions."""
    return AuthService(home)


def default_service() -> AuthService:
    """Return the service of this process's HERMES_HOME."""
    return service_at(home(os.environ))


def open_session(server: str) -> Session:
    """Return the operator's session of a server, by its name in config.yaml or by its URL.

    Raises ConfigError, ServerNotFound.
    """
    here = home(os.environ)
    found = server_from_url(server) if "://" in server else find_server(server, here, os.environ)
    return service_at(here).session(found)
