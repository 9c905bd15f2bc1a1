"""Measure how one hostile server delays work with other servers: a call, and the start of a login.

Hostile exchanges follow each other without a pause in the event loop that runs the measured work.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2

from benchmarks.auth_timing import post
from benchmarks.hostile_server import run_server as serving_hostile
from benchmarks.login_home import logged_in_home, tokens
from benchmarks.measurement import Figure, Measure, Scale, measure_interleaved
from benchmarks.server import run_server
from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
from hermes_mcp_auth_remote.demo.servers import serve_demo
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.http.client import run_exchange
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.metadata import discover_protected_resource
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Origin, Server

MAX_RATIO = 1.2
# The look-up of this name takes longer than a login may take. It ends after five seconds, so no thread leaks.
SILENT_HOST = "silent.example"
_SILENT_SECONDS = 5.0
_CONCURRENT_LOGINS = 12
# A hostile exchange must have started before the measured work starts.
_HEAD_START_SECONDS = 0.1

HostileExchange = Callable[[Any], Awaitable[object]]
"""Runs one exchange with the hostile server. It gets an httpx2 client, because a client is slow to create."""


def measure_figures(scale: Scale) -> list[Figure]:
    """Measure a call during each kind of hostile response, and a login during look-ups that never end."""
    figures: list[Figure] = []
    with run_server() as origin, serving_hostile() as hostile, logged_in_home() as home:
        # The duration of a usual tool call.
        url = f"{origin}/delay/{scale.choose_size(200, 20)}"
        session = AuthService(home).session(Server("bench", url))
        session.adopt(tokens())
        kinds: Mapping[str, HostileExchange] = {
            "a 401 without end": lambda client: _receive_401(client, f"{hostile}/endless"),
            "103 responses without end": lambda _: _discover(hostile, "hints"),
            "metadata in chunks of one byte": lambda _: _discover(hostile, "chunks"),
            "metadata of hosts that grow": lambda _: _discover(hostile, "wide"),
        }
        measures: dict[str, Measure] = {"undisturbed": _call_measure(session, url, None)}
        measures |= {name: _call_measure(session, url, exchange) for name, exchange in kinds.items()}
        medians = measure_interleaved(measures, scale, 2)
        base = medians.pop("undisturbed")
        figures += [
            Figure(f"a call beside {name}", "ms", medians[name], "an undisturbed one", base, MAX_RATIO)
            for name in kinds
        ]
    return [*figures, _measure_login_beside_lookups(scale)]


def _call_measure(session: Any, url: str, exchange: HostileExchange | None) -> Measure:  # noqa: ANN401
    async def measure() -> float:
        async with (
            httpx2.AsyncClient(auth=McpAuth(session), timeout=None, trust_env=False) as client,
            httpx2.AsyncClient(timeout=None, trust_env=False) as other,
        ):
            await post(client, url)
            hostile_call = None if exchange is None else partial(exchange, other)
            return await _time_beside(lambda: post(client, url), hostile_call)

    return lambda: asyncio.run(measure())


async def _time_beside(
    measured_call: Callable[[], Awaitable[object]], hostile_exchange: Callable[[], Awaitable[object]] | None
) -> float:
    """Return the duration of a call, in milliseconds, while hostile exchanges follow each other."""

    async def repeat(exchange: Callable[[], Awaitable[object]]) -> None:
        while True:
            await exchange()

    hostile_task = None if hostile_exchange is None else asyncio.create_task(repeat(hostile_exchange))
    await asyncio.sleep(_HEAD_START_SECONDS)
    started_at = time.perf_counter()
    await measured_call()
    duration_ms = (time.perf_counter() - started_at) * 1000
    if hostile_task is not None:
        # Raise the error of a hostile exchange that failed in an unexpected way.
        if hostile_task.done():
            hostile_task.result()
        hostile_task.cancel()
        with suppress(asyncio.CancelledError):
            await hostile_task
    return duration_ms


async def _receive_401(client: Any, url: str) -> None:  # noqa: ANN401
    async with client.stream("POST", url, auth=McpAuth(_RejectedSession(url))) as response:
        await response.aread()
    if response.status_code != 401:
        raise RuntimeError(f"The hostile server answered {response.status_code}.")


class _RejectedSession:
    """A session with one token, which every server rejects."""

    prover = None

    def __init__(self, url: str) -> None:
        self.server = SimpleNamespace(url=url)

    def header_now(self) -> str:
        return "Bearer a-token"

    header_blocking = header_now

    async def header(self) -> str:
        return "Bearer a-token"

    def report_retry(self, header: str, /, *, is_accepted: bool) -> None:
        """Do nothing."""

    async def handle_challenge(self, refused: str, status: int, www_authenticate: list[str], /) -> None:
        """Do nothing: there is no other token."""

    def handle_challenge_blocking(self, refused: str, status: int, www_authenticate: list[str], /) -> None:
        """Do nothing: there is no other token."""


async def _discover(origin: str, path: str) -> None:
    server = Server("hostile", f"{origin}/{path}")
    challenge = Challenge((f"{origin}/{path}",))
    with suppress(McpAuthError):
        await run_exchange(discover_protected_resource(server.url, challenge), server, environ={})


def _measure_login_beside_lookups(scale: Scale) -> Figure:
    count = scale.choose_size(_CONCURRENT_LOGINS, 1)
    with serve_demo() as demo, logged_in_home() as home:
        measures: dict[str, Measure] = {
            "undisturbed": lambda: asyncio.run(_measure_login_start(home, demo.mcp_url, 0)),
            "disturbed": lambda: asyncio.run(_measure_login_start(home, demo.mcp_url, count)),
        }
        medians = measure_interleaved(measures, scale)
    what = f"the start of a login beside {count} whose look-ups never end"
    return Figure(what, "ms", medians["disturbed"], "an undisturbed one", medians["undisturbed"], MAX_RATIO)


async def _measure_login_start(home: Path, url: str, count: int) -> float:
    """Return how many ms a login takes to start while `count` other logins wait for a silent resolver."""
    service = AuthService(home)
    with silent_resolver():
        hostile_logins = [
            asyncio.create_task(
                service.start_login(
                    Server(f"silent-{number}", f"https://{SILENT_HOST}/mcp"),
                    Origin("terminal", user_id=str(number)),
                )
            )
            for number in range(count)
        ]
        await asyncio.sleep(_HEAD_START_SECONDS)
        started_at = time.perf_counter()
        login = await service.start_login(Server("honest", url), Origin("terminal"))
        duration_ms = (time.perf_counter() - started_at) * 1000
        for other in hostile_logins:
            other.cancel()
    await asyncio.gather(*hostile_logins, return_exceptions=True)
    await service.cancel(login.id)
    return duration_ms


@contextmanager
def silent_resolver() -> Generator[None]:
    """Make the system's resolver silent about one name until the block ends, or for five seconds.

    The silent resolver blocks its thread, as a real one does. Every look-up in Python uses the patched
    function.
    """
    is_over, resolve = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:  # noqa: ANN401
        if host in {SILENT_HOST, SILENT_HOST.encode()}:
            is_over.wait(_SILENT_SECONDS)
            raise socket.gaierror(socket.EAI_AGAIN, "the benchmark's resolver does not respond")
        return resolve(host, *rest, **options)

    socket.getaddrinfo = getaddrinfo
    try:
        yield
    finally:
        is_over.set()
        socket.getaddrinfo = resolve
