"""Device logins that wait: are a thousand polled on time, what does a poll cost, what does each one hold?"""

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

from benchmarks.given import REDIRECT_URI
from benchmarks.measuring import ROOT, Extent, Figure
from benchmarks.polling_server import serving
from hermes_mcp_auth_remote.http.client import run
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.authorization import authorization_request
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.device_polling import begin_polling, poll_request
from hermes_mcp_auth_remote.oauth.metadata import authorization_server
from hermes_mcp_auth_remote.service.dependencies import World
from hermes_mcp_auth_remote.service.device_logins import Devices
from hermes_mcp_auth_remote.service.logins import Logins
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.store.files.login_files import LoginFiles
from hermes_mcp_auth_remote.values import Key, Origin, Secret, Server, secret_of

# What the floor has open; ours has as many in flight at most for one place.
CONNECTIONS = 32
# To write into a login's record who polls it, to the disk.
TAKING_SECONDS = 0.008
Report = dict[str, Any]


def figures(extent: Extent) -> list[Figure]:
    """Let logins wait in a fresh process at a server in another one; once, for it takes its time."""
    few, many = extent.of(1000, 100), extent.of(10_000, 40)
    interval, seconds = extent.of(5, 1), extent.of(16, 3)
    found: list[Figure] = []
    ours, floor = (_waited(kind, few, interval, seconds) for kind in ("ours", "floor"))
    for percent in (50, 99):
        what = f"time between two polls of a login, {few} waiting, {percent} % within"
        goal = 1.05 if not extent.small else None
        found.append(Figure(what, "s", _within(ours, percent), "the interval", interval, goal))
    found.append(Figure("CPU of a poll", "ms", _cpu(ours), "timers and raw connections", _cpu(floor)))
    found.append(Figure("memory of each waiting login", "KiB", ours["kib"], "allowed", 1.0, 1))
    crowd = _waited("ours", many, interval, extent.of(40, 3))
    for percent in (50, 99):
        what = f"the same, {many} waiting, {percent} % within"
        found.append(Figure(what, "s", _within(crowd, percent), "the interval", interval))
    found.append(Figure(f"logins never polled, {many} waiting", "", many - crowd["codes"] + 1, "one", 1.0, 1))
    return found


def _waited(kind: str, count: int, interval: int, seconds: int) -> Report:
    with serving() as origin:
        words = [origin, *map(str, (count, interval, seconds))]
        command = [sys.executable, "-m", "benchmarks.polling", kind, *words]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        report = cast("Report", json.loads(done.stdout))
    if not report["gaps"] or min(report["gaps"]) < interval - 0.05:
        raise RuntimeError(f"{kind}: a poll came too early, or none came.")
    return report


