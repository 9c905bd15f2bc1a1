"""The commands that advice names. Each runs exactly as printed, in a shell of the same HERMES_HOME.

A model may read the advice of an error, and a URL with a query may contain a key. Such a command does not
contain the address: it asks for it (`--url -`).
"""

from __future__ import annotations

import shlex

from hermes_mcp_auth_remote.values import Owner, Server

PROGRAM = "hermes-mcp-auth"
# The value of `--url` that stands for a line of standard input.
READ_URL = "-"


def login_command(
    server: Server | str, owner: Owner = None, *, via: str | None = None, hides_url: bool = False
) -> str:
    """Return the command for a login, quoted for a shell.

    `server` is a server, or its name or URL as a user typed it. `via` is a chat user, such as "telegram:42".
    """
    if isinstance(server, Server):
        name, url = server.name, None if server.is_known else server.url
    elif "://" in server:
        name, url = None, server
    else:
        name, url = server, None
    options = [] if url is None else ["--url", READ_URL if hides_url or "?" in url else url]
    options += ["--owner", owner] if owner else []
    options += ["--via", via] if via else []
    return _command("login", name, options)


def command_for(verb: str, server_argument: str, owner: Owner = None) -> str:
    """Return the command that runs a verb for a server, by the server's name or URL; quoted for a shell."""
    return _command(verb, server_argument, ["--owner", owner] if owner else [])


def logout_command(name: str, owner: Owner = None) -> str:
    """Return the command that deletes a login, quoted for a shell."""
    return command_for("logout", name, owner)


def token_command(name: str, owner: Owner = None) -> str:
    """Return the command that prints a token, quoted for a shell."""
    return command_for("token", name, owner)


def finish_command(login_id: str) -> str:
    """Return the command that completes a waiting login from another terminal."""
    return f"{PROGRAM} login --finish {login_id}"


def corrected_command(arguments: list[str], text: str, url: str) -> str | None:
    """Return the command of these arguments with `url` instead of the first `text`, quoted for a shell.

    Returns None if no argument is this text, or if the URL has a query.
    """
    corrected_arguments = {text: url, f"--url={text}": f"--url={url}"}
    for index, argument in enumerate(arguments):
        if argument in corrected_arguments and "?" not in url:
            corrected = [*arguments[:index], corrected_arguments[argument], *arguments[index + 1 :]]
            return shlex.join([PROGRAM, *corrected])
    return None


def login_advice(server: Server, owner: Owner = None) -> str:
    """Return the advice for a server that needs a login, without its address, for an error."""
    command = login_command(server, owner, hides_url=True)
    if server.is_known:
        return f"Run `{command}`."
    return f"Run `{command}`, and type the address that your program uses."


def _command(verb: str, name: str | None, options: list[str]) -> str:
    names = [] if name is None else [name]
    # A name that begins with a hyphen would be read as an option.
    if name is not None and name.startswith("-"):
        return shlex.join([PROGRAM, verb, *options, "--", name])
    return shlex.join([PROGRAM, verb, *names, *options])
