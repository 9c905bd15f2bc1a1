"""Resolve the server of a command: a name in config.yaml, a URL, or the name of a stored login."""

from __future__ import annotations

import argparse
import contextlib
import os
from dataclasses import replace
from pathlib import Path

from hermes_mcp_auth_remote.cli.output import print_paragraph
from hermes_mcp_auth_remote.commands import login_command
from hermes_mcp_auth_remote.config import Configuration, hermes_home_path, read_configuration, server_from_url
from hermes_mcp_auth_remote.errors import (
    AmbiguousAddress,
    ConfigError,
    SchemeMissing,
    ServerNotFound,
    StoreError,
)
from hermes_mcp_auth_remote.oauth.urls import is_same_address
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
    name: str,
    owner: Owner = None,
    configuration: Configuration | None = None,
    *,
    with_suggestions: bool = True,
    unknown_name_advice: str | None = None,
) -> Server:
    """Return the server with a name or URL. Raises ConfigError or ServerNotFound.

    Pass `configuration` if the command resolves more than one server. `with_suggestions` is for names
    that the user typed. `unknown_name_advice` is for a verb that a login does not help.
    """
    try:
        return server_by_name(name, owner, configuration, with_suggestions=with_suggestions)
    except SchemeMissing:
        raise
    except ServerNotFound as error:
        if unknown_name_advice is not None and not error.similar_names:
            error.advice = unknown_name_advice
        raise


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


def server_for_login(options: argparse.Namespace, owner: Owner) -> Server:
    """Return the server that the arguments of `login` name: a name, an address, or a name for `--url`.

    If the address belongs to a known server, says so on standard error. Raises ConfigError if the URL is
    invalid, or if the name already belongs to another URL: a login would replace the credentials of that
    server. Raises AmbiguousAddress if several servers have the address and no name is given.
    """
    configuration = current_configuration()
    name, url = options.server, options.url
    if url is None and "://" not in str(name):
        return resolve_server(name, owner, configuration)
    url, name = (name, None) if url is None else (url, name)
    server = _server_at_url(url, name, owner, configuration)
    if not options.json:
        if name is None and server.is_known:
            print_paragraph(
                f"{display_url(server.url)} is the address of {server.name}: this login is for {server.name}."
            )
        elif name is not None and not server.is_known:
            _report_same_address(server, owner, configuration)
    return server


def _server_at_url(url: str, name: str | None, owner: Owner, configuration: Configuration) -> Server:
    server = server_from_url(url, name)
    try:
        known_server = resolve_server(
            url if name is None else name, owner, configuration, with_suggestions=False
        )
    except ServerNotFound as not_found:
        return replace(server, config_files=not_found.config_files)
    except AmbiguousAddress:
        raise
    except (ConfigError, StoreError):
        # A login by URL must work even if config.yaml or a stored file is unreadable.
        return server
    if not is_same_address(known_server.url, server.url):
        raise ConfigError(
            f"The name {known_server.name} already belongs to {display_url(known_server.url)}.",
            f"Give the new server another name, or leave the name out: `{login_command(url, owner)}`.",
        )
    # A server of config.yaml has its options from there.
    return known_server


def _report_same_address(server: Server, owner: Owner, configuration: Configuration) -> None:
    """Say so if another server has the address of a new one."""
    try:
        other = resolve_server(server.url, owner, configuration)
    except (ConfigError, StoreError):
        return
    if other.is_known:
        print_paragraph(
            f"{other.name} has the same address. After this login, use the names {other.name} and "
            f"{server.name}: the address alone no longer says which one you mean."
        )
