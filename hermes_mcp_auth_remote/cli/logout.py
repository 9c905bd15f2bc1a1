"""`logout`: the tokens are revoked as best it goes, then deleted."""

from __future__ import annotations

import argparse
import asyncio

from hermes_mcp_auth_remote.cli.outcome import put
from hermes_mcp_auth_remote.cli.servers import named, the_home
from hermes_mcp_auth_remote.service import AuthService


def run(options: argparse.Namespace) -> int:
    """Log out; that nobody was logged in is no error."""
    server = named(options.server, owner=options.owner)
    service = AuthService(the_home())
    found = service.connection(server, options.owner)
    revoked = asyncio.run(service.logout(server, options.owner))
    if options.json:
        put({"server": server.name, "was_connected": found is not None, "revoked": revoked})
    elif found is None:
        print(f"{server.name}: nobody was logged in.")
    elif revoked:
        print(f"{server.name}: logged out; the provider has revoked the tokens.")
    else:
        print(
            f"{server.name}: logged out here. The provider could not be told to revoke the tokens; "
            "they end by themselves, or in your account's settings there."
        )
    return 0
