"""DNS look-ups have their own threads and are shared and limited per server; cancelled callers end."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.errors import TimedOut, Unreachable
from hermes_mcp_auth_remote.http import dns
from hermes_mcp_auth_remote.http.dns import (
    MAX_THREADS_PER_HOST,
    MAX_THREADS_PER_SERVER,
    STALE_LOOKUP_SECONDS,
    ThreadedResolver,
)
from hermes_mcp_auth_remote.http.ssrf_guard import resolve_host
from hermes_mcp_auth_remote.threads import run_file_work
from tests.http.fake_dns import FakeDns, patch_dns
from tests.http.peers import encode_response, fetch, make_server, respond_with, run_http_server
from tests.http.test_proxies import server_tls_context
from tests.parts.certificates import issue_certificates
from tests.requirements import covers
from tests.service.helpers import wait_until

HOSTILE_URL = "https://hostile.example/mcp"
HONEST_URL = "https://honest.example/mcp"


@pytest.fixture
def fake_dns() -> Iterator[FakeDns]:
    with patch_dns(honest_example="1.1.1.1", other_example="1.1.1.2") as fake_dns:
        yield fake_dns


async def start_and_cancel_lookups(
    resolver: ThreadedResolver, *hosts: str, server: str = HOSTILE_URL
) -> None:
    """Start look-ups and cancel them at once."""
    tasks = [asyncio.create_task(resolver.resolve(host, 443, server)) for host in hosts]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def resolve_address(resolver: ThreadedResolver, host: str, server: str = HONEST_URL) -> str:
    async with asyncio.timeout(20):
        return str((await resolver.resolve(host, 443, server))[0])


@covers("look-up-shared")
def test_concurrent_callers_for_one_host_share_a_lookup(fake_dns: FakeDns) -> None:
    resolver = ThreadedResolver()

    async def main() -> list[str]:
        tasks = [asyncio.create_task(resolve_address(resolver, "slow.example")) for _ in range(8)]
        await asyncio.to_thread(fake_dns.wait_for_queries, 1)
        tasks += [asyncio.create_task(resolve_address(resolver, "slow.example")) for _ in range(8)]
        await asyncio.sleep(0)
        fake_dns.release("slow.example", "1.1.1.3")
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == ["1.1.1.3"] * 16
    assert fake_dns.queries == ["slow.example"]


@covers("look-up-shared")
def test_event_loops_share_a_lookup_that_survives_a_cancelled_caller(
    fake_dns: FakeDns,
) -> None:
    resolver = ThreadedResolver()
    addresses: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: addresses.append(asyncio.run(resolve_address(resolver, "slow.example")))
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    fake_dns.wait_for_queries(1)
    # Both callers must wait before the look-up ends.
    wait_until(lambda: [len(lookup.waiters) for lookup in resolver._running_lookups[HONEST_URL]] == [2])
    asyncio.run(start_and_cancel_lookups(resolver, "slow.example", server=HONEST_URL))
    fake_dns.release("slow.example", "1.1.1.3")
    for thread in threads:
        thread.join(20)
    assert addresses == ["1.1.1.3", "1.1.1.3"]
    assert fake_dns.queries == ["slow.example"]


def test_an_error_reaches_every_caller_and_the_next_call_retries(fake_dns: FakeDns) -> None:
    resolver = ThreadedResolver()

    async def main() -> None:
        lookups = [asyncio.create_task(resolver.resolve("dead.example", 443, HOSTILE_URL)) for _ in range(3)]
        await asyncio.sleep(0)
        fake_dns.release("dead.example")
        outcomes = await asyncio.gather(*lookups, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [socket.gaierror] * 3
        with pytest.raises(socket.gaierror):
            await resolver.resolve("dead.example", 443, HOSTILE_URL)

    asyncio.run(main())
    assert fake_dns.queries == ["dead.example"] * 2


@covers("look-up-bounds")
def test_a_flood_of_hanging_lookups_uses_threads_of_its_own_server_only(fake_dns: FakeDns) -> None:
    resolver = ThreadedResolver()

    async def main() -> str:
        await start_and_cancel_lookups(resolver, *(f"{number}.dead.example" for number in range(200)))
        await asyncio.to_thread(fake_dns.wait_for_queries, MAX_THREADS_PER_SERVER)
        return await resolve_address(resolver, "honest.example")

    assert asyncio.run(main()) == "1.1.1.1"
    assert Counter(name.endswith(".dead.example") for name in fake_dns.queries) == {
        True: MAX_THREADS_PER_SERVER,
        False: 1,
    }


@covers("look-up-bounds")
def test_many_hostile_servers_leave_a_thread_for_each_other_server(
    fake_dns: FakeDns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns, "MAX_SHARED_THREADS", 2 * MAX_THREADS_PER_SERVER)
    resolver = ThreadedResolver()

    async def main() -> str:
        for server in range(20):
            hosts = (f"{number}.{server}.dead.example" for number in range(MAX_THREADS_PER_SERVER))
            await start_and_cancel_lookups(resolver, *hosts, server=f"https://{server}.example/mcp")
        return await resolve_address(resolver, "honest.example")

    assert asyncio.run(main()) == "1.1.1.1"
    per_server = Counter(name.split(".")[1] for name in fake_dns.queries if name.endswith(".dead.example"))
    # Each of the first two servers uses all of its threads, and each of the other servers uses one.
    assert sorted(per_server.values(), reverse=True) == [MAX_THREADS_PER_SERVER] * 2 + [1] * 18


@covers("look-up-bounds")
def test_a_thread_is_free_when_its_lookup_ends_not_when_its_caller_leaves(fake_dns: FakeDns) -> None:
    resolver = ThreadedResolver()
    dead = [f"{number}.dead.example" for number in range(MAX_THREADS_PER_SERVER)]

    async def main() -> str:
        await start_and_cancel_lookups(resolver, *dead)
        waiting = asyncio.create_task(resolve_address(resolver, "honest.example", HOSTILE_URL))
        await asyncio.to_thread(fake_dns.wait_for_queries, MAX_THREADS_PER_SERVER)
        # A look-up of another server ends now. That gives no thread to the look-up that waits.
        await resolve_address(resolver, "other.example")
        assert not waiting.done()
        assert "honest.example" not in fake_dns.queries
        fake_dns.release(dead[0])
        return await waiting

    assert asyncio.run(main()) == "1.1.1.1"
    assert sorted(fake_dns.queries) == sorted([*dead, "honest.example", "other.example"])


@covers("look-up-bounds")
def test_a_queued_lookup_without_callers_is_never_started(fake_dns: FakeDns) -> None:
    resolver = ThreadedResolver()
    dead = [f"{number}.dead.example" for number in range(MAX_THREADS_PER_SERVER)]

    async def main() -> str:
        await start_and_cancel_lookups(resolver, *dead, "left.example")
        for host in dead:
            fake_dns.release(host)
        return await resolve_address(resolver, "honest.example", HOSTILE_URL)

    assert asyncio.run(main()) == "1.1.1.1"
    assert "left.example" not in fake_dns.queries


@covers("look-up-bounds")
def test_queued_lookups_of_servers_run_in_turn(fake_dns: FakeDns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "MAX_THREADS", 1)
    resolver = ThreadedResolver()

    async def main() -> None:
        first = asyncio.create_task(resolve_address(resolver, "first.example", "first"))
        await asyncio.sleep(0)
        flood = [
            asyncio.create_task(resolve_address(resolver, f"{n}.flood.example", "flood")) for n in range(3)
        ]
        await asyncio.sleep(0)
        last = asyncio.create_task(resolve_address(resolver, "honest.example"))
        await asyncio.sleep(0)
        for host in ("first.example", *(f"{number}.flood.example" for number in range(3))):
            fake_dns.release(host, "1.1.1.4")
        await asyncio.gather(first, *flood, last)

    asyncio.run(main())
    assert fake_dns.queries.index("honest.example") == 2


@covers("look-up-shared")
def test_a_hanging_lookup_does_not_block_later_callers_for_its_host(fake_dns: FakeDns) -> None:
    now = 0.0
    resolver = ThreadedResolver(lambda: now)
    hung = "mcp.example"

    async def main() -> str:
        nonlocal now
        await start_and_cancel_lookups(resolver, hung)
        await asyncio.to_thread(fake_dns.wait_for_queries, 1)
        now = STALE_LOOKUP_SECONDS - 1
        await start_and_cancel_lookups(resolver, hung)
        assert len(fake_dns.queries) == 1
        now = STALE_LOOKUP_SECONDS
        # The network works again; the first look-up still hangs.
        fake_dns.addresses[hung] = "1.1.1.5"
        return await resolve_address(resolver, hung, HOSTILE_URL)

    assert asyncio.run(main()) == "1.1.1.5"
    assert fake_dns.queries == [hung] * 2


@covers("look-up-bounds")
def test_one_hanging_host_uses_a_bounded_number_of_threads(fake_dns: FakeDns) -> None:
    now = 0.0
    resolver = ThreadedResolver(lambda: now)

    async def main() -> str:
        nonlocal now
        for _ in range(10):
            await start_and_cancel_lookups(resolver, "dead.example")
            now += STALE_LOOKUP_SECONDS
        return await resolve_address(resolver, "honest.example", HOSTILE_URL)

    assert asyncio.run(main()) == "1.1.1.1"
    assert fake_dns.queries.count("dead.example") == MAX_THREADS_PER_HOST


def test_a_thread_that_cannot_start_is_an_error_and_costs_no_capacity(
    fake_dns: FakeDns, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = ThreadedResolver()

    def fail_to_start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> str:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail_to_start)
            for _ in range(MAX_THREADS_PER_SERVER + 1):
                with pytest.raises(OSError, match="no thread"):
                    await resolve_address(resolver, "honest.example")
        return await resolve_address(resolver, "honest.example")

    assert asyncio.run(main()) == "1.1.1.1"


def test_a_lookup_that_ends_after_its_event_loop_logs_nothing(
    fake_dns: FakeDns, caplog: pytest.LogCaptureFixture
) -> None:
    resolver = ThreadedResolver()
    caplog.set_level(logging.DEBUG)
    asyncio.run(start_and_cancel_lookups(resolver, "dead.example"))
    fake_dns.wait_for_queries(1)

    async def abandon_lookup() -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(resolver.resolve("dead.example", 443, HOSTILE_URL))
        await asyncio.sleep(0)
        # An event loop that stops cancels its tasks like this.
        task.cancel()

    asyncio.run(abandon_lookup())
    fake_dns.release("dead.example")
    asyncio.run(resolve_address(resolver, "honest.example", HOSTILE_URL))
    assert [record.message for record in caplog.records if "asyncio" not in record.name] == []


@covers("look-up-abandoned")
def test_a_hanging_resolver_delays_neither_the_limit_nor_the_event_loop(fake_dns: FakeDns) -> None:
    async def main() -> None:
        with pytest.raises(TimedOut, match=r"dead\.example did not respond"):
            await fetch(make_server("https://dead.example/mcp"), response_seconds=0.05)

    # The resolver hangs until the test ends.
    asyncio.run(main())
    assert fake_dns.queries == ["dead.example"]


@covers("look-up-abandoned")
def test_hanging_lookups_delay_neither_other_servers_nor_file_work(tmp_path: Path) -> None:
    issued = issue_certificates(tmp_path, "mcp.example")
    (tmp_path / "file").write_text("read")

    async def main() -> tuple[list[int], str, int]:
        dead = [
            asyncio.create_task(fetch(make_server(f"https://dead.example/{number}"))) for number in range(12)
        ]
        dead += [asyncio.create_task(fetch(make_server("https://dead.example/mcp"))) for _ in range(40)]
        await asyncio.to_thread(mcp_dns.wait_for_queries, 13)
        async with run_http_server(respond_with(encode_response()), tls=server_tls_context(issued)) as peer:
            url = peer.url("/mcp", "mcp.example", "https")
            honest = await fetch(make_server(url, ca_file=str(issued.ca_file)))
        text = await run_file_work((tmp_path / "file").read_text)
        thread_count = await asyncio.to_thread(threading.active_count)
        for task in dead:
            task.cancel()
        outcomes = await asyncio.gather(*dead, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
        return [response.status for response in honest], text, thread_count

    with patch_dns(mcp_example="127.0.0.1") as mcp_dns:
        statuses, text, threads = asyncio.run(main())
    assert (statuses, text) == ([200], "read")
    assert Counter(mcp_dns.queries) == {"dead.example": 13, "mcp.example": 1}
    assert threads < 60


def test_an_unknown_host_is_unreachable_and_a_literal_is_not_resolved(
    fake_dns: FakeDns,
) -> None:
    fake_dns.missing_hosts.add("dead.example")
    with pytest.raises(Unreachable, match=r"The name dead\.example could not be resolved"):
        asyncio.run(fetch(make_server("https://dead.example/mcp")))
    with pytest.raises(socket.gaierror):
        asyncio.run(resolve_host("dead.example", 443))
    assert set(fake_dns.queries) == {"dead.example"}
    with pytest.raises(Unreachable):
        asyncio.run(fetch(make_server("https://127.0.0.1:1/mcp")))
    assert set(fake_dns.queries) == {"dead.example"}


FORK_SCRIPT = """
import asyncio, os, socket, threading, time
from hermes_mcp_auth_remote.http.dns import MAX_THREADS_PER_SERVER
from hermes_mcp_auth_remote.http.ssrf_guard import resolver_for

asked = threading.Semaphore(0)
def getaddrinfo(host, port, *a, **k):
    asked.release()
    if host != "honest.example":
        time.sleep(3600)
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", port))]
socket.getaddrinfo = getaddrinfo

async def flood():
    tasks = [asyncio.ensure_future(resolver_for("s")(f"{n}.dead.example", 443)) for n in range(9)]
    for _ in range(MAX_THREADS_PER_SERVER):
        while not asked.acquire(blocking=False):
            await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
asyncio.run(flood())
child = os.fork()
if not child:
    print(asyncio.run(resolver_for("s")("honest.example", 443)), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_forked_child_has_all_lookup_threads(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK_SCRIPT]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout.strip(), result.stderr) == ("[IPv4Address('1.1.1.1')]", "")
