"""Run programs in forks of a process that has imported their modules: see `fork_server`.

    python tests/parts/fork_client.py SOCKET PROGRAM ARGUMENT ...

runs one program from the command line: the fork gets this process's standard streams, environment and folder.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
SERVER = Path(__file__).with_name("fork_server.py")
# Variables that an interpreter reads only when it starts: a fork cannot apply them.
INTERPRETER_VARIABLES = ("PYTHON", "LANG", "LC_")


def can_fork_with(env: Mapping[str, str]) -> bool:
    """Return True if a fork can run with these additional environment variables."""
    return not any(name.startswith(INTERPRETER_VARIABLES) for name in env)


@cache
def start_fork_server(modules: tuple[str, ...]) -> str:
    """Start a fork server that imports these modules, once; return the path of its socket."""
    folder = tempfile.TemporaryDirectory(prefix="mcp-auth-warm-")
    path = str(Path(folder.name, "socket"))
    # The server stops when this pipe closes. The pipe closes at the latest when this process ends.
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        [sys.executable, SERVER, path, *modules], stdin=read_end, stdout=subprocess.PIPE, cwd=ROOT
    )
    os.close(read_end)
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == b"ready\n"

    def stop_server() -> None:
        os.close(write_end)
        process.wait()
        folder.cleanup()

    atexit.register(stop_server)
    return path


def start_program(
    path: str, program: tuple[str, ...], environ: Mapping[str, str], streams: Sequence[int]
) -> socket.socket:
    """Start a program with these standard streams; return a socket with its process id and exit code."""
    name, *arguments = program
    request = {"program": name, "arguments": arguments, "environ": dict(environ), "folder": str(Path.cwd())}
    message = json.dumps(request).encode() + b"\n"
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    sent_bytes = socket.send_fds(connection, [message], list(streams))
    connection.sendall(message[sent_bytes:])
    return connection


class Process:
    """A running program, with the members of `subprocess.Popen` that tests use."""

    def __init__(self, path: str, program: tuple[str, ...], environ: Mapping[str, str]) -> None:
        """Start a program through the server of this socket; `environ` is its whole environment."""
        self.returncode: int | None = None
        pipes = [os.pipe() for _ in range(3)]
        child_descriptors = [pipes[0][0], pipes[1][1], pipes[2][1]]
        self._connection = start_program(path, program, environ, child_descriptors)
        for descriptor in child_descriptors:
            os.close(descriptor)
        self.stdin: IO[bytes] | None = os.fdopen(pipes[0][1], "wb")
        self.stdout: IO[bytes] | None = os.fdopen(pipes[1][0], "rb")
        self.stderr: IO[bytes] | None = os.fdopen(pipes[2][0], "rb")
        self._lines = self._connection.makefile("r")
        self.pid = int(self._lines.readline())

    def send_signal(self, number: int) -> None:
        """Send a signal unless the program has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit and return the exit code; raises TimeoutExpired after `timeout` seconds."""
        if self.returncode is None:
            # The server closes the connection after the exit code, so the connection becomes readable even if
            # the code has been received with the process id.
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a fork", timeout or 0)
            self.returncode = int(self._lines.readline())
        return self.returncode

    def communicate(self, data: bytes | None = None) -> tuple[bytes, bytes]:
        """Write `data`, close standard input, wait; return standard output and standard error."""
        outputs: dict[str, bytes] = {}
        readers = [
            threading.Thread(target=lambda name=name, pipe=pipe: outputs.update({name: pipe.read()}))
            for name, pipe in (("out", self.stdout), ("err", self.stderr))
            if pipe is not None and not pipe.closed
        ]
        for reader in readers:
            reader.start()
        if self.stdin is not None and not self.stdin.closed:
            # The program may end before it reads all input.
            with contextlib.suppress(BrokenPipeError):
                self.stdin.write(data or b"")
                self.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                self.stdin.close()
        for reader in readers:
            reader.join()
        if not self._lines.closed:
            self.wait()
        for file in (self.stdout, self.stderr, self._lines, self._connection):
            if file is not None:
                file.close()
        return outputs.get("out", b""), outputs.get("err", b"")


def run_program(
    path: str, program: tuple[str, ...], environ: Mapping[str, str], stdin: bytes, seconds: float
) -> tuple[int, bytes, bytes]:
    """Run a program to its end; return its exit code, standard output and standard error.

    Kill the program after `seconds`; its exit code is then -9.
    """
    process = Process(path, program, environ)
    watchdog = threading.Timer(seconds, process.kill)
    watchdog.start()
    out, err = process.communicate(stdin)
    watchdog.cancel()
    assert process.returncode is not None
    return process.returncode, out, err


if __name__ == "__main__":
    with start_program(sys.argv[1], tuple(sys.argv[2:]), os.environ, (0, 1, 2)).makefile("r") as lines:
        lines.readline()
        sys.exit(int(lines.readline()))
