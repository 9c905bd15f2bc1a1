"""`run`: run a command with a fresh token in the store, and with `--env` in its environment."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping

from hermes_mcp_auth_remote.cli.output import report_error
from hermes_mcp_auth_remote.cli.token import valid_authorization
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.exit_delay import wait_for_sent_requests

_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# The exit codes of a shell, env and nohup for a command that cannot be run or is not found.
CANNOT_RUN, NOT_FOUND = 126, 127


def run(options: argparse.Namespace) -> int:
    """Get a valid token, then replace this process with the command: the command then gets the signals.

    On POSIX, returns only if the command cannot be run. Raises AuthorizationRequired if a login is needed.
    """
    command: list[str] = options.command
    if not command:
        options.refuse("put the command after the server and --")
    variable: str | None = options.env
    if variable is not None and not _VARIABLE_NAME.fullmatch(variable):
        options.refuse("--env takes the name of a variable, such as MCP_TOKEN")
    _, authorization = valid_authorization(options.server, options.owner)
    token = authorization.partition(" ")[2]
    environ = dict(os.environ) if variable is None else {**os.environ, variable: token}
    try:
        return _exec_command(command, environ)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        report_error(
            McpAuthError(f"{command[0]}: {error.strerror or 'it cannot be run'}.", "Check the command."),
            as_json=False,
        )
        return NOT_FOUND if is_missing else CANNOT_RUN


def _exec_command(command: list[str], environ: Mapping[str, str]) -> int:
    # exec ends all threads of this process. One of them may be waiting for a new refresh token.
    wait_for_sent_requests()
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "win32":
        # On Windows, exec starts another process and ends this one at once.
        return subprocess.call(command, env=environ)  # noqa: S603
    # Python ignores these signals. If the command inherited that, it would go on after its reader has ended.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    return os.execvpe(command[0], command, environ)  # noqa: S606
