"""Build the command that forwards the redirect's port from the user's computer."""

from __future__ import annotations

import getpass
import shlex
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

_SSH_PORT = "22"


def ssh_forward_command(environ: Mapping[str, str], redirect_uri: str) -> str:
    """Return the `ssh -N -L` command to run on the user's computer, for a loopback redirect URI.

    The host is the address that the user's computer connected to (SSH_CONNECTION). If that address is
    unknown, it is the name of this machine.
    """
    redirect = urlsplit(redirect_uri)
    name = redirect.hostname or "127.0.0.1"
    bracketed = f"[{name}]" if ":" in name else name
    local = f"{redirect.port}" if name in {"127.0.0.1", "localhost"} else f"{bracketed}:{redirect.port}"
    # sshd sets "client-address client-port server-address server-port".
    session = environ.get("SSH_CONNECTION", "").split()
    host, ssh_port = (session[2], session[3]) if len(session) == 4 else (socket.gethostname(), _SSH_PORT)
    arguments = ["ssh", "-N", "-L", f"{local}:{bracketed}:{redirect.port}"]
    if ssh_port != _SSH_PORT:
        arguments += ["-p", ssh_port]
    return shlex.join([*arguments, f"{_user_name(environ)}@{host}"])


def _user_name(environ: Mapping[str, str]) -> str:
    name = environ.get("LOGNAME") or environ.get("USER")
    if name:
        return name
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a user id without a name, as in a container
        return "USER"
