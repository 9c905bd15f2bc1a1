"""`hermes-mcp-auth`: finds the verb, runs it, and turns what is raised into a sentence and an exit code."""

from __future__ import annotations

import os
import sys
import time

from hermes_mcp_auth_remote.hermes import hermes_home
from hermes_mcp_auth_remote.store.peek import valid_token


def run() -> None:
    """Run the command of this process's arguments and exit."""
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str]) -> int:
    """Run a command; returns its exit code."""
    try:
        code = _fast_token(argv)
        return _dispatch(argv) if code is None else code
    except BrokenPipeError:
        # Whoever read us has seen enough; keep Python from complaining again while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _fast_token(argv: list[str]) -> int | None:
    """Print a stored token that is beyond doubt, without loading anything else."""
    if len(argv) != 2 or argv[0] != "token" or argv[1].startswith("-"):
        return None
    token = valid_token(hermes_home(os.environ), argv[1], time.time())
    if token is None:
        return None
    print(token, flush=True)
    return 0


def _dispatch(argv: list[str]) -> int:
    # Each verb loads what it needs and no more.
    from hermes_mcp_auth_remote.cli.arguments import parser

    top = parser()
    options = top.parse_args(argv)
    if options.version:
        from importlib.metadata import version

        print(version("hermes-mcp-auth-remote"))
        return 0
    if options.verb is None:
        top.print_help()
        return 0

    from importlib import import_module

    from hermes_mcp_auth_remote.cli.outcome import INTERRUPTED, fail
    from hermes_mcp_auth_remote.errors import McpAuthError

    try:
        code: int = import_module(f"hermes_mcp_auth_remote.cli.{options.verb}").run(options)
    except McpAuthError as error:
        return fail(error, as_json=options.json)
    except KeyboardInterrupt:
        print("\nCancelled; nothing was changed.", file=sys.stderr)
        return INTERRUPTED
    else:
        return code


if __name__ == "__main__":
    run()
