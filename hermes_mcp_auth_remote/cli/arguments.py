"""The verbs and their options."""

from __future__ import annotations

import argparse
from functools import partial

_FLOWS = ("auto", "loopback", "paste")

_EPILOG = """\
exit codes:
  0 done   1 something else   2 usage   3 configuration   4 login needed
  5 login failed   6 server's fault   7 network   8 files   130 interrupted

Servers are read from config.yaml in HERMES_HOME (~/.hermes); tokens are kept
beside it, in mcp-tokens/."""
_LOGIN = """\
Shows an address to open on any device, then takes the address that the browser
ended on: pasted, piped in, or brought by the browser itself where it can reach
this machine. With --json, each line is an event: waiting, refused, connected."""
_STATUS = """\
Lists servers and logins, and asks no server. States: connected, expired, login
needed, not connected; with --json with "_" for the blank, or an error's code."""
_PRINT = """\
Prints a valid access token and a line feed; refreshes it first where need be.
Exit code 4: somebody has to log in."""
_LOGOUT = """\
Revokes a login's tokens at the provider, as best it goes, and deletes all that
is stored of it."""
_DEMO = """\
Logs in to an MCP server on this machine, which brings its own authorization
server, and calls a tool there. Without a terminal, by itself. Keeps nothing."""


def _wide(prog: str) -> argparse.HelpFormatter:
    # Our own line breaks, and one width everywhere: the README quotes these texts.
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=22, width=80)


def parser() -> argparse.ArgumentParser:
    """Build the parser; `verb` names the module of `cli` that runs it."""
    top = argparse.ArgumentParser(
        "hermes-mcp-auth",
        description="Log in to remote MCP servers from a machine without a browser.",
        epilog=_EPILOG,
        formatter_class=_wide,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = top.add_subparsers(dest="verb", metavar="COMMAND", title="commands")
    add = partial(verbs.add_parser, formatter_class=_wide, allow_abbrev=False)
    login = add("login", help="log in to a server", description=_LOGIN)
    _server(login, optional=True)
    login.add_argument("--url", help="the server's address, where no config.yaml has it")
    login.add_argument(
        "--flow",
        choices=_FLOWS,
        help="loopback opens a browser here, paste only shows the address, auto (default) "
        "judges by the surroundings",
    )
    login.add_argument("--no-qr", action="store_true", help="draw no QR code")
    later = login.add_mutually_exclusive_group()
    later.add_argument("--no-wait", action="store_true", help="begin the login, show it and exit")
    later.add_argument(
        "--finish", metavar="ID", help="finish one that was begun, with an address on standard input"
    )
    status = add("status", help="list servers and logins", description=_STATUS)
    _server(status, optional=True)
    token = add("token", help="print a valid access token", description=_PRINT)
    _server(token)
    logout = add("logout", help="revoke and delete a login", description=_LOGOUT)
    _server(logout)
    demo = add("demo", help="log in to an MCP server on this machine", description=_DEMO)
    demo.add_argument("--flow", choices=_FLOWS, help="as for login")
    demo.add_argument("--json", action="store_true", help="write JSON, a line per event")
    return top


def _server(verb: argparse.ArgumentParser, *, optional: bool = False) -> None:
    nargs = "?" if optional else None
    verb.add_argument("server", nargs=nargs, help="its name in config.yaml, or its address")
    verb.add_argument("--owner", help="whose, such as telegram:42; default: the operator's own")
    verb.add_argument("--json", action="store_true", help="write JSON, a line per event")
