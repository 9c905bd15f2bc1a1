"""What one hostile server costs the callers of others: a call, and the start of a login, beside it.

The hostile exchanges follow each other without a pause while the other one is timed, all in one event loop.
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

from benchmarks.driving import post
from benchmarks.given import home, tokens
from benchmarks.hostile_server import serving as serving_hostile
from benchmarks.measuring import Extent, Figure, Measure, interleaved
from benchmarks.server import serving
from hermes_mcp_auth_remote.auth.httpx2 import McpAuth
from hermes_mcp_auth_remote.demo.servers import running
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.http.client import run
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.metadata import discover_protected_resource
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Origin, Server

GOAL = 1.2
# A name whose look-up takes longer than any login may; for ever, a shared executor would never get over it.
SILENT = "silent.example"
_SILENT_SECONDS = 5.0
_LOGINS_AT_ONCE = 12
# A hostile exchange must be under way before another one is timed beside it.
_HEAD_START_SECONDS = 0.1

Hostile = Callable[[Any], Awaitable[object]]
"""Runs one exchange with the hostile server; takes an httpx2 client, which costs much to make."""


def figures(extent: Extent) -> list[Figure]:
    """Measure a call beside each kind of hostile response, and a login beside look-ups that never end."""
    found: list[Figure] = []
    with serving() as origin, serving_hostile() as hostile, home() as place:
        # As long as a usual tool's call.
        url = f"{origin}/delay/{extent.of(200, 20)}"
        session = AuthService(place).session(Server("bench", url))
        session.adopt(tokens())
        kinds: Mapping[str, Hostile] = {
            "a 401 without end": lambda client: _refused(client, f"{hostile}/endless"),
            "103 responses without end": lambda _: _discovered(hostile, "hints"),
            "metadata in chunks of one byte": lambda _: _discovered(hostile, "chunks"),
            "metadata of hosts that grow": lambda _: _discovered(hostile, "wide"),
        }
        measures: dict[str, Measure] = {"undisturbed": _call(session, url, None)}
        measures |= {name: _call(session, url, exchange) for name, exchange in kinds.items()}
        medians = interleaved(measures, extent, 2)
        base = medians.pop("undisturbed")
        found += [
            Figure(f"a call beside {name}", "ms", medians[name], "an undisturbed one", base, GOAL)
            for name in kinds
        ]
    return [*found, _beside_look_ups(extent)]


def _call(session: Any, url: str, hostile: Hostile | None) -> Measure:  # noqa: ANN401
    async def measure() -> float:
        async with (
            httpx2.AsyncClient(auth=McpAuth(session), timeout=None, trust_env=False) as client,
            httpx2.AsyncClient(timeout=None, trust_env=False) as other,
        ):
            await post(client, url)
            disturbing = None if hostile is None else partial(hostile, other)
            return await _timed(lambda: post(client, url), disturbing)

    return lambda: asyncio.run(measure())


async def _timed(
    work: Callable[[], Awaitable[object]], hostile: Callable[[], Awaitable[object]] | None
) -> float:
    """Return how long work takes, in milliseconds, while hostile exchanges follow each other."""

    async def go_on(exchange: Callable[[], Awaitable[object]]) -> None:
        while True:
            await exchange()

    disturbing = None if hostile is None else asyncio.create_task(go_on(hostile))
    await asyncio.sleep(_HEAD_START_SECONDS)
    begun = time.perf_counter()
    await work()
    taken = (time.perf_counter() - begun) * 1000
    if disturbing is not None:
        # A hostile exchange that failed in another way than it should is an error here.
        if disturbing.done():
            disturbing.result()
        disturbing.cancel()
        with suppress(asyncio.CancelledError):
            await disturbing
    return taken


async def _refused(client: Any, url: str) -> None:  # noqa: ANN401
    async with client.stream("POST", url, auth=McpAuth(_Refused(url))) as response:
        await response.aread()
    if response.status_code != 401:
        raise RuntimeError(f"The hostile server answered {response.status_code}.")


class _Refused:
    """A session whose token no server takes, and that has no other one."""

    prover = None

    def __init__(self, url: str) -> None:
        self.server = SimpleNamespace(url=url)

    def header_now(self) -> str:
        return "Bearer a-token"

    header_blocking = header_now

    async def header(self) -> str:
        return "Bearer a-token"

    async def challenged(self, refused: str, status: int, www_authenticate: list[str], /) -> None:
        """No other token."""

    def challenged_blocking(self, refused: str, status: int, www_authenticate: list[str], /) -> None:
        """No other token."""


async def _discovered(origin: str, kind: str) -> None:
    server = Server("hostile", f"{origin}/{kind}")
    challenge = Challenge((f"{origin}/{kind}",))
    with suppress(McpAuthError):
        await run(discover_protected_resource(server.url, challenge), server, environ={})


def _beside_look_ups(extent: Extent) -> Figure:
    count = extent.of(_LOGINS_AT_ONCE, 1)
    with running() as demo, home() as place:
        measures: dict[str, Measure] = {
            "undisturbed": lambda: asyncio.run(_login(place, demo.mcp_url, 0)),
            "disturbed": lambda: asyncio.run(_login(place, demo.mcp_url, count)),
        }
        medians = interleaved(measures, extent)
    what = f"the start of a login beside {count} whose look-ups never end"
    return Figure(what, "ms", medians["disturbed"], "an undisturbed one", medians["undisturbed"], GOAL)


async def _login(place: Path, url: str, count: int) -> float:
    """Return how long the start of a login takes, in milliseconds, beside so many with a silent resolver."""
    service = AuthService(place)
    with silent_resolver():
        others = [
            asyncio.create_task(
                service.begin(
                    Server(f"silent-{number}", f"https://{SILENT}/mcp"), Origin("terminal", user=str(number))
                )
            )
            for number in range(count)
        ]
        await asyncio.sleep(_HEAD_START_SECONDS)
        begun = time.perf_counter()
        login = await service.begin(Server("honest", url), Origin("terminal"))
        taken = (time.perf_counter() - begun) * 1000
        for other in others:
            other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await service.cancel(login.id)
    return taken


@contextmanager
def silent_resolver() -> Generator[None]:
    """Let the system's resolver be silent about one name, until the block ends or five seconds are over.

    It blocks its thread, as a real one does: patched here, where every way to look a name up comes by.
    """
    is_over, resolve = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:  # noqa: ANN401
        if host in {SILENT, SILENT.encode()}:
            is_over.wait(_SILENT_SECONDS)
            raise socket.gaierror(socket.EAI_AGAIN, "nothing was ever heard")
        return resolve(host, *rest, **options)

    socket.getaddrinfo = getaddrinfo
    try:
        yield
    finally:
        is_over.set()
        socket.getaddrinfo = resolve
