"""The verbs and their options."""

from __future__ import annotations

import argparse
from functools import partial

_FLOWS = ("auto", "loopback", "device", "paste")

_EPILOG = """\
exit codes:
  0 done   1 something else   2 usage   3 configuration   4 login needed
  5 login failed   6 server's fault   7 network   8 files   130 interrupted

Servers are read from config.yaml in HERMES_HOME (~/.hermes); tokens are kept
beside it, in mcp-tokens/."""
_LOGIN = """\
Shows an address to open on any device. Where the provider offers it, a code is
entered there, and nothing is brought back. Else the address that the browser
ended on is: pasted, piped in, or brought by the browser itself where it can
reach this machine. Type paste or code to change over, new for another code.
With --json, each line is an event: waiting, device, refused, connected; with
--via: asked, shown or unshown, connected."""
_STATUS = """\
Lists servers and logins, and asks no server. States: connected, expired, login
needed, not connected; with --json with "_" for the blank, or an error's code.
Where config.yaml speaks of chats, it ends with whose tokens those use."""
_PRINT_HELP = """\
Prints a valid access token and a line feed; refreshes it first where need be.
Exit code 4: somebody has to log in."""
_HEADER = """\
Prints "Authorization: Bearer ..." with a valid access token, refreshed first
where need be. Through a pipe the token stays out of the list of processes:

  hermes-mcp-auth header NAME | curl -H @- URL
  curl -H "$(hermes-mcp-auth header NAME)" URL

With --json it is an object of headers, for programs that run a helper for them.
Exit code 4: somebody has to log in."""
_RUN = """\
Refreshes the token where need be, then becomes the command: the terminal, the
signals and the exit code are the command's own. It finds the fresh token in the
store, as Hermes and `hermes-mcp-auth token` do. Only with --env does the token
go into its environment, where all that it starts can read it; it is not renewed
there. Exit codes before the command runs: 4 somebody has to log in, 126 it
cannot be run, 127 there is none."""
_LOGOUT = """\
Revokes a login's tokens at the provider, as best it goes, and deletes all that
is stored of it; logins that wait are cancelled. With --owner and no server: of
that owner everywhere. With --all: of everybody, also of one server or owner.
The exit code is the highest of all; one that fails stops no other."""
_DOCTOR = """\
Walks through a login, each request and answer in a line, up to where it would
register or begin anything; changes nothing, here or there. Says what the server
supports and what is wrong, and ends with one remedy. The exit code is that of
what a login would fail of; 0 where one can be begun."""
_SERVE = """\
Runs a bot, or both, until Ctrl-C or SIGTERM: people on the list log in to the
servers of config.yaml from their private chats, and hear when they have to do
so again. Nobody is on the list but by --allow, --admin or mcp_auth_chats in
config.yaml; a stranger is told their id. A bot's token is taken from
TELEGRAM_BOT_TOKEN or DISCORD_BOT_TOKEN, in .env in HERMES_HOME or the
environment, or from a file of mode 0600."""
_DEMO = """\
Logs in to an MCP server on this machine, which brings its own authorization
server, and calls a tool there. Without a terminal, by itself. Keeps nothing."""


