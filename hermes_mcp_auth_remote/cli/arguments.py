"""The verbs, their options and their help texts."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from typing import Any

from hermes_mcp_auth_remote.cli.examples import help_examples
from hermes_mcp_auth_remote.cli.verbs import VERBS
from hermes_mcp_auth_remote.platforms import PLATFORMS, id_examples, join_alternatives

# Python 3.14 would colour help texts. They are the same on each Python, and the README quotes them.
_PLAIN_HELP: dict[str, Any] = {"color": False} if sys.version_info >= (3, 14) else {}
_FLOWS = ("auto", "loopback", "device", "paste")

# The whole text fits a window of 80 columns and 24 rows, with the command line and the next prompt.
_EPILOG = """\
Help and examples for a command: hermes-mcp-auth COMMAND --help

exit codes: 0 done, 2 usage, 3 configuration, 4 login needed, 5 login failed,
6 server error, 7 network, 8 files, 130 interrupted, 1 any other error.
Files: config.yaml and mcp-tokens/ in HERMES_HOME (~/.hermes)."""
_LOGIN = """\
Shows an address to open on any device. If the provider supports it, you enter
a code there and bring nothing back. Otherwise, paste the address that the
browser ends on, or pipe it into this command. If the browser can reach this
machine, it sends the address itself. Type `paste` or `code` to switch the flow,
or `new` to get another code. With --json, each line is an event: waiting,
device, refused or connected. With --json and --via, the events are asked,
shown, unshown and connected. Without a server, you choose one from a list."""
_STATUS = """\
Lists servers and logins without a request to any server. A terminal gets a row
per server; with a server's name, all facts of that server. State: connected,
refresh failing, expired, login needed, not connected or unreadable. Lasts: when
you must log in again. Next: what you should do, or else what happens by itself.
If config.yaml has chat settings, the last line says whose tokens the chats use.
With --check, the exit code is 4 if a person must log in, now or soon."""
_PRINT_HELP = """\
Prints a valid access token and a line feed. Refreshes the token first if
necessary. Exit code 4: a login is needed."""
_HEADER = """\
Prints "Authorization: Bearer ..." with a valid access token. Refreshes the
token first if necessary. A pipe to curl keeps the token out of the process
list. With --json, prints a JSON object of headers, for programs that run a
helper to get their headers. Exit code 4: a login is needed."""
_RUN = """\
Refreshes the token if necessary, then replaces itself with the command, which
gets the terminal and the signals and sets the exit code. The command finds the
fresh token in the store, as Hermes and `hermes-mcp-auth token` do. With --env
the token is also in the command's environment: every process that it starts can
read it, and nothing refreshes it there. Exit codes before the command runs: 4 a
login is needed, 126 the command cannot be run, 127 the command is not found."""
_CONNECT = """\
Is a local MCP server for any client: the client starts this command, and the
command passes all messages to the remote server with a valid token. If a login
is needed, the command asks the user to log in. With --via, it asks in a chat.
Otherwise, it opens a browser on this machine, once per login. If it opens no
browser, it asks through the client. If the client cannot show addresses to the
user, an error names the command to run. The waiting call continues after the
login. Configuration of common clients: docs/clients.md"""
_LOGOUT = """\
Revokes a login's tokens at the provider if possible, deletes all of its stored
data and cancels its waiting logins. With --owner and no server, does this for
all logins of that owner. With --all, does this for the logins of all owners, or
only for those of the server or owner that you name. If a logout fails, the
others continue. The exit code is the highest exit code of all logouts. A server
or owner that is not known may be mistyped: the exit code is then 3, or 0 with
--ignore-missing."""
_DOCTOR = """\
Runs the steps of a login, and stops before the first step that would register a
client or request a code. Prints a line per request and response. It prints what
the server supports, what is wrong, and one remedy. It stores nothing, registers
no client, and requests no code and no token. It sends a stored token once, with
MCP's `ping`. It loads the sign-in page for a stored client, without a user. If
the provider takes pushed requests (PAR), it instead pushes a request for a
stored or configured client; nothing uses this request, and it expires. The exit
code is that of the first error that a login would raise, or 0 if a login can
start. Without a server, the command examines all servers at once, with one
result per server. The exit code is then the highest exit code of all."""
_SERVE = """\
Runs one or more bots until Ctrl-C or SIGTERM. Allowed users log in to the
servers of config.yaml in their private chats, and are told when to log in
again. Only users from --allow, --admin or mcp_auth_chats in config.yaml are
allowed; the bot tells any other user their id. The command reads a bot's token
from {variables}, in .env in HERMES_HOME or in the
environment, or from a file that other users cannot change."""
_DEMO = """\
Runs an MCP server and its authorization server on this machine, logs in and
calls a tool. Without a terminal, the demo logs in by itself. Stores nothing.
With --serve, it keeps the servers running and prints commands to try in another
terminal: every verb, the device flow, and a server with a fault."""


_HELP_COLUMNS, _MIN_HELP_COLUMNS = 80, 30


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the line breaks of the texts above. In less than 80 columns, or if a text is wider, wraps it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=22, width=_help_columns())
        # argparse counts too little indentation for commands, so their help would begin on a line of its own.
        self._action_max_length = len("  -h, --help")

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # The names of many platforms make a line of `_SERVE` longer.
        widest = max(map(len, text.splitlines()), default=0)
        if _help_columns() == _HELP_COLUMNS and widest <= _HELP_COLUMNS:
            return super()._fill_text(text, width, indent)
        paragraphs = re.split(r"\n\s*\n", text)
        return "\n\n".join(_wrap_paragraph(paragraph, width) for paragraph in paragraphs)


def _wrap_paragraph(text: str, width: int) -> str:
    # Do not wrap indented lines (examples, tables): if the terminal breaks a line, a copied command is whole.
    if "\n  " in text:
        return text
    # Import late: most commands print no help.
    import textwrap

    return textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def _help_columns() -> int:
    """Return the width of the terminal, at most 80; 80 if there is no terminal."""
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (AttributeError, OSError, ValueError):  # AttributeError: a closed standard stream is None
        return _HELP_COLUMNS
    return min(max(columns, _MIN_HELP_COLUMNS), _HELP_COLUMNS)


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser. Its `verb` names the module of `cli` that runs the command."""
    parser = argparse.ArgumentParser(
        "hermes-mcp-auth",
        # The usage has all options: a list of them would only repeat it.
        usage="%(prog)s [--help] [--version] COMMAND ...",
        add_help=False,
        description="Log in to remote MCP servers from a machine without a browser.",
        epilog=_EPILOG,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        **_PLAIN_HELP,
    )
    parser.add_argument("-h", "--help", action="help", help=argparse.SUPPRESS)
    parser.add_argument("--version", action="store_true", help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", title="commands", prog=parser.prog)

    def add(
        verb: str,
        *,
        help: str,  # noqa: A002  argparse's name
        description: str,
        usage: str | None = None,
    ) -> argparse.ArgumentParser:
        verb_parser = verbs.add_parser(
            verb,
            help=help,
            description=description,
            usage=usage,
            epilog=help_examples(verb),
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            **_PLAIN_HELP,
        )
        verb_parser.set_defaults(refuse=verb_parser.error)
        return verb_parser

    login = add("login", help="log in to a server", description=_LOGIN)
    _add_server_arguments(login, is_optional=True)
    login.add_argument(
        "--url",
        type=_non_empty,
        help="the server's address, if config.yaml does not have it; - reads it from standard input",
    )
    login.add_argument(
        "--flow",
        choices=_FLOWS,
        help="loopback opens a browser here, device shows a code to enter on another device, paste shows "
        "an address; auto (default) selects one by the environment and by what the provider supports",
    )
    login.add_argument(
        "--via",
        type=_non_empty,
        metavar="PLATFORM:ID",
        help="ask that user, such as telegram:42, in the chat with the bot of `hermes-mcp-auth serve`, "
        "and wait here",
    )
    login.add_argument("--no-qr", action="store_true", help="do not show a QR code")
    wait_options = login.add_mutually_exclusive_group()
    wait_options.add_argument("--no-wait", action="store_true", help="start the login, show it and exit")
    wait_options.add_argument(
        "--finish",
        metavar="ID",
        help="complete a started login: wait for its code, or read an address from standard input",
    )
    status = add("status", help="list servers and logins", description=_STATUS)
    _add_server_arguments(status, is_optional=True)
    status.add_argument(
        "--check", action="store_true", help="exit with 4 if a person must log in, now or soon"
    )
    token = add("token", help="print a valid access token", description=_PRINT_HELP)
    _add_server_arguments(token)
    header = add("header", help="print a valid token as a header, for curl", description=_HEADER)
    _add_server_arguments(header)
    run = add(
        "run",
        help="run a command with a fresh token",
        description=_RUN,
        usage="%(prog)s [-h] [--owner OWNER] [--env VARIABLE]\n"
        "                           server -- command ...",
    )
    _add_server_and_owner(run, is_optional=False)
    run.add_argument(
        "--env", metavar="VARIABLE", help="put the token into this environment variable of the command"
    )
    run.set_defaults(command=[])
    connect = add("connect", help="be a local MCP server for any client", description=_CONNECT)
    _add_server_and_owner(connect, is_optional=False)
    connect.add_argument(
        "--via",
        type=_non_empty,
        metavar="PLATFORM:ID",
        help="ask that user, such as telegram:42, through the bot of `hermes-mcp-auth serve`",
    )
    connect.add_argument("--no-browser", action="store_true", help="open no browser on this machine")
    connect.set_defaults(json=False)
    logout = add("logout", help="revoke and delete a login", description=_LOGOUT)
    _add_server_arguments(logout, is_optional=True)
    logout.add_argument("--all", action="store_true", help="log out of every login, without a question")
    logout.add_argument(
        "--ignore-missing", action="store_true", help="succeed if nothing has this name, address or owner"
    )
    doctor = add("doctor", help="find out what is wrong with a server", description=_DOCTOR)
    _add_server_arguments(doctor, is_optional=True)
    doctor.add_argument("--hermes", action="store_true", help="examine this machine's Hermes Agent instead")
    titles = join_alternatives(platform.title for platform in PLATFORMS.values())
    variables = join_alternatives(platform.token_variable for platform in PLATFORMS.values())
    serve = add("serve", help=f"log people in from {titles}", description=_SERVE.format(variables=variables))
    _add_serve_arguments(serve)
    demo = add("demo", help="log in to an MCP server on this machine", description=_DEMO)
    demo.add_argument("--flow", choices=_FLOWS, help="as for login")
    demo.add_argument(
        "--serve", action="store_true", help="run the servers until Ctrl-C, and print commands to try"
    )
    demo.add_argument("--json", action="store_true", help="write JSON, a line per event")
    return parser


def parse_arguments(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """Parse `argv`. Do not parse the command after `run ... --`: it has its own options."""
    if argv[:1] == ["help"]:
        argv = [*(word for word in argv[1:2] if word != "help"), "--help"]
    _refuse_misspelt_verb(parser, argv)
    options, unknown = parser.parse_known_args(own_arguments(argv))
    if unknown:
        message = f"unrecognized arguments: {shlex.join(unknown)}"
        if options.verb == "run" and "--" not in argv:
            message += f"; put -- before the command: -- {shlex.join(unknown)}"
        # The usage of the verb lists its options.
        (parser.error if options.verb is None else options.refuse)(message)
    if options.verb == "run":
        options.command = argv[len(own_arguments(argv)) + 1 :]
    # An error may repeat them in a corrected command.
    options.arguments = argv
    return options


def _refuse_misspelt_verb(parser: argparse.ArgumentParser, argv: list[str]) -> None:
    """End with the usage if the first argument is similar to a verb."""
    verb = next((argument for argument in argv if not argument.startswith("-")), None)
    if verb is None or verb in VERBS:
        return
    # Import late: few commands need it.
    from difflib import get_close_matches

    if similar_verbs := get_close_matches(verb.lower(), VERBS, 1):
        parser.error(f"there is no command {verb}; did you mean {similar_verbs[0]}?")


def own_arguments(argv: list[str]) -> list[str]:
    """Return the arguments of `hermes-mcp-auth`, without the command after `run ... --`."""
    return argv[: argv.index("--")] if argv[:1] == ["run"] and "--" in argv else argv


def _add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    for platform in PLATFORMS.values():
        parser.add_argument(
            f"--{platform.name}", action="store_true", help=f"run the bot at {platform.title}"
        )
    parser.add_argument(
        "--allow",
        metavar="ID",
        action="append",
        default=[],
        help=f"a user who may use the bot, or several (ID,ID); with several bots, {id_examples()}",
    )
    parser.add_argument(
        "--admin",
        metavar="ID",
        action="append",
        default=[],
        help="a user who may use the bot; only admins may change shared tokens",
    )
    for name in PLATFORMS:
        parser.add_argument(f"--{name}-token-file", metavar="PATH", help="a file with the bot's token")
        parser.add_argument(f"--{name}-api", metavar="URL", help="use this server, not the platform's own")
    api_options = join_alternatives(f"--{name}-api" for name in PLATFORMS)
    parser.add_argument(
        "--allow-plain-http-api",
        action="store_true",
        help=f"let {api_options} be http on another machine; everyone on the way can read the bot's token",
    )
    parser.add_argument("--json", action="store_true", help="write JSON, a line per event")


def _non_empty(text: str) -> str:
    """Refuse an empty argument: a script passes one for an unset variable, and means another owner."""
    if not text.strip():
        message = "the value is empty; is a shell variable not set?"
        raise argparse.ArgumentTypeError(message)
    return text


def _add_server_and_owner(parser: argparse.ArgumentParser, *, is_optional: bool) -> None:
    nargs = "?" if is_optional else None
    parser.add_argument(
        "server", nargs=nargs, type=_non_empty, help="its name in config.yaml, or its address"
    )
    parser.add_argument(
        "--owner", type=_non_empty, help="the tokens' owner, such as telegram:42; default: the operator"
    )


def _add_server_arguments(parser: argparse.ArgumentParser, *, is_optional: bool = False) -> None:
    _add_server_and_owner(parser, is_optional=is_optional)
    parser.add_argument("--json", action="store_true", help="write JSON, a line per event")
