"""`logout`: the tokens are revoked as best it goes, then deleted."""

from __future__ import annotations

import argparse
import sys

from hermes_mcp_auth_remote.cli.outcome import put
from hermes_mcp_auth_remote.cli.servers import named, the_home
from hermes_mcp_auth_remote.cli.stopping import run_until_stopped
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.terminal.screen import size
from hermes_mcp_auth_remote.terminal.words import YES, filled, shown


def run(options: argparse.Namespace) -> int:
    """Log out; that nobody was logged in is no error."""
    server = named(options.server, options.owner)
    service = AuthService(the_home())
    found = service.connection(server, options.owner)
    revoked = run_until_stopped(service.logout(server, options.owner))
    if options.json:
        put(
            {
                "server": server.name,
                "owner": options.owner,
                "was_connected": found is not None,
                "revoked": revoked,
            }
        )
        return 0
    if found is None:
        said = "nobody was logged in"
    elif revoked:
        said = "logged out; the provider has revoked the tokens"
    else:
        said = (
            "logged out on this machine. The provider did not revoke the tokens: they end by themselves, "
            "or in your account's settings there"
        )
    print(filled(f"{YES} {shown(server.name)}: {said}.", size(sys.stdout)[0]), flush=True)
    return 0
