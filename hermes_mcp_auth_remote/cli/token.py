"""`token`: a valid access token on standard output, refreshed first where need be."""

from __future__ import annotations

import argparse

from hermes_mcp_auth_remote.cli.outcome import put
from hermes_mcp_auth_remote.cli.servers import login_command, named, the_home
from hermes_mcp_auth_remote.cli.stopping import run_until_stopped
from hermes_mcp_auth_remote.errors import AuthorizationRequired
from hermes_mcp_auth_remote.service import AuthService


def run(options: argparse.Namespace) -> int:
    """Print the token; raises AuthorizationRequired where somebody has to log in first."""
    server = named(options.server, options.owner)
    service = AuthService(the_home())
    try:
        header = run_until_stopped(service.session(server, options.owner).header())
    except AuthorizationRequired as needed:
        # The session knows neither what was typed here nor that this command has options.
        needed.advice = f"Run `{login_command(options.server, options.owner)}`."
        raise
    access_token = header.partition(" ")[2]
    if options.json:
        found = service.connection(server, options.owner)
        put(
            {
                "server": server.name,
                "url": server.url,
                "access_token": access_token,
                "token_type": "Bearer",
                "expires_at": found.expires_at if found else None,
            }
        )
    else:
        print(access_token, flush=True)
    return 0
