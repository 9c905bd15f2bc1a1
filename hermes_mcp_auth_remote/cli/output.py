"""Print results and errors, as text or as JSON, and map errors to exit codes."""

from __future__ import annotations

import codecs
import contextlib
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
# A shell reports this number plus the signal number for a process that a signal ended.
SIGNAL_EXIT_CODE_BASE = 128

_ASCII_SUBSTITUTES = {"✓": "+", "✗": "x"}


class StoppedBySignal(KeyboardInterrupt):
    """Raised for SIGTERM or SIGHUP, as KeyboardInterrupt is raised for Ctrl-C."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


def exit_code(error: McpAuthError) -> int:
    """Return the exit code for an error's class in `EXIT_CODES`, otherwise 1."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)


def report_error(error: McpAuthError, *, as_json: bool) -> int:
    """Print an error with its advice and return the exit code."""
    if as_json:
        document: dict[str, object] = {"error": error.code, "message": str(error), "advice": error.advice}
        if isinstance(error, AuthorizationRequired):
            document |= {
                "server": error.server_name,
                "login_id": error.login_id,
                "expires_at": error.expires_at,
            }
        print_json(document)
    else:
        # Import late: a command with JSON output does not need these modules.
        from hermes_mcp_auth_remote.terminal.text import error_text
        from hermes_mcp_auth_remote.terminal.window import colour_mark, terminal_size, uses_colour

        text = error_text(error, terminal_size(sys.stderr)[0])
        print(colour_mark(text) if uses_colour(sys.stderr, os.environ) else text, file=sys.stderr, flush=True)
    return exit_code(error)


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
            print_json({"error": "interrupted", "message": "Cancelled.", "advice": "Run the command again."})
        else:
            print("\nCancelled.", file=sys.stderr, flush=True)
    return SIGNAL_EXIT_CODE_BASE + (
        interrupt.signal_number if isinstance(interrupt, StoppedBySignal) else signal.SIGINT
    )


def error_from_os_error(error: OSError) -> McpAuthError:
    """Return a McpAuthError for an unexpected OSError."""
    subject = f"{error.filename}: " if error.filename else "An input or output failed: "
    return McpAuthError(
        f"{subject}{error.strerror or type(error).__name__}.",
        "Check where the output goes, and whether the disk is full.",
    )


def print_json(document: Mapping[str, object]) -> None:
    """Print a JSON object on one line of standard output."""
    print(json.dumps(document), flush=True)


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
