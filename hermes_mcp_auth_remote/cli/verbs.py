"""The verbs of the command line. Each verb is a module that is imported only if the user asks for it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

VERBS = ("login", "status", "token", "header", "run", "logout", "connect", "doctor", "serve", "demo")


def load_verb(verb: str) -> Callable[[Namespace], int]:  # noqa: C901  one case per verb
    """Import the module of a verb and return its function, which returns an exit code. Raises ValueError."""
    match verb:
        case "login":
            from hermes_mcp_auth_remote.cli.login import run
        case "status":
            from hermes_mcp_auth_remote.cli.status import run
        case "token":
            from hermes_mcp_auth_remote.cli.token import run
        case "header":
            from hermes_mcp_auth_remote.cli.header import run
        case "run":
            from hermes_mcp_auth_remote.cli.run import run
        case "logout":
            from hermes_mcp_auth_remote.cli.logout import run
        case "connect":
            from hermes_mcp_auth_remote.cli.connect import run
        case "doctor":
            from hermes_mcp_auth_remote.cli.doctor import run
        case "serve":
            from hermes_mcp_auth_remote.cli.serve import run
        case "demo":
            from hermes_mcp_auth_remote.cli.demo import run
        case _:
            raise ValueError(f"There is no verb {verb!r}.")
    return run
