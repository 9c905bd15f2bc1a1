"""Waiting device logins: the delay of polls with many logins, the cost of a poll, the memory of a login."""

from __future__ import annotations

import asyncio
import gc
import heapq
import json
import pathlib
import secrets
import subprocess
import sys
import tempfile
import time
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit
from urllib.request import urlopen

from benchmarks.login_home import REDIRECT_URI
from benchmarks.measurement import ROOT, Figure, Scale
from benchmarks.polling_server import run_server
from hermes_mcp_auth_remote.http.client import run_exchange
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.authorization import authorization_request
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.device_polling import poll_request, start_polling
from hermes_mcp_auth_remote.oauth.metadata import authorization_server_from_document
from hermes_mcp_auth_remote.service.complete_login import LoginCompletion
from hermes_mcp_auth_remote.service.dependencies import Dependencies
from hermes_mcp_auth_remote.service.device_logins import DeviceLogins
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.login_files import LoginFiles
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Secret, Server, as_secret

# The open connections of the floor. Our poller allows the same number of concurrent polls for each server.
MAX_CONNECTIONS = 32
# How long it takes to claim a login: a write to its record on disk.
CLAIM_SECONDS = 0.008
Report = dict[str, Any]


def measure_figures(scale: Scale) -> list[Figure]:
    """Measure waiting logins in a fresh process, with the server in another process.

    Measure only once, because the measurement is slow.
    """
    few, many = scale.choose_size(1000, 100), scale.choose_size(10_000, 40)
    interval, seconds = scale.choose_size(5, 1), scale.choose_size(16, 3)
    figures: list[Figure] = []
    ours, floor = (_run_waiter(kind, few, interval, seconds) for kind in ("ours", "floor"))
    for percent in (50, 99):
        what = f"time between two polls of a login, {few} waiting, {percent} % within"
        goal = 1.05 if not scale.is_small else None
        figures.append(Figure(what, "s", _gap_percentile(ours, percent), "the interval", interval, goal))
    figures.append(
        Figure(
            "CPU of a poll",
            "ms",
            _cpu_milliseconds_per_poll(ours),
            "timers and raw connections",
            _cpu_milliseconds_per_poll(floor),
        )
    )
    figures.append(Figure("memory of each waiting login", "KiB", ours["kib"], "allowed", 1.0, 1))
    crowd = _run_waiter("ours", many, interval, scale.choose_size(40, 3))
    for percent in (50, 99):
        what = f"the same, {many} waiting, {percent} % within"
        figures.append(Figure(what, "s", _gap_percentile(crowd, percent), "the interval", interval))
    figures.append(
        Figure(f"logins never polled, {many} waiting", "", many - crowd["codes"] + 1, "one", 1.0, 1)
    )
    return figures


def _run_waiter(kind: str, count: int, interval_seconds: int, seconds: int) -> Report:
    with run_server() as origin:
        arguments = [origin, *map(str, (count, interval_seconds, seconds))]
        command = [sys.executable, "-m", "benchmarks.polling", kind, *arguments]
        process = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        report = cast("Report", json.loads(process.stdout))
    if not report["gaps"] or min(report["gaps"]) < interval_seconds - 0.05:
        raise RuntimeError(f"{kind}: a poll came too early, or none came.")
    return report


