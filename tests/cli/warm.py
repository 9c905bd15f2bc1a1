"""Runs commands in forks of one process that has imported everything: see `warm_server`."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO

SERVER = Path(__file__).with_name("warm_server.py")
# What decides at an interpreter's start how it behaves: a fork cannot take it on any more.
AT_START = ("PYTHON", "LANG", "LC_")


def suits(env: Mapping[str, str]) -> bool:
    """Tell whether a fork can run with these additional environment variables."""
    return not any(name.startswith(AT_START) for name in env)


@cache
def server_socket() -> str:
    """Start the server of this test process, and return the path of its socket."""
    folder = tempfile.TemporaryDirectory(prefix="mcp-auth-warm-")
    path = str(Path(folder.name, "socket"))
    # The server ends when this process does: the pipe is closed then, however that happens.
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, SERVER, path], stdin=reading, stdout=subprocess.PIPE)
    os.close(reading)
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == b"ready\n"

    def end() -> None:
        os.close(writing)
        process.wait()
        folder.cleanup()

    atexit.register(end)
    return path


class Process:
    """A command under way, with the members of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: tuple[str, ...], environ: Mapping[str, str]) -> None:
        """Start a command; `environ` is all that it sees of its surroundings."""
        self.arguments = arguments
        self.returncode: int | None = None
        request = {"arguments": arguments, "environ": dict(environ), "folder": str(Path.cwd())}
        message = json.dumps(request).encode() + b"\n"
        pipes = [os.pipe() for _ in range(3)]
        theirs = [pipes[0][0], pipes[1][1], pipes[2][1]]
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(server_socket())
        sent = socket.send_fds(self._connection, [message], theirs)
        self._connection.sendall(message[sent:])
        for descriptor in theirs:
            os.close(descriptor)
        self.stdin: IO[bytes] | None = os.fdopen(pipes[0][1], "wb")
        self.stdout: IO[bytes] | None = os.fdopen(pipes[1][0], "rb")
        self.stderr: IO[bytes] | None = os.fdopen(pipes[2][0], "rb")
        self._lines = self._connection.makefile("r")
        self.pid = int(self._lines.readline())

    def send_signal(self, number: int) -> None:
        """Send a signal unless the command has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill the command."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, data: bytes | None = None) -> tuple[bytes, bytes]:
        """Write `data`, close the standard input; returns standard output and standard error at the end."""
        read: dict[str, bytes] = {}
        readers = [
            threading.Thread(target=lambda name=name, pipe=pipe: read.update({name: pipe.read()}))
            for name, pipe in (("out", self.stdout), ("err", self.stderr))
            if pipe is not None and not pipe.closed
        ]
        for reader in readers:
            reader.start()
        if self.stdin is not None and not self.stdin.closed:
            # A command may end without reading all of it.
            with contextlib.suppress(BrokenPipeError):
                self.stdin.write(data or b"")
                self.stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                self.stdin.close()
        for reader in readers:
            reader.join()
        if self.returncode is None:
            self.returncode = int(self._lines.readline())
            for file in (self.stdout, self.stderr, self._lines, self._connection):
                if file is not None:
                    file.close()
        return read.get("out", b""), read.get("err", b"")


def run(
    arguments: tuple[str, ...], environ: Mapping[str, str], stdin: bytes, seconds: float
) -> tuple[int, bytes, bytes]:
    """Run a command to its end; returns its exit code, standard output and standard error.

    The command is killed after `seconds`; its exit code is -9 then.
    """
    process = Process(arguments, environ)
    watchdog = threading.Timer(seconds, process.kill)
    watchdog.start()
    out, err = process.communicate(stdin)
    watchdog.cancel()
    assert process.returncode is not None
    return process.returncode, out, err
