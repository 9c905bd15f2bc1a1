"""Print results and errors, as text or as JSON, and map errors to exit codes."""

from __future__ import annotations

import argparse
import codecs
import contextlib
import errno
import io
import json
import os
import signal
import sys
from collections.abc import Mapping
from typing import TextIO

from hermes_mcp_auth_remote.errors import (
    AuthorizationRequired,
    ConfigError,
    LoginError,
    McpAuthError,
    NetworkError,
    OutOfResources,
    SchemeMissing,
    ServerError,
    StoreError,
)

# Documented in `--help` and the README; programs rely on them.
EXIT_CODES: Mapping[type[McpAuthError], int] = {
    ConfigError: 3,
    AuthorizationRequired: 4,
    LoginError: 5,
    ServerError: 6,
    NetworkError: 7,
    StoreError: 8,
}
LOGIN_NEEDED_EXIT_CODE = EXIT_CODES[AuthorizationRequired]
# Raise this number if a member gets another meaning or disappears, but not for a new event or member.
JSON_VERSION = 1
# If a signal ends a process, a shell reports this number plus the signal number as the exit code.
SIGNAL_EXIT_CODE_BASE = 128

_ASCII_SUBSTITUTES = {"✓": "+", "✗": "x"}


class StoppedBySignal(KeyboardInterrupt):
    """Raised for SIGTERM or SIGHUP, as KeyboardInterrupt is raised for Ctrl-C."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


def exit_code(error: McpAuthError) -> int:
    """Return the exit code of an error's class in `EXIT_CODES`, or 1 if the class is not listed."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)


def report_error(error: McpAuthError, *, as_json: bool, doctor_command: str | None = None) -> int:
    """Print an error with its advice and return the exit code.

    `doctor_command` is the command that shows more about the error, None if there is none.
    """
    if as_json:
        event: dict[str, object] = {"event": "error", **error_members(error)}
        if isinstance(error, AuthorizationRequired):
            event |= {
                "server": error.server_name,
                "login_id": error.login_id,
                "expires_at": error.expires_at,
            }
        if doctor_command is not None:
            event["doctor"] = doctor_command
        print_json(event)
    else:
        # Import late: a command with JSON output does not need these modules.
        from hermes_mcp_auth_remote.terminal.text import error_text, wrap_text
        from hermes_mcp_auth_remote.terminal.window import colour_mark, terminal_size, uses_colour

        text = error_text(error, terminal_size(sys.stderr)[0])
        if doctor_command is not None:
            text += f"\n{wrap_text(f'See each request: {doctor_command}', 0, 2)}"
        print(colour_mark(text) if uses_colour(sys.stderr, os.environ) else text, file=sys.stderr, flush=True)
    return exit_code(error)


def doctor_command(error: McpAuthError, options: argparse.Namespace) -> str | None:
    """Return the `doctor` command that shows each request of a failed login, None if that does not help."""
    from hermes_mcp_auth_remote.commands import command_for

    # After a failed login by URL, no name leads to the server. The query of a URL may contain a key.
    server_argument = options.url or options.server
    if server_argument is None or "?" in server_argument or not isinstance(error, ServerError | NetworkError):
        return None
    return command_for("doctor", server_argument, options.owner)


def correct_address(error: McpAuthError, arguments: list[str]) -> None:
    """Let the advice of an error repeat this command with the corrected address, if the error has one."""
    if not isinstance(error, SchemeMissing):
        return
    from hermes_mcp_auth_remote.commands import corrected_command

    command = corrected_command(arguments, error.text, error.url)
    if command is not None:
        error.advice = f"Run `{command}`."


def report_interrupt(interrupt: KeyboardInterrupt, *, as_json: bool) -> int:
    """Print that the command was cancelled and return the exit code."""
    # Import late: most commands end without Ctrl-C.
    from hermes_mcp_auth_remote.exit_delay import record_interrupt

    # The exit waits for token requests that were sent, and says so. A second Ctrl-C ends the process at once.
    record_interrupt()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # OSError: the terminal may be closed.
    with contextlib.suppress(OSError):
        if as_json:
            message, advice = "Cancelled.", "Run the command again."
            print_json({"event": "error", "error": "interrupted", "message": message, "advice": advice})
        else:
            print("\nCancelled.", file=sys.stderr, flush=True)
    return SIGNAL_EXIT_CODE_BASE + (
        interrupt.signal_number if isinstance(interrupt, StoppedBySignal) else signal.SIGINT
    )


def error_from_os_error(error: OSError) -> McpAuthError:
    """Return a McpAuthError for an unexpected OSError."""
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return OutOfResources(f"This process can open nothing more: {error.strerror}.")
    subject = f"{error.filename}: " if error.filename else "An input or output failed: "
    return McpAuthError(
        f"{subject}{error.strerror or type(error).__name__}.",
        "Check where the output goes, and whether the disk is full.",
    )


def print_json(event: Mapping[str, object]) -> None:
    """Print an event on one line of standard output. Its member `event` is its name in docs/json.md."""
    print(json.dumps({"version": JSON_VERSION, **event}), flush=True)


def error_members(error: McpAuthError | None) -> dict[str, str | None]:
    """Return the members of an event that describe an error. Without an error, each member is None."""
    if error is None:
        return {"error": None, "message": None, "advice": None}
    return {"error": error.code, "message": str(error), "advice": error.advice}


def print_result(text: str) -> None:
    """Print lines to standard output, with coloured marks if the terminal has colours."""
    from hermes_mcp_auth_remote.terminal.window import colour_mark, uses_colour

    if uses_colour(sys.stdout, os.environ):
        text = "\n".join(colour_mark(line) for line in text.split("\n"))
    print(text, flush=True)


def print_paragraph(paragraph: str) -> None:
    """Print a paragraph to standard error, wrapped to the terminal's width."""
    from hermes_mcp_auth_remote.terminal.text import wrap_text
    from hermes_mcp_auth_remote.terminal.window import terminal_size

    print(wrap_text(paragraph, terminal_size(sys.stderr)[0]), file=sys.stderr, flush=True)


def substitute_unencodable(*streams: TextIO) -> None:
    """Let streams print a substitute for a character that their encoding lacks, instead of failing."""
    codecs.register_error("hermes-plain", _substitute)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):  # None if it was closed
            stream.reconfigure(errors="hermes-plain")


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unencodable = error.object[error.start : error.end]
    return "".join(_ASCII_SUBSTITUTES.get(character, "?") for character in unencodable), error.end
