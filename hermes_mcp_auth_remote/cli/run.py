"""`run`: a command that finds a fresh token in the store, or in its environment where that is asked for."""

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
from hermes_mcp_auth_remote.exit_hold import wait_for_sent_requests

_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What a shell, env and nohup answer where a command cannot be run, or is not there.
CANNOT_RUN, NOT_FOUND = 126, 127


def run(options: argparse.Namespace) -> int:
    """Make sure of a token, then become the command: nothing of us stays to pass signals on.

    Returns only where there is no such command. Raises AuthorizationRequired where somebody has to log in.
    """
    command: list[str] = options.command
    if not command:
        options.refuse("put the command after the server and --")
    wanted: str | None = options.env
    if wanted is not None and not _VARIABLE_NAME.fullmatch(wanted):
        options.refuse("--env takes the name of a variable, such as MCP_TOKEN")
    _, authorization = valid_authorization(options.server, options.owner)
    token = authorization.partition(" ")[2]
    environ = dict(os.environ) if wanted is None else {**os.environ, wanted: token}
    try:
        return _exec_command(command, environ)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        report_error(
            McpAuthError(f"{command[0]}: {error.strerror or 'it cannot be run'}.", "Check the command."),
            as_json=False,
        )
        return NOT_FOUND if missing else CANNOT_RUN


def _exec_command(command: list[str], environ: Mapping[str, str]) -> int:
    # The command takes the place of our threads: one of them may be waiting for a new refresh token.
    wait_for_sent_requests()
    sys.stdout.flush()
    sys.stderr.flush()
    if sys.platform == "win32":
        # There, exec starts another process and ends this one before it.
        return subprocess.call(command, env=environ)  # noqa: S603
    # Python ignores these for itself; a command that inherited that would outlive its reader.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    return os.execvpe(command[0], command, environ)  # noqa: S606
