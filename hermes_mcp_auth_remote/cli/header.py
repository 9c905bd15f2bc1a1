"""`header`: the Authorization header of a valid access token on standard output, for curl and its like."""

from __future__ import annotations

import argparse

from hermes_mcp_auth_remote.cli.output import print_json
from hermes_mcp_auth_remote.cli.token import valid_authorization


def run(options: argparse.Namespace) -> int:
    """Print the header; raises AuthorizationRequired where somebody has to log in first."""
    _, authorization = valid_authorization(options.server, options.owner)
    if options.json:
        # An object of headers, which is what programs with a helper for headers read.
        print_json({"Authorization": authorization})
    else:
        print(f"Authorization: {authorization}", flush=True)
    return 0
