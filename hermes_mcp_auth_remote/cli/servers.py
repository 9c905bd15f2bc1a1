"""Resolve the server of a command: a name in config.yaml, a URL, or the name of a stored login."""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import replace
from pathlib import Path

from hermes_mcp_auth_remote.config import Configuration, hermes_home_path, read_configuration, server_from_url
from hermes_mcp_auth_remote.errors import ConfigError, ServerNotFound, StoreError
from hermes_mcp_auth_remote.phrases import display_url
from hermes_mcp_auth_remote.service.default import server_by_name, service_at
from hermes_mcp_auth_remote.values import CredentialKey, Owner, Server


def current_home() -> Path:
    """Return the HERMES_HOME of this process."""
    return hermes_home_path(os.environ)


def current_configuration() -> Configuration:
    """Read config.yaml and .env of this process's HERMES_HOME, once for a command."""
    return read_configuration(current_home(), os.environ)


def resolve_server(
    name: str | None,
    owner: Owner = None,
    configuration: Configuration | None = None,
    *,
    with_suggestions: bool = True,
) -> Server:
    """Return the server with a name or URL. Raises ConfigError or ServerNotFound.

    Pass `configuration` if the command resolves more than one server. `with_suggestions` is for names
    that the user typed.
    """
    if name is None:
        raise ConfigError("No server was named.", "Name a server of config.yaml, or give its address.")
    return server_by_name(name, owner, configuration, with_suggestions=with_suggestions)


def server_for_key(key: CredentialKey, configuration: Configuration | None = None) -> Server:
    """Return the server of stored credentials, with its options from config.yaml if it has any.

    If the server's URL is unknown, the result has the issuer as its URL, so that a revocation can reach it.
    Never raises ConfigError or StoreError.
    """
    with contextlib.suppress(ConfigError, StoreError):
        return resolve_server(key.server_name, key.owner, configuration)
    try:
        credentials = service_at(current_home()).blocking.read_credentials(
            Server(key.server_name, ""), key.owner
        )
    except StoreError:
        return Server(key.server_name, "")
    if credentials.binding is not None:
        binding = credentials.binding
        return Server(key.server_name, binding.server_url, is_public_only=binding.is_public_only)
    authorization_server = credentials.authorization_server
    return Server(key.server_name, "" if authorization_server is None else authorization_server.issuer)


def server_at_url(url: str, name: str | None, owner: Owner = None) -> Server:
    """Return the server at a URL, for a login.

    Raises ConfigError if the URL is invalid, or if the name already belongs to another URL: a login would
    replace the credentials of that server.
    """
    server = server_from_url(url, name)
    try:
        configured_server = resolve_server(server.name, owner)
    except ServerNotFound as not_found:
        return replace(server, config_files=not_found.config_files)
    except (ConfigError, StoreError):
        # A login by URL must work even if config.yaml or a stored file is unreadable.
        return server
    if configured_server.url != server.url:
        raise ConfigError(
            f"The name {server.name} already belongs to {display_url(configured_server.url)}.",
            f"Give the new server another name: hermes-mcp-auth login NAME --url {shlex.quote(server.url)}",
        )
    # This server has its options from config.yaml.
    return configured_server


def login_command(server_argument: str, owner: Owner = None) -> str:
    """Return the command for a login, quoted for a shell. `server_argument` is a name or a URL."""
    return command_for("login", server_argument, owner)


def command_for(verb: str, server_argument: str, owner: Owner = None) -> str:
    """Return the command that runs a verb for a server, quoted for a shell."""
    return shlex.join(["hermes-mcp-auth", verb, server_argument, *(["--owner", owner] if owner else [])])
