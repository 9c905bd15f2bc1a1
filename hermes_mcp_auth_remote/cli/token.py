"""`token`: print a valid access token. Refresh it first if necessary."""

from __future__ import annotations

import argparse
from contextlib import suppress

from hermes_mcp_auth_remote.cli.output import print_json
from hermes_mcp_auth_remote.cli.owners import find_owner_error
from hermes_mcp_auth_remote.cli.servers import current_home, resolve_server
from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.commands import login_command
from hermes_mcp_auth_remote.errors import AuthorizationRequired, ConfigError, StoreError
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.values import Owner


def run(options: argparse.Namespace) -> int:
    """Print the token. Raises AuthorizationRequired if a login is needed."""
    session, authorization = valid_authorization(options.server, options.owner)
    access_token = authorization.partition(" ")[2]
    if options.json:
        connection = AuthService(current_home()).blocking.connection(session.server, options.owner)
        print_json(
            {
                "event": "token",
                "server": session.server.name,
                "owner": options.owner,
                "url": session.server.url,
                "access_token": access_token,
                "token_type": "Bearer",
                "expires_at": connection.expires_at if connection else None,
            }
        )
    else:
        print(access_token, flush=True)
    return 0


def valid_authorization(name: str, owner: Owner) -> tuple[Session, str]:
    """Return a server's session and the value of a valid Authorization header.

    `name` is a name or a URL. Raises AuthorizationRequired if a login is needed. Raises ConfigError if the
    token is bound to a key (DPoP, RFC 9449), because no other program can use such a token.
    """
    service = AuthService(current_home())
    session = service.session(resolve_server(name, owner), owner)
    try:
        authorization = run_until_stopped(session.header())
    except AuthorizationRequired as error:
        server = session.server
        if server.known_from != "config":
            # `login` finds the server as this command did. It may repeat the address that the user typed.
            error.advice = f"Run `{login_command(server if server.is_known else name, owner)}`."
        owner_error = find_owner_error(service, owner)
        if owner_error is not None and owner_error.known_owners:
            error.advice = f"{error.advice} {owner_error} {owner_error.advice}"
        raise
    if owner is None:
        # If this fails, the next call is only slower.
        with suppress(StoreError):
            service.blocking.save_config_identity(session.server)
    if session.prover is not None:
        raise ConfigError(
            f"The token of {session.server.name} is bound to a key: every request needs its own proof.",
            "Use `McpAuth` in a program, or set `oauth.dpop: false` for this server and log in again.",
        )
    return session, authorization