def _gap_percentile(report: Report, percent: int) -> float:
    gaps = report["gaps"]
    return float(gaps[min(len(gaps) * percent // 100, len(gaps) - 1)])


def _cpu_milliseconds_per_poll(report: Report) -> float:
    return 1000.0 * float(report["cpu"]) / len(report["gaps"])


def _get(origin: str, path: str) -> bytes:
    with urlopen(origin + path) as response:
        return cast("bytes", response.read())


def make_login(origin: str, number: int, interval_seconds: float, next_at: float) -> Login:
    """Return a device login whose first poll is due at `next_at` (epoch seconds)."""
    names = ("authorization_endpoint", "token_endpoint", "device_authorization_endpoint")
    authorization_server = authorization_server_from_document(
        {"issuer": origin, **{name: f"{origin}/{name}" for name in names}}
    )
    client = Client(f"client-{number}", None, "none", (REDIRECT_URI,), is_registered=True)
    secret = f"{number:043d}"
    code = DeviceAuthorization(Secret(secret), "WDJB-MJHT", f"{origin}/device", None, 1800, interval_seconds)
    now = time.time()
    return Login(
        id=f"{number:022d}",
        key=CredentialKey("bench", f"telegram:{number}"),
        server_url=f"{origin}/mcp",
        request=authorization_request(
            authorization_server,
            client,
            redirect_uri=REDIRECT_URI,
            state=Secret(secret),
            code_verifier=Secret(secret),
            resource=f"{origin}/mcp",
        ),
        authorization_server=authorization_server,
        origin=Origin("telegram", str(number), user_id=str(number)),
        started_at=now,
        expires_at=now + 1800,
        poll_state=replace(
            start_polling(authorization_server, client, code, now, resource=f"{origin}/mcp"), next_at=next_at
        ),
    )


def run_service(origin: str, count: int, interval_seconds: float, seconds: float) -> Report:
    """Watch `count` logins with our service. The measurement starts when each login has had a poll."""
    with tempfile.TemporaryDirectory(prefix="mcp-auth-bench-") as folder:
        home = Path(folder)
        store, started_at = FileStore(home).logins, time.time()
        # Spread the first polls, and start them only when all logins are claimed.
        first_poll_at = started_at + 2 + count * CLAIM_SECONDS
        for number in range(count):
            store.add(
                make_login(
                    origin, number, interval_seconds, first_poll_at + interval_seconds * number / count
                )
            )
        server = Server("bench", f"{origin}/mcp")
        dependencies = Dependencies(FileStore(home), run_exchange, time.time, secrets.token_urlsafe)
        devices = DeviceLogins(
            dependencies, LoginCompletion(dependencies, lambda _: server), lambda _: server, None
        )

        def watch_logins(numbers: range) -> None:
            for number in numbers:
                devices.subscribe(store.get(f"{number:022d}"), lambda _: None)

        # Start the poller first, because its own memory belongs to no login.
        watch_logins(range(few := count // 10))
        _wait_until_claimed(store, few)
        tracemalloc.start()
        watch_logins(range(few, count))
        _wait_until_claimed(store, count)
        gc.collect()
        # Leave out pathlib: it interns strings, and the interpreter's table of these doubles now and then.
        snapshot = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(inclusive=False, filename_pattern=pathlib.__file__)]
        )
        kib = sum(statistic.size for statistic in snapshot.statistics("filename")) / (count - few) / 1024
        tracemalloc.stop()
        _wait_until_polled(origin, count)
        return {**_measure_polls(origin, interval_seconds, seconds), "kib": kib}


def _wait_until_claimed(store: LoginFiles, count: int) -> None:
    while store.get(f"{count - 1:022d}").polled_by is None:
        time.sleep(0.1)


def _wait_until_polled(origin: str, count: int) -> None:
    deadline = time.monotonic() + 300
    while json.loads(_get(origin, "/report"))["codes"] < count and time.monotonic() < deadline:
        time.sleep(1)


def _measure_polls(origin: str, interval_seconds: float, seconds: float) -> Report:
    # First let the work of the set-up end.
    time.sleep(interval_seconds)
    _get(origin, "/begin")
    cpu = time.process_time()
    time.sleep(seconds)
    return {"cpu": time.process_time() - cpu, **json.loads(_get(origin, "/report"))}


def run_floor(origin: str, count: int, interval_seconds: float, seconds: float) -> Report:
    """Send the same polls with a heap of timers and raw connections. Parse no response."""
    parts = urlsplit(origin)
    requests: list[bytes] = []
    for number in range(count):
        device = make_login(origin, number, interval_seconds, 0).poll_state
        assert device is not None
        request = poll_request(device)
        body = request.body or b""
        lines = "".join(f"{name}: {as_secret(value).reveal()}\r\n" for name, value in request.headers)
        head = f"POST /token HTTP/1.1\r\nhost: {parts.netloc}\r\n{lines}content-length: {len(body)}\r\n\r\n"
        requests.append(head.encode() + body)

    async def main() -> Report:
        connections = asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()
        for _ in range(MAX_CONNECTIONS):
            connections.put_nowait(await asyncio.open_connection(parts.hostname, parts.port))
        now = time.monotonic()
        heap = [(now + interval_seconds * number / count, number) for number in range(count)]
        in_flight: set[asyncio.Task[None]] = set()

        async def poll(number: int) -> None:
            reader, writer = await connections.get()
            writer.write(requests[number])
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.rpartition(b": ")[2]))
            connections.put_nowait((reader, writer))
            heapq.heappush(heap, (time.monotonic() + interval_seconds, number))

        async def send_due_polls() -> None:
            while True:
                while heap and heap[0][0] <= time.monotonic():
                    task = asyncio.create_task(poll(heapq.heappop(heap)[1]))
                    in_flight.add(task)
                    task.add_done_callback(in_flight.discard)
                await asyncio.sleep(max(heap[0][0] - time.monotonic(), 0.001) if heap else 0.001)

        polls_task = asyncio.create_task(send_due_polls())
        report = await asyncio.to_thread(_measure_polls, origin, interval_seconds, seconds)
        polls_task.cancel()
        await asyncio.gather(polls_task, *in_flight, return_exceptions=True)
        return report

    return asyncio.run(main())


def main(argv: list[str]) -> None:
    """Run the service or the floor, and print the report as JSON."""
    kind, origin, count, interval, seconds = argv
    run_kind = {"ours": run_service, "floor": run_floor}[kind]
    print(json.dumps(run_kind(origin, int(count), float(interval), float(seconds))), flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(sys.argv[1:])
