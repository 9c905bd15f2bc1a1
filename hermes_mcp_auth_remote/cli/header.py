"""`header`: print the Authorization header of a valid access token, for curl and similar programs."""

from __future__ import annotations

import argparse
import json

from hermes_mcp_auth_remote.cli.token import valid_authorization


def run(options: argparse.Namespace) -> int:
    """Print the header. Raises AuthorizationRequired if a login is needed."""
    _, authorization = valid_authorization(options.server, options.owner)
    if options.json:
        # Programs that run a helper to get their headers expect a JSON object of headers and no other member.
        print(json.dumps({"Authorization": authorization}), flush=True)
    else:
        print(f"Authorization: {authorization}", flush=True)
    return 0
