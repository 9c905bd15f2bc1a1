"""Which server a command means: a name in config.yaml, a URL, or a name that has logged in before."""

from __future__ import annotations

import contextlib
import os
import shlex
from dataclasses import replace
from pathlib import Path

from hermes_mcp_auth_remote.config import hermes_home_path, server_from_url
from hermes_mcp_auth_remote.errors import ConfigError, ServerNotFound, StoreError
from hermes_mcp_auth_remote.phrases import display_url
from hermes_mcp_auth_remote.service.default import server_by_name
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Owner, Server


def current_home() -> Path:
    """Return the HERMES_HOME of this process."""
    return hermes_home_path(os.environ)


def resolve_server(name: str | None, owner: Owner = None) -> Server:
    """Return the server that a command names, by name or address; raises ConfigError, ServerNotFound."""
    if name is None:
        raise ConfigError("No server was named.", "Name one of config.yaml, or pass its address with --url.")
    return server_by_name(name, owner)


def server_for_key(key: CredentialKey) -> Server:
    """Return the server of what is stored, with the options of config.yaml where it has them; never raises.

    Where nothing names its address any more, the authorization server's stands in: that is where a
    revocation goes.
    """
    with contextlib.suppress(ConfigError, StoreError):
        return resolve_server(key.server_name, key.owner)
    try:
        stored = FileStore(current_home()).read(key)
    except StoreError:
        return Server(key.server_name, "")
    if stored.binding is not None:
        return Server(key.server_name, stored.binding.server_url)
    issuer = stored.authorization_server
    return Server(key.server_name, "" if issuer is None else issuer.issuer)


def server_at_url(url: str, name: str | None, owner: Owner = None) -> Server:
    """Return the server at an address, for a login; raises ConfigError.

    Also where its name already stands for another address: that one's credentials would be replaced.
    """
    server = server_from_url(url, name)
    try:
        known = resolve_server(server.name, owner)
    except ServerNotFound as not_found:
        return replace(server, config_files=not_found.config_files)
    except (ConfigError, StoreError):
        # A config.yaml or a file that is broken has no say about an address.
        return server
    if known.url != server.url:
        raise ConfigError(
            f"The name {server.name} already stands for {display_url(known.url)}.",
            f"Give the new one a name of its own: hermes-mcp-auth login NAME --url {shlex.quote(server.url)}",
        )
    # With its options from config.yaml, where it has an entry there.
    return known


def login_command(server_argument: str, owner: Owner = None) -> str:
    """Return what to type for a login; `server` as it was named, an address too."""
    words = ["hermes-mcp-auth", "login", server_argument, *(["--owner", owner] if owner else [])]
    return shlex.join(words)
