"""The verbs and their options."""

from __future__ import annotations

import argparse

EXIT_CODES = """exit codes:
  0 done   1 something else   2 usage   3 configuration   4 login needed   5 login failed
  6 server's fault   7 network   8 files   130 interrupted

Servers are read from config.yaml in HERMES_HOME (~/.hermes); tokens are kept beside it in mcp-tokens/."""


def parser() -> argparse.ArgumentParser:
    """Build the parser; `verb` names the module of `cli` that runs it."""
    top = argparse.ArgumentParser(
        "hermes-mcp-auth",
        description="Log in to remote MCP servers from a machine without a browser.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = top.add_subparsers(dest="verb", metavar="COMMAND")
    login = verbs.add_parser("login", help="log in to a server", description="Log in to a server.")
    _server(login, optional=True)
    login.add_argument("--url", help="log in to the server at this address, in no config.yaml")
    login.add_argument(
        "--flow",
        choices=("auto", "loopback", "paste"),
        help="loopback: open a browser here; paste: only show the address; auto: judge by the surroundings",
    )
    login.add_argument("--no-qr", action="store_true", help="draw no QR code")
    login.add_argument(
        "--no-wait", action="store_true", help="begin the login, print it and exit; finish it with --finish"
    )
    login.add_argument(
        "--finish",
        metavar="ID",
        help="finish a login that was begun; the redirect URL comes on standard input",
    )
    status = verbs.add_parser(
        "status", help="list servers and logins", description="List servers and logins."
    )
    _server(status, optional=True)
    token = verbs.add_parser(
        "token", help="print a valid access token", description="Print a valid access token."
    )
    _server(token)
    logout = verbs.add_parser(
        "logout", help="revoke and delete a login", description="Revoke a login's tokens and delete them."
    )
    _server(logout)
    demo = verbs.add_parser(
        "demo",
        help="log in to an embedded MCP server",
        description="Log in to an MCP server on this machine, with its own authorization server.",
    )
    demo.add_argument("--json", action="store_true", help="write JSON, a line per event")
    demo.add_argument("--flow", choices=("auto", "loopback", "paste"), help="as for login")
    return top


def _server(verb: argparse.ArgumentParser, *, optional: bool = False) -> None:
    nargs = "?" if optional else None
    verb.add_argument("server", nargs=nargs, help="its name in config.yaml, or its address")
    verb.add_argument("--owner", help='whose login, such as "telegram:42" (default: the operator\'s)')
    verb.add_argument("--json", action="store_true", help="write JSON, a line per event")
