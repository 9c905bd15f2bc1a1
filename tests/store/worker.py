"""Worker processes for the tests of the store: `python -m tests.store.worker <verb> <home> ...`."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from hermes_mcp_auth_remote.errors import LoginError, StoreUnwritable
from hermes_mcp_auth_remote.login import Login, apply_event
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files import private_files
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from tests.store.builders import KEY, LOGIN_ID, ROOT, build_credentials

_READ_FUNCTIONS = {
    "read_private",
    "_check_file",
    "_check_owner",
    "_read_all",
    "has_directory",
    "_check_directory",
}


def start_worker(verb: str, home: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a worker process; its standard input and output are text."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.store.worker", verb, str(home), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _print_line(text: str) -> None:
    print(text, flush=True)


def claim(home: Path) -> None:
    """Wait for a line, then claim the login; print "won" or the error's code."""
    store = FileStore(home)
    _print_line("ready")
    sys.stdin.readline()

    def claim_by_this_process(login: Login) -> Login:
        return replace(apply_event(login, "claim"), failure_code=str(os.getpid()))

    try:
        store.logins.change(LOGIN_ID, claim_by_this_process)
    except LoginError as error:
        _print_line(error.code)
    else:
        _print_line("won")


def count(home: Path, times: str) -> None:
    """Increment a login's `paste_attempts` `times` times."""
    store = FileStore(home)
    _print_line("ready")
    sys.stdin.readline()
    for _ in range(int(times)):
        store.logins.change(LOGIN_ID, lambda login: replace(login, paste_attempts=login.paste_attempts + 1))


def enter(home: Path, times: str) -> None:
    """Acquire and release the lock `times` times, and log both."""
    log = os.open(home / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    store = FileStore(home)
    _print_line("ready")
    sys.stdin.readline()
    for _ in range(int(times)):
        with store.lock(KEY).hold(60):
            os.write(log, f"< {os.getpid()}\n".encode())
            os.write(log, f"> {os.getpid()}\n".encode())


def hold(home: Path) -> None:
    """Acquire the lock and hold it until this process ends."""
    lock = FileStore(home).lock(KEY)
    _print_line("held" if lock.try_acquire() else "refused")
    sys.stdin.readline()


def fill(home: Path, limit: str) -> None:
    """Try to store a login's credentials while no file may be longer than `limit` bytes."""
    store = FileStore(home)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    try:
        store.save_login(KEY, build_credentials(1))
    except StoreUnwritable as error:
        _print_line(str(error))
    else:
        _print_line("stored")


def write(home: Path) -> None:
    """Store one generation of credentials after the other, and print its number, until killed."""
    store, generation = FileStore(home), 1
    while True:
        with store.lock(KEY).hold(60):
            store.save_login(KEY, build_credentials(generation))
        _print_line(str(generation))
        generation += 1


def kill(home: Path, times: str) -> None:
    """Repeat `times` times: kill a writer after a few generations, print their number, wait for a line."""
    store = FileStore(home)
    for round_ in range(int(times)):
        store.save_login(KEY, build_credentials(0))
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            for generation in range(1, 10_000):
                with store.lock(KEY).hold(60):
                    store.save_login(KEY, build_credentials(generation))
                os.write(writing, b"x")
            os._exit(1)
        os.close(writing)
        stored = sum(len(os.read(reading, 1)) for _ in range(round_ % 5))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while data := os.read(reading, 4096):
            stored += len(data)
        os.close(reading)
        _print_line(str(stored))
        sys.stdin.readline()


def build_old_and_new(kind: str) -> tuple[Credentials, Credentials]:
    """Return the stored credentials and those of the next login, for each kind of earlier login."""
    old, new = build_credentials(0), build_credentials(1)
    if kind == "after hermes":
        return replace(old, binding=None), new
    if kind == "again":
        return old, replace(old, tokens=new.tokens)
    return old, new


def die(home: Path, line: str, kind: str) -> None:
    """Store credentials of generation 1, and kill this process at the n-th executed line that writes."""
    lines_left = int(line)

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines_left
        # Only private_files changes files, so deaths in other modules would lead to no other state of the
        # disk.
        if frame.f_code.co_filename != private_files.__file__ or frame.f_code.co_name in _READ_FUNCTIONS:
            return None
        if event == "line":
            lines_left -= 1
            if lines_left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    store, new = FileStore(home), build_old_and_new(kind)[1]
    sys.settrace(trace)
    store.save_login(KEY, new)
    sys.settrace(None)


def die_everywhere(base: Path, kind: str, step: str) -> None:
    """For each `step`-th line, store generation 0 in a new home and kill a writer there; print the last line.

    The name of each home is the number of its line.
    """
    line = 0
    while True:
        line += int(step)
        home = base / str(line)
        FileStore(home).save_login(KEY, build_old_and_new(kind)[0])
        child = os.fork()
        if child == 0:
            die(home, str(line), kind)
            os._exit(0)
        if os.waitpid(child, 0)[1] == 0:
            _print_line(str(line - int(step)))
            return


_VERBS = (claim, count, enter, hold, fill, write, kill, die, die_everywhere)

if __name__ == "__main__":
    verb: Any = {verb.__name__: verb for verb in _VERBS}[sys.argv[1]]
    verb(Path(sys.argv[2]), *sys.argv[3:])
