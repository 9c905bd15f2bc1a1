"""How a command ends: stable exit codes, errors as two sentences or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

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
INTERRUPTED = 130


def exit_code(error: McpAuthError) -> int:
    """Return the exit code of an error: that of its branch of the tree, 1 for none of them."""
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), 1)


def fail(error: McpAuthError, *, as_json: bool) -> int:
    """Say what went wrong and what to do, and return the exit code."""
    if as_json:
        answer: dict[str, object] = {"error": error.code, "message": str(error), "advice": error.advice}
        if isinstance(error, AuthorizationRequired):
            answer |= {"server": error.server, "login_id": error.login_id, "expires_at": error.expires_at}
        put(answer)
    else:
        print(f"✗ {error}\n  {error.advice}", file=sys.stderr, flush=True)
    return exit_code(error)


def put(answer: Mapping[str, object]) -> None:
    """Write one JSON object on a line of standard output."""
    print(json.dumps(answer), flush=True)
