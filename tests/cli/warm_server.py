"""A process that has imported the command line and forks itself for each command that a test runs.

A command in a fresh interpreter costs 0.4 s of CPU, nearly all of it imports; a fork costs a tenth of that.
The fork is a real process: it has its own environment, working directory, standard streams and exit.

    python tests/cli/warm_server.py SOCKET

A request is one message on a stream socket: the three standard streams as file descriptors, and a JSON object
with `arguments`, `environ` and `folder`. The response is two lines: the process id, then the exit code.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import time
from typing import Any

MAX_REQUEST_BYTES = 1_048_576


def preload() -> None:
    """Import what commands import, so that their forks need not."""
    from hermes_mcp_auth_remote import cli

    for module in pkgutil.iter_modules(cli.__path__):
        importlib.import_module(f"{cli.__name__}.{module.name}")
    for name in ("http.client", "http.kept", "service.beginning", "service.default"):
        importlib.import_module(f"hermes_mcp_auth_remote.{name}")


def serve(path: str) -> dict[str, Any]:
    """Accept requests until standard input ends; returns a request in the fork that is to run it."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    # Nothing waits for the supervisors.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    while True:
        readable, _, _ = select.select([listener.fileno(), 0], [], [])
        if 0 in readable:
            sys.exit()
        connection, _ = listener.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            return supervise(connection)
        connection.close()


def supervise(connection: socket.socket) -> dict[str, Any]:
    """Read a request, fork, report the fork's end and exit; returns the request in the fork."""
    data, streams, _, _ = socket.recv_fds(connection, MAX_REQUEST_BYTES, 3)
    while not data.endswith(b"\n"):
        data += connection.recv(MAX_REQUEST_BYTES)
    request: dict[str, Any] = json.loads(data)
    process = os.fork()
    if process == 0:
        connection.close()
        for target, stream in enumerate(streams):
            os.dup2(stream, target)
            os.close(stream)
        return request
    for stream in streams:
        os.close(stream)
    connection.sendall(f"{process}\n".encode())
    _, status = os.waitpid(process, 0)
    with contextlib.suppress(OSError):
        connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def become(request: dict[str, Any]) -> None:
    """Take on the arguments, environment, folder and standard streams of a command."""
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    os.chdir(request["folder"])
    sys.argv = ["hermes-mcp-auth", *request["arguments"]]
    # As an interpreter of LANG=C.UTF-8 opens them.
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    # This file's folder is first in the path, and its modules are not the command's.
    del sys.path[0]
    preload()
    become(serve(sys.argv[1]))
    from hermes_mcp_auth_remote.cli.__main__ import run

    run()
