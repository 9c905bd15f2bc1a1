"""Child processes for the service tests: `python -m tests.service.child_process <verb> <home> <now> ...`.

They import as little as possible, because a test starts many of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.values import Origin, Secret, Server

ROOT = Path(__file__).resolve().parents[2]


def start_process(verb: str, home: Path, now: float, *arguments: str) -> subprocess.Popen[str]:
    """Start a process that runs `verb`, with pipes in text mode.

    The process's clock stands still at `now`. If `now` is 0, the process uses the system clock.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "tests.service.child_process", verb, str(home), str(now), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _print_line(text: str) -> None:
    print(text, flush=True)


def finish(service: AuthService, login_id: str) -> None:
    """Complete a login with the line on standard input, and print the outcome."""
    _print_line("ready")
    try:
        asyncio.run(service.complete_login(login_id, sys.stdin.readline().strip(), Origin("terminal")))
    except McpAuthError as error:
        _print_line(error.code)
    else:
        _print_line("done")


def call(service: AuthService, url: str, times: str) -> None:
    """For each line on standard input, send `times` requests at once and print the outcomes as JSON."""
    import httpx

    from hermes_mcp_auth_remote.auth.httpx import McpAuth

    session = service.session(Server("notes", url))

    async def send_requests() -> list[Any]:
        limits = httpx.Limits(max_connections=int(times))
        async with httpx.AsyncClient(auth=McpAuth(session), timeout=60, limits=limits) as client:
            requests = (client.get(url) for _ in range(int(times)))
            return await asyncio.gather(*requests, return_exceptions=True)

    _print_line("ready")
    while sys.stdin.readline().strip():
        outcomes = asyncio.run(send_requests())
        results = [o.status_code if isinstance(o, httpx.Response) else type(o).__name__ for o in outcomes]
        _print_line(json.dumps(results))


def wait(service: AuthService, login_id: str) -> None:
    """Wait until a login ends, and print its status."""
    _print_line("ready")
    _print_line(asyncio.run(service.wait_for_login(login_id)).status)


def refresh(service: AuthService, url: str) -> None:
    """For each number on standard input, fork a child that refreshes in a loop.

    Kill the child after that many seconds, or when another line arrives. The child has imported every module,
    so that a kill after a few milliseconds can hit a refresh. Prints "killed", or "ended" if the child ended
    before the kill.
    """
    import hermes_mcp_auth_remote.http.client  # noqa: F401

    _print_line("ready")
    while line := sys.stdin.readline().strip():
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(_refresh(service.session(Server("notes", url))))
            finally:
                os._exit(1)
        if select.select([sys.stdin], [], [], float(line))[0]:
            sys.stdin.readline()
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        _print_line("killed" if os.WIFSIGNALED(status) else "ended")


def get_header(service: AuthService, url: str, flag: str) -> None:
    """After a line on standard input, get a header and print the outcome.

    Once the file `flag` exists, the clock of the event loops is 100 seconds ahead, as after a long SIGSTOP.
    """

    def read_shifted_clock(_: asyncio.BaseEventLoop) -> float:
        return time.monotonic() + (100.0 if Path(flag).exists() else 0.0)

    asyncio.BaseEventLoop.time = read_shifted_clock  # type: ignore[method-assign,assignment]
    _print_line("ready")
    sys.stdin.readline()
    try:
        asyncio.run(service.session(Server("notes", url)).header())
    except McpAuthError as error:
        _print_line(error.code)
    else:
        _print_line("token")


async def _refresh(session: Session) -> None:
    header: str | None = await session.header()
    while header is not None:
        header = await session.handle_challenge(header, 401, ['Bearer error="invalid_token"'])
        if header is not None:
            # Report an accepted token as `auth.flow` does, but not in another thread.
            session._tokens._record_retry(Secret(header), is_accepted=True)


_VERBS = (finish, call, wait, refresh, get_header)

if __name__ == "__main__":
    verb: Any = {verb.__name__: verb for verb in _VERBS}[sys.argv[1]]
    now = float(sys.argv[3])
    verb(AuthService(Path(sys.argv[2]), clock=(lambda: now) if now else time.time), *sys.argv[4:])