def _make_formatter(prog: str) -> argparse.HelpFormatter:
    # Our own line breaks, and one width everywhere: the README quotes these texts.
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=22, width=80)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser; `verb` names the module of `cli` that runs it."""
    top = argparse.ArgumentParser(
        "hermes-mcp-auth",
        description="Log in to remote MCP servers from a machine without a browser.",
        epilog=_EPILOG,
        formatter_class=_make_formatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="store_true", help="print the version and exit")
    verbs = top.add_subparsers(dest="verb", metavar="COMMAND", title="commands")
    add = partial(verbs.add_parser, formatter_class=_make_formatter, allow_abbrev=False)
    login = add("login", help="log in to a server", description=_LOGIN)
    _add_server_arguments(login, is_optional=True)
    login.add_argument("--url", help="the server's address, where no config.yaml has it")
    login.add_argument(
        "--flow",
        choices=_FLOWS,
        help="loopback opens a browser here, device shows a code to enter on another device, paste shows "
        "an address; auto (default) judges by the surroundings and by what the provider offers",
    )
    login.add_argument(
        "--via",
        metavar="PLATFORM:ID",
        help="ask that user, such as telegram:42, in the chat of the bot that serve runs, and wait here",
    )
    login.set_defaults(refuse=login.error)
    login.add_argument("--no-qr", action="store_true", help="draw no QR code")
    later = login.add_mutually_exclusive_group()
    later.add_argument("--no-wait", action="store_true", help="begin the login, show it and exit")
    later.add_argument(
        "--finish",
        metavar="ID",
        help="finish one that was begun: wait for its code, or take an address from standard input",
    )
    status = add("status", help="list servers and logins", description=_STATUS)
    _add_server_arguments(status, is_optional=True)
    token = add("token", help="print a valid access token", description=_PRINT_HELP)
    _add_server_arguments(token)
    header = add("header", help="print it as a header, for curl", description=_HEADER)
    _add_server_arguments(header)
    run = add(
        "run",
        help="run a command with a fresh token",
        description=_RUN,
        usage="%(prog)s [-h] [--owner OWNER] [--env VARIABLE]\n"
        "                           server -- command ...",
    )
    _add_server_and_owner(run, is_optional=False)
    run.add_argument("--env", metavar="VARIABLE", help="put the token into this variable of the command")
    run.set_defaults(refuse=run.error, command=[])
    logout = add("logout", help="revoke and delete a login", description=_LOGOUT)
    _add_server_arguments(logout, is_optional=True)
    logout.add_argument("--all", action="store_true", help="every login; asks nothing")
    logout.set_defaults(refuse=logout.error)
    doctor = add("doctor", help="say what is wrong with a server", description=_DOCTOR)
    _add_server_arguments(doctor)
    _add_serve_arguments(add("serve", help="log people in from Telegram or Discord", description=_SERVE))
    demo = add("demo", help="log in to an MCP server on this machine", description=_DEMO)
    demo.add_argument("--flow", choices=_FLOWS, help="as for login")
    demo.add_argument("--json", action="store_true", help="write JSON, a line per event")
    return top


def parse_arguments(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse; what stands behind `run ... --` is a command with options of its own, and left as it is."""
    options = parser.parse_args(own_arguments(argv))
    if options.verb == "run":
        options.command = argv[len(own_arguments(argv)) + 1 :]
    return options


def own_arguments(argv: list[str]) -> list[str]:
    """Return the words that are for us: all but another command's."""
    return argv[: argv.index("--")] if argv[:1] == ["run"] and "--" in argv else argv


def _add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--telegram", action="store_true", help="run the bot at Telegram")
    parser.add_argument("--discord", action="store_true", help="run the bot at Discord")
    parser.add_argument(
        "--allow",
        metavar="ID",
        action="append",
        default=[],
        help="a user who may, or several (ID,ID); with both bots, telegram:ID or discord:ID",
    )
    parser.add_argument(
        "--admin",
        metavar="ID",
        action="append",
        default=[],
        help="a user who may, and who alone may change what is shared",
    )
    for platform in ("telegram", "discord"):
        parser.add_argument(f"--{platform}-token-file", metavar="PATH", help="a file with the bot's token")
        parser.add_argument(f"--{platform}-api", metavar="URL", help="another server than the platform's own")
    parser.add_argument("--json", action="store_true", help="write JSON, a line per event")
    parser.set_defaults(refuse=parser.error)


def _add_server_and_owner(parser: argparse.ArgumentParser, *, is_optional: bool) -> None:
    nargs = "?" if is_optional else None
    parser.add_argument("server", nargs=nargs, help="its name in config.yaml, or its address")
    parser.add_argument("--owner", help="whose, such as telegram:42; default: the operator's own")


def _add_server_arguments(parser: argparse.ArgumentParser, *, is_optional: bool = False) -> None:
    _add_server_and_owner(parser, is_optional=is_optional)
    parser.add_argument("--json", action="store_true", help="write JSON, a line per event")
