"""`login` without a server: list the servers that are known here, and let the user choose one."""

from __future__ import annotations

import argparse
import os
import sys
import time

from hermes_mcp_auth_remote.cli.output import report_error
from hermes_mcp_auth_remote.cli.servers import current_configuration, current_home, resolve_server
from hermes_mcp_auth_remote.config import Configuration
from hermes_mcp_auth_remote.errors import ConfigError, McpAuthError
from hermes_mcp_auth_remote.phrases import NOT_CONNECTED, replace_unprintable, shorten
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.default import stored_server_names
from hermes_mcp_auth_remote.status import session_status
from hermes_mcp_auth_remote.terminal.question import read_answer, remove_quotes
from hermes_mcp_auth_remote.terminal.text import wrap_text
from hermes_mcp_auth_remote.terminal.window import terminal_size
from hermes_mcp_auth_remote.values import Owner

_MAX_NAME_CHARS = 60
_QUESTION = "Number, name or address: "
_ADDRESS_QUESTION = "Address of the server: "
_CHOICE_ADVICE = "Type a number or a name from the list, or the address of a server."
_ADDRESS_ADVICE = "Type the address of the server, such as https://mcp.linear.app/mcp."


def choose_server(options: argparse.Namespace) -> str:
    """Return the name or the address of a server that the user chooses at the terminal.

    Without a terminal, lists the servers and ends with the usage. Raises ConfigError for a program that reads
    JSON and if config.yaml cannot be read, KeyboardInterrupt at the end of the input.
    """
    if options.json:
        raise ConfigError("No server was named.", "Name a server of config.yaml, or give its address.")
    owner: Owner = options.owner
    configuration = current_configuration()
    names = _known_names(configuration, owner)
    is_interactive = _is_terminal()
    if names:
        _print(
            "Which server do you want to log in to?" if is_interactive else "These servers are known here:"
        )
        for number, name in enumerate(names, 1):
            _print_choice(number, name, _describe_state(name, owner, configuration))
    elif is_interactive:
        _print("No server is known here yet. Type the address of one, such as https://mcp.linear.app/mcp.")
    if not is_interactive:
        options.refuse("name a server, or give its address with --url")
    while True:
        answer = read_answer(_QUESTION if names else _ADDRESS_QUESTION)
        if answer is None:
            raise KeyboardInterrupt
        if answer and (server := _read_choice(answer, names, owner, configuration)) is not None:
            return server


def read_url() -> str:
    """Return the address of `--url -`, from the next line of standard input. Raises ConfigError."""
    url = read_answer(_ADDRESS_QUESTION if _is_terminal() else "")
    if not url:
        raise ConfigError(
            "`--url -` reads an address from standard input, and there is none.",
            "Write the server's address on the first line.",
        )
    return remove_quotes(url)


def _known_names(configuration: Configuration, owner: Owner) -> list[str]:
    """List the servers of config.yaml that use OAuth, and those with a login of the owner.

    Raises ConfigError if config.yaml cannot be read: no answer could then name a server.
    """
    stored_names = (name for name in stored_server_names(owner) if not configuration.has_entry(name))
    return list(dict.fromkeys([*configuration.server_names(), *stored_names]))


def _describe_state(name: str, owner: Owner, configuration: Configuration) -> str:
    """Say whether a server is connected, and with which account."""
    try:
        server = resolve_server(name, owner, configuration, with_suggestions=False)
        connection = AuthService(current_home()).blocking.connection(server, owner)
    except McpAuthError as error:
        return str(error)
    if connection is None:
        return NOT_CONNECTED
    uses_machine_grant = server.options.grant != "authorization_code"
    state = session_status(connection, time.time(), uses_machine_grant=uses_machine_grant).state
    if state == "connected" and connection.account:
        return f"already {state} as {connection.account}"
    return f"already {state}" if state == "connected" else state


def _print_choice(number: int, name: str, state: str) -> None:
    columns, label = terminal_size(sys.stderr)[0], f"{number:>3}  "
    text = replace_unprintable(f"{shorten(name, _MAX_NAME_CHARS)}: {state}")
    print(label + wrap_text(text, columns, len(label)).lstrip(), file=sys.stderr, flush=True)


def _read_choice(answer: str, names: list[str], owner: Owner, configuration: Configuration) -> str | None:
    """Return the chosen name or address; None if the answer names no server, after a message."""
    if answer in names:
        return answer
    if names and answer.isascii() and answer.isdigit():
        if 0 < len(answer) < 6 and 1 <= int(answer) <= len(names):
            return names[int(answer) - 1]
        _print(f"There is no {answer[:_MAX_NAME_CHARS]}. Type a number from 1 to {len(names)}, or a name.")
        return None
    answer = remove_quotes(answer)
    try:
        advice = _CHOICE_ADVICE if names else _ADDRESS_ADVICE
        resolve_server(answer, owner, configuration, unknown_name_advice=advice)
    except ConfigError as error:
        report_error(error, as_json=False)
        return None
    return answer


def _print(text: str) -> None:
    print(wrap_text(text, terminal_size(sys.stderr)[0]), file=sys.stderr, flush=True)


def _is_terminal() -> bool:
    return sys.stdin is not None and os.isatty(0) and terminal_size(sys.stderr)[0] > 0