def _within(report: Report, percent: int) -> float:
    gaps = report["gaps"]
    return float(gaps[min(len(gaps) * percent // 100, len(gaps) - 1)])


def _cpu(report: Report) -> float:
    return 1000.0 * float(report["cpu"]) / len(report["gaps"])


def _asked(origin: str, path: str) -> bytes:
    with urlopen(origin + path) as answer:
        return cast("bytes", answer.read())


def login_at(origin: str, number: int, interval: float, next_at: float) -> Login:
    """Return a login that is polled at a server, first at `next_at` (epoch seconds)."""
    names = ("authorization_endpoint", "token_endpoint", "device_authorization_endpoint")
    issuer = authorization_server({"issuer": origin, **{name: f"{origin}/{name}" for name in names}})
    client = Client(f"client-{number}", None, "none", (REDIRECT_URI,), registered=True)
    secret = f"{number:043d}"
    code = DeviceAuthorization(Secret(secret), "WDJB-MJHT", f"{origin}/device", None, 1800, interval)
    now = time.time()
    return Login(
        id=f"{number:022d}",
        key=Key("bench", f"telegram:{number}"),
        server_url=f"{origin}/mcp",
        request=authorization_request(
            issuer,
            client,
            redirect_uri=REDIRECT_URI,
            state=Secret(secret),
            code_verifier=Secret(secret),
            resource=f"{origin}/mcp",
        ),
        authorization_server=issuer,
        origin=Origin("telegram", str(number), user=str(number)),
        begun_at=now,
        expires_at=now + 1800,
        device=replace(begin_polling(issuer, client, code, now, resource=f"{origin}/mcp"), next_at=next_at),
    )


def ours(origin: str, count: int, interval: float, seconds: float) -> Report:
    """Watch so many logins; measured from when each has been polled."""
    with tempfile.TemporaryDirectory(prefix="mcp-auth-bench-") as folder:
        home = Path(folder)
        store, begun = FileStore(home).logins, time.time()
        # People begin one after another, and not while all the others are being taken over.
        first = begun + 2 + count * TAKING_SECONDS
        for number in range(count):
            store.add(login_at(origin, number, interval, first + interval * number / count))
        place = Server("bench", f"{origin}/mcp")
        world = World(FileStore(home), run, time.time, secrets.token_urlsafe)
        devices = Devices(world, Logins(world, lambda _: place), lambda _: place, None)

        def watch(numbers: range) -> None:
            for number in numbers:
                devices.watch(store.get(f"{number:022d}"), lambda _: None)

        # The poller itself is no login's own.
        watch(range(few := count // 10))
        _wait_until_taken(store, few)
        tracemalloc.start()
        watch(range(few, count))
        _wait_until_taken(store, count)
        gc.collect()
        # But for the interpreter's table of interned strings, which doubles now and then.
        snapshot = tracemalloc.take_snapshot().filter_traces(
            [tracemalloc.Filter(inclusive=False, filename_pattern=pathlib.__file__)]
        )
        kib = sum(each.size for each in snapshot.statistics("filename")) / (count - few) / 1024
        tracemalloc.stop()
        _wait_until_polled(origin, count)
        return {**_measured(origin, interval, seconds), "kib": kib}


def _wait_until_taken(store: LoginFiles, count: int) -> None:
    while store.get(f"{count - 1:022d}").polled_by is None:
        time.sleep(0.1)


def _wait_until_polled(origin: str, count: int) -> None:
    patience = time.monotonic() + 300
    while json.loads(_asked(origin, "/report"))["codes"] < count and time.monotonic() < patience:
        time.sleep(1)


def _measured(origin: str, interval: float, seconds: float) -> Report:
    # What was being measured before comes to rest.
    time.sleep(interval)
    _asked(origin, "/begin")
    cpu = time.process_time()
    time.sleep(seconds)
    return {"cpu": time.process_time() - cpu, **json.loads(_asked(origin, "/report"))}


def floor(origin: str, count: int, interval: float, seconds: float) -> Report:
    """Send the same polls by a heap of timers over raw connections that reads no answer's content."""
    parts = urlsplit(origin)
    requests: list[bytes] = []
    for number in range(count):
        device = login_at(origin, number, interval, 0).device
        assert device is not None
        request = poll_request(device)
        body = request.body or b""
        lines = "".join(f"{name}: {secret_of(value).reveal()}\r\n" for name, value in request.headers)
        head = f"POST /token HTTP/1.1\r\nhost: {parts.netloc}\r\n{lines}content-length: {len(body)}\r\n\r\n"
        requests.append(head.encode() + body)

    async def main() -> Report:
        connections = asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()
        for _ in range(CONNECTIONS):
            connections.put_nowait(await asyncio.open_connection(parts.hostname, parts.port))
        now = time.monotonic()
        heap = [(now + interval * number / count, number) for number in range(count)]
        flying: set[asyncio.Task[None]] = set()

        async def poll(number: int) -> None:
            reader, writer = await connections.get()
            writer.write(requests[number])
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.rpartition(b": ")[2]))
            connections.put_nowait((reader, writer))
            heapq.heappush(heap, (time.monotonic() + interval, number))

        async def beat() -> None:
            while True:
                while heap and heap[0][0] <= time.monotonic():
                    task = asyncio.create_task(poll(heapq.heappop(heap)[1]))
                    flying.add(task)
                    task.add_done_callback(flying.discard)
                await asyncio.sleep(max(heap[0][0] - time.monotonic(), 0.001) if heap else 0.001)

        beating = asyncio.create_task(beat())
        report = await asyncio.to_thread(_measured, origin, interval, seconds)
        beating.cancel()
        await asyncio.gather(beating, *flying, return_exceptions=True)
        return report

    return asyncio.run(main())


def main(argv: list[str]) -> None:
    """Wait as one of the two kinds, and print a report."""
    kind, origin, count, interval, seconds = argv
    wait = {"ours": ours, "floor": floor}[kind]
    print(json.dumps(wait(origin, int(count), float(interval), float(seconds))), flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(sys.argv[1:])
