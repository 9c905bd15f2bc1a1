"""`hermes-mcp-auth`: finds the verb, runs it, and turns what is raised into a sentence and an exit code."""

from __future__ import annotations

import os
import sys
import time

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.hermes_home import hermes_home
from hermes_mcp_auth_remote.store.files.fast_token import read_valid_token

# What a shell shows for a process that SIGPIPE ended.
BROKEN_PIPE_EXIT_CODE = 141


def run() -> None:
    """Run the command of this process's arguments and exit."""
    sys.exit(main(sys.argv[1:]))


def main(argv: list[str]) -> int:
    """Run a command; returns its exit code."""
    try:
        if _print_fast_token(argv):
            return 0
        return _dispatch(argv)
    except BrokenPipeError:
        # Whoever read us has seen enough.
        _discard_stdout()
        return BROKEN_PIPE_EXIT_CODE
    except (McpAuthError, KeyboardInterrupt, OSError) as error:
        from hermes_mcp_auth_remote.cli.arguments import own_arguments
        from hermes_mcp_auth_remote.cli.output import error_from_os_error, report_error, report_interrupt

        as_json = "--json" in own_arguments(argv)
        if isinstance(error, McpAuthError):
            return report_error(error, as_json=as_json)
        if isinstance(error, KeyboardInterrupt):
            return report_interrupt(error, as_json=as_json)
        # A standard output on a full disk, for one.
        _discard_stdout()
        return report_error(error_from_os_error(error), as_json=False)
    except BaseException as error:
        from hermes_mcp_auth_remote.traceback_redaction import hide_locals

        # An error tracker of this process (a sitecustomize, PYTHONSTARTUP) shows variables.
        hide_locals(error)
        raise


def _print_fast_token(argv: list[str]) -> bool:
    """Print a stored token that is beyond doubt, or its header, without loading anything else."""
    if len(argv) != 2 or argv[0] not in {"token", "header"} or argv[1].startswith("-"):
        return False
    token = read_valid_token(hermes_home(os.environ), argv[1], time.time())
    if token is not None:
        print(token if argv[0] == "token" else f"Authorization: Bearer {token}", flush=True)
    return token is not None


def _dispatch(argv: list[str]) -> int:
    # Each verb loads what it needs and no more.
    from hermes_mcp_auth_remote.cli.arguments import build_parser, parse_arguments
    from hermes_mcp_auth_remote.cli.output import substitute_unencodable
    from hermes_mcp_auth_remote.cli.verbs import load_verb

    substitute_unencodable(sys.stdout, sys.stderr)
    top = build_parser()
    options = parse_arguments(top, argv)
    if options.version:
        from importlib.metadata import version

        print(version("hermes-mcp-auth-remote"), flush=True)
        return 0
    if options.verb is None:
        top.print_help()
        return 0

    return load_verb(options.verb)(options)


def _discard_stdout() -> None:
    """Keep Python from trying, and complaining, again while it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    run()
