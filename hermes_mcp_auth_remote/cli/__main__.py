"""`hermes-mcp-auth`: run the verb, and turn an exception into an error message and an exit code."""

from __future__ import annotations

import os
import sys
import time

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.hermes_home import hermes_home
from hermes_mcp_auth_remote.store.files.fast_token import read_valid_token

# If SIGPIPE ends a process, a shell reports this exit code.
BROKEN_PIPE_EXIT_CODE = 141


def run() -> None:
    """Run the command from `sys.argv` and exit."""
    sys.exit(main(sys.argv[1:], is_own_process=True))


def main(argv: list[str], *, is_own_process: bool = False) -> int:
    """Run a command and return its exit code. `argv` does not contain the program's name.

    Set `is_own_process` if `sys.argv` contains this command, so that printed commands can begin as it does.
    """
    try:
        if _print_fast_token(argv):
            return 0
        if is_own_process:
            from hermes_mcp_auth_remote.shown_program import show_how_started

            show_how_started()
        return _dispatch(argv)
    except BrokenPipeError:
        # The reader closed the pipe.
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
        # For example, standard output is a file on a full disk.
        _discard_stdout()
        return report_error(error_from_os_error(error), as_json=False)
    except BaseException as error:
        from hermes_mcp_auth_remote.traceback_redaction import hide_locals

        # An error tracker in this process (from sitecustomize or PYTHONSTARTUP) may record local variables.
        hide_locals(error)
        raise


def _print_fast_token(argv: list[str]) -> bool:
    """Print a stored valid token or its header without loading other modules; False if there is none."""
    if len(argv) != 2 or argv[0] not in {"token", "header"} or argv[1].startswith("-"):
        return False
    token = read_valid_token(hermes_home(os.environ), argv[1], time.time())
    if token is not None:
        print(token if argv[0] == "token" else f"Authorization: Bearer {token}", flush=True)
    return token is not None


def _dispatch(argv: list[str]) -> int:
    # Import late, so that the fast path and each verb load only what they need.
    from hermes_mcp_auth_remote.cli.arguments import build_parser, parse_arguments
    from hermes_mcp_auth_remote.cli.output import (
        correct_address,
        doctor_command,
        report_error,
        substitute_unencodable,
    )
    from hermes_mcp_auth_remote.cli.verbs import load_verb

    substitute_unencodable(sys.stdout, sys.stderr)
    parser = build_parser()
    options = parse_arguments(parser, argv)
    if options.version:
        from importlib.metadata import version

        print(version("hermes-mcp-auth-remote"), flush=True)
        return 0
    if options.verb is None:
        parser.print_help()
        return 0

    try:
        return load_verb(options.verb)(options)
    except McpAuthError as error:
        correct_address(error, argv)
        if options.verb != "login":
            raise
        return report_error(error, as_json=options.json, doctor_command=doctor_command(error, options))


def _discard_stdout() -> None:
    """Redirect standard output to the null device, so that Python's flush at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    run()
