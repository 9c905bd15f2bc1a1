"""How a command ends: stable exit codes, errors as two sentences or as JSON."""

from __future__ import annotations

import codecs
import contextlib
import io
import json
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
from hermes_mcp_auth_remote.terminal.screen import terminal_size

# Documented in `--help` and the README; programs rely on them.
EXIT_CODES: Mapping[type[McpAuthError], int] = {
    ConfigError: 3,
    AuthorizationRequired: 4,
    LoginError: 5,
    ServerError: 6,
    NetworkError: 7,
    StoreError: 8,
}
# What a shell shows for a process that a signal ended.
SIGNAL_EXIT_CODE_BASE = 128

_ASCII_SUBSTITUTES = {"✓": "+", "✗": "x"}


class StoppedBySignal(KeyboardInterrupt):
    """Ended by SIGTERM or SIGHUP, in the way that Ctrl-C ends things."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


def exit_code(error: McpAuthError) -> int:
    """Return the exit code of an error: that of its branch of the tree, 1 for none of them."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)


def report_error(error: McpAuthError, *, as_json: bool) -> int:
    """Say what went wrong and what to do, and return the exit code."""
    if as_json:
        answer: dict[str, object] = {"error": error.code, "message": str(error), "advice": error.advice}
        if isinstance(error, AuthorizationRequired):
            answer |= {
                "server": error.server_name,
                "login_id": error.login_id,
                "expires_at": error.expires_at,
            }
        print_json(answer)
    else:
        # Loaded here, for a command that succeeds with JSON needs no words.
        from hermes_mcp_auth_remote.terminal.screen import terminal_size
        from hermes_mcp_auth_remote.terminal.text import error_text

        print(error_text(error, terminal_size(sys.stderr)[0]), file=sys.stderr, flush=True)
    return exit_code(error)


def report_interrupt(interrupt: KeyboardInterrupt, *, as_json: bool) -> int:
    """Say that somebody ended the command, and return the exit code."""
    # Loaded with the first Ctrl-C; most commands end without one.
    from hermes_mcp_auth_remote.exit_hold import record_interrupt

    # Python's exit waits for token requests that were sent, and says so; the second Ctrl-C ends it at once.
    record_interrupt()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # The terminal may be what went away.
    with contextlib.suppress(OSError):
        if as_json:
            print_json({"error": "interrupted", "message": "Cancelled.", "advice": "Run the command again."})
        else:
            print("\nCancelled.", file=sys.stderr, flush=True)
    return SIGNAL_EXIT_CODE_BASE + (
        interrupt.signal_number if isinstance(interrupt, StoppedBySignal) else signal.SIGINT
    )


def error_from_os_error(error: OSError) -> McpAuthError:
    """Make an error for people of one that nobody foresaw."""
    what = f"{error.filename}: " if error.filename else "An input or output failed: "
    return McpAuthError(
        f"{what}{error.strerror or type(error).__name__}.",
        "Check where the output goes, and whether the disk is full.",
    )


def print_json(document: Mapping[str, object]) -> None:
    """Write one JSON object on a line of standard output."""
    print(json.dumps(document), flush=True)


def print_paragraph(paragraph: str) -> None:
    """Write a paragraph for people to standard error, as wide as it shows."""
    from hermes_mcp_auth_remote.terminal.text import wrap_text

    print(wrap_text(paragraph, terminal_size(sys.stderr)[0]), file=sys.stderr, flush=True)


def substitute_unencodable(*streams: TextIO) -> None:
    """Let these streams write a likeness of what their encoding lacks, instead of failing."""
    codecs.register_error("hermes-plain", _substitute)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):  # None where it was closed
            stream.reconfigure(errors="hermes-plain")


def _substitute(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_ASCII_SUBSTITUTES.get(character, "?") for character in lacking), error.end
