"""A fork server: imports modules once and forks for each program that a test runs.

A program in a new interpreter costs 0.4 s of CPU and more, mostly for imports; a fork costs a tenth.
The fork is a real process with its own environment, working directory, standard streams and exit code.

    python tests/parts/fork_server.py SOCKET MODULE ...

A request is one message on a stream socket: the three standard streams as file descriptors, and a JSON object
with `program` (a module's name or a file's path), `arguments`, `environ` and `folder`. The response has two
lines: the process id, then the exit code.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import time
from typing import Any

MAX_REQUEST_BYTES = 1_048_576


def serve(path: str) -> dict[str, Any]:
    """Accept requests until standard input ends; in each fork, return its request."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    # No process waits for the supervisors, so let the system remove them.
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
    """Read a request, fork, report the fork's exit code and exit; in the fork, return the request."""
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


def apply_request(request: dict[str, Any]) -> None:
    """Set the arguments, environment, folder and standard streams of a program."""
    os.environ.clear()
    os.environ.update(request["environ"])
    time.tzset()
    os.chdir(request["folder"])
    sys.argv = [request["program"], *request["arguments"]]
    # Open the streams as an interpreter with LANG=C.UTF-8 does.
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


if __name__ == "__main__":
    # Remove this file's folder from the path: the program must not import its modules.
    del sys.path[0]
    for name in sys.argv[2:]:
        importlib.import_module(name)
    # Exclude imported objects from garbage collection: a collection at the exit of a fork would take 0.2 s.
    gc.collect()
    gc.freeze()
    program_request = serve(sys.argv[1])
    apply_request(program_request)
    if program_request["program"].endswith(".py"):
        runpy.run_path(program_request["program"], run_name="__main__")
    else:
        runpy.run_module(program_request["program"], run_name="__main__", alter_sys=True)
