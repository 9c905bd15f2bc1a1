"""Other processes for the tests of the service: `python -m tests.service.actor <verb> <home> <now> ...`.

They import no more than they need, for there are many of them.
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
from hermes_mcp_auth_remote.values import Origin, Server

ROOT = Path(__file__).resolve().parents[2]


def start(verb: str, home: Path, now: float, *words: str) -> subprocess.Popen[str]:
    """Start a verb in a process whose clock stands still (0: goes); its lines are text both ways."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.service.actor", verb, str(home), str(now), *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _say(text: str) -> None:
    print(text, flush=True)


def finish(service: AuthService, login_id: str) -> None:
    """Finish a login with the text on standard input; say how that went."""
    _say("ready")
    try:
        asyncio.run(service.complete_login(login_id, sys.stdin.readline().strip(), Origin("terminal")))
    except McpAuthError as error:
        _say(error.code)
    else:
        _say("done")


def call(service: AuthService, url: str, times: str) -> None:
    """Call a server so many times at once, after a line on standard input; say what came back."""
    import httpx

    from hermes_mcp_auth_remote.auth.httpx import McpAuth

    session = service.session(Server("notes", url))

    async def calls() -> list[Any]:
        limits = httpx.Limits(max_connections=int(times))
        async with httpx.AsyncClient(auth=McpAuth(session), timeout=60, limits=limits) as client:
            answers = (client.get(url) for _ in range(int(times)))
            return await asyncio.gather(*answers, return_exceptions=True)

    _say("ready")
    while sys.stdin.readline().strip():
        outcomes = asyncio.run(calls())
        said = [o.status_code if isinstance(o, httpx.Response) else type(o).__name__ for o in outcomes]
        _say(json.dumps(said))


def wait(service: AuthService, login_id: str) -> None:
    """Wait for a login's end, with a clock that goes; say what it was."""
    _say("ready")
    _say(asyncio.run(service.wait_for_login(login_id)).status)


def refresh(service: AuthService, url: str) -> None:
    """For each number on standard input, fork a child that refreshes all the time; kill it that much later.

    The child is warm: it has everything imported, so that even a few milliseconds hit a refresh. Numbers are
    seconds; another line makes them short. Says "killed", or "ended" where a child gave up before.
    """
    import hermes_mcp_auth_remote.http.client  # noqa: F401

    _say("ready")
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
        _say("killed" if os.WIFSIGNALED(status) else "ended")


def stopped(service: AuthService, url: str, flag: str) -> None:
    """Get a header after a line on standard input; say how that went, and end with the process.

    Once the file `flag` exists, 100 seconds have passed for the event loops: all that a long SIGSTOP does.
    """

    def jumped(_: asyncio.BaseEventLoop) -> float:
        return time.monotonic() + (100.0 if Path(flag).exists() else 0.0)

    asyncio.BaseEventLoop.time = jumped  # type: ignore[method-assign,assignment]
    _say("ready")
    sys.stdin.readline()
    try:
        asyncio.run(service.session(Server("notes", url)).header())
    except McpAuthError as error:
        _say(error.code)
    else:
        _say("token")


async def _refresh(session: Session) -> None:
    header: str | None = await session.header()
    while header is not None:
        header = await session.handle_challenge(header, 401, ['Bearer error="invalid_token"'])


_VERBS = (finish, call, wait, refresh, stopped)

if __name__ == "__main__":
    verb: Any = {verb.__name__: verb for verb in _VERBS}[sys.argv[1]]
    now = float(sys.argv[3])
    verb(AuthService(Path(sys.argv[2]), clock=(lambda: now) if now else time.time), *sys.argv[4:])
