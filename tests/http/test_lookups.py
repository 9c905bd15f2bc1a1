"""DNS look-ups have their own threads, are shared and bounded per server, and end for cancelled callers."""

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
from tests.http.names import Names, resolving
from tests.http.peers import always, configured, fetch, reply, serving
from tests.http.test_proxies import serving_tls
from tests.parts.certificates import certificates
from tests.requirements import covers

HOSTILE = "https://hostile.example/mcp"
HONEST = "https://honest.example/mcp"


@pytest.fixture
def names() -> Iterator[Names]:
    with resolving(honest_example="1.1.1.1", other_example="1.1.1.2") as names:
        yield names


async def asked_in_vain(look_ups: ThreadedResolver, *hosts: str, server: str = HOSTILE) -> None:
    """Start look-ups and cancel them at once."""
    tasks = [asyncio.create_task(look_ups.resolve(host, 443, server)) for host in hosts]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def address(look_ups: ThreadedResolver, host: str, server: str = HONEST) -> str:
    async with asyncio.timeout(20):
        return str((await look_ups.resolve(host, 443, server))[0])


@covers("look-up-shared")
def test_callers_that_ask_for_one_name_at_once_share_one_look_up(names: Names) -> None:
    look_ups = ThreadedResolver()

    async def main() -> list[str]:
        tasks = [asyncio.create_task(address(look_ups, "slow.example")) for _ in range(8)]
        await asyncio.to_thread(names.wait_asked, 1)
        tasks += [asyncio.create_task(address(look_ups, "slow.example")) for _ in range(8)]
        await asyncio.sleep(0)
        names.release("slow.example", "1.1.1.3")
        return await asyncio.gather(*tasks)

    assert asyncio.run(main()) == ["1.1.1.3"] * 16
    assert names.asked == ["slow.example"]


@covers("look-up-shared")
def test_callers_in_several_loops_share_one_look_up_and_one_that_leaves_takes_no_answer_from_others(
    names: Names,
) -> None:
    look_ups = ThreadedResolver()
    found: list[str] = []
    others = [
        threading.Thread(target=lambda: found.append(asyncio.run(address(look_ups, "slow.example"))))
        for _ in range(2)
    ]
    for other in others:
        other.start()
    names.wait_asked(1)
    asyncio.run(asked_in_vain(look_ups, "slow.example", server=HONEST))
    names.release("slow.example", "1.1.1.3")
    for other in others:
        other.join(20)
    assert found == ["1.1.1.3", "1.1.1.3"]
    assert names.asked == ["slow.example"]


def test_an_error_reaches_every_caller_and_the_next_one_asks_anew(names: Names) -> None:
    look_ups = ThreadedResolver()

    async def main() -> None:
        asked = [asyncio.create_task(look_ups.resolve("dead.example", 443, HOSTILE)) for _ in range(3)]
        await asyncio.sleep(0)
        names.release("dead.example")
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [socket.gaierror] * 3
        with pytest.raises(socket.gaierror):
            await look_ups.resolve("dead.example", 443, HOSTILE)

    asyncio.run(main())
    assert names.asked == ["dead.example"] * 2


@covers("look-up-bounds")
def test_a_flood_of_dead_names_takes_the_places_of_its_own_server_only(names: Names) -> None:
    look_ups = ThreadedResolver()

    async def main() -> str:
        await asked_in_vain(look_ups, *(f"{number}.dead.example" for number in range(200)))
        await asyncio.to_thread(names.wait_asked, MAX_THREADS_PER_SERVER)
        return await address(look_ups, "honest.example")

    assert asyncio.run(main()) == "1.1.1.1"
    assert Counter(name.endswith(".dead.example") for name in names.asked) == {
        True: MAX_THREADS_PER_SERVER,
        False: 1,
    }


@covers("look-up-bounds")
def test_many_hostile_servers_leave_a_place_for_each_server_that_has_none(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns, "MAX_SHARED_THREADS", 2 * MAX_THREADS_PER_SERVER)
    look_ups = ThreadedResolver()

    async def main() -> str:
        for server in range(20):
            hosts = (f"{number}.{server}.dead.example" for number in range(MAX_THREADS_PER_SERVER))
            await asked_in_vain(look_ups, *hosts, server=f"https://{server}.example/mcp")
        return await address(look_ups, "honest.example")

    assert asyncio.run(main()) == "1.1.1.1"
    per_server = Counter(name.split(".")[1] for name in names.asked if name.endswith(".dead.example"))
    # The first servers use all of their threads, and each of the others uses one.
    assert sorted(per_server.values(), reverse=True) == [MAX_THREADS_PER_SERVER] * 2 + [1] * 18


@covers("look-up-bounds")
def test_a_place_is_given_back_when_the_thread_ends_and_not_when_its_caller_leaves(names: Names) -> None:
    look_ups = ThreadedResolver()
    dead = [f"{number}.dead.example" for number in range(MAX_THREADS_PER_SERVER)]

    async def main() -> str:
        await asked_in_vain(look_ups, *dead)
        waiting = asyncio.create_task(address(look_ups, "honest.example", HOSTILE))
        await asyncio.to_thread(names.wait_asked, MAX_THREADS_PER_SERVER)
        # A look-up of another server ends meanwhile. That gives the waiting look-up no thread.
        await address(look_ups, "other.example")
        assert not waiting.done()
        assert "honest.example" not in names.asked
        names.release(dead[0])
        return await waiting

    assert asyncio.run(main()) == "1.1.1.1"
    assert sorted(names.asked) == sorted([*dead, "honest.example", "other.example"])


@covers("look-up-bounds")
def test_a_look_up_that_all_its_callers_left_is_never_begun(names: Names) -> None:
    look_ups = ThreadedResolver()
    dead = [f"{number}.dead.example" for number in range(MAX_THREADS_PER_SERVER)]

    async def main() -> str:
        await asked_in_vain(look_ups, *dead, "left.example")
        for host in dead:
            names.release(host)
        return await address(look_ups, "honest.example", HOSTILE)

    assert asyncio.run(main()) == "1.1.1.1"
    assert "left.example" not in names.asked


@covers("look-up-bounds")
def test_the_names_of_waiting_servers_are_asked_for_in_turn(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns, "MAX_THREADS", 1)
    look_ups = ThreadedResolver()

    async def main() -> None:
        first = asyncio.create_task(address(look_ups, "first.example", "first"))
        await asyncio.sleep(0)
        flood = [asyncio.create_task(address(look_ups, f"{n}.flood.example", "flood")) for n in range(3)]
        await asyncio.sleep(0)
        last = asyncio.create_task(address(look_ups, "honest.example"))
        await asyncio.sleep(0)
        for host in ("first.example", *(f"{number}.flood.example" for number in range(3))):
            names.release(host, "1.1.1.4")
        await asyncio.gather(first, *flood, last)

    asyncio.run(main())
    assert names.asked.index("honest.example") == 2


@covers("look-up-shared")
def test_a_look_up_that_hangs_does_not_stop_its_name_for_those_who_ask_later(names: Names) -> None:
    now = 0.0
    look_ups = ThreadedResolver(lambda: now)
    hung = "mcp.example"

    async def main() -> str:
        nonlocal now
        await asked_in_vain(look_ups, hung)
        await asyncio.to_thread(names.wait_asked, 1)
        now = STALE_LOOKUP_SECONDS - 1
        await asked_in_vain(look_ups, hung)
        assert len(names.asked) == 1
        now = STALE_LOOKUP_SECONDS
        # The network works again; the first look-up still hangs.
        names.known[hung] = "1.1.1.5"
        return await address(look_ups, hung, HOSTILE)

    assert asyncio.run(main()) == "1.1.1.5"
    assert names.asked == [hung] * 2


@covers("look-up-bounds")
def test_one_name_that_hangs_for_good_takes_a_bounded_part_of_its_server_s_places(names: Names) -> None:
    now = 0.0
    look_ups = ThreadedResolver(lambda: now)

    async def main() -> str:
        nonlocal now
        for _ in range(10):
            await asked_in_vain(look_ups, "dead.example")
            now += STALE_LOOKUP_SECONDS
        return await address(look_ups, "honest.example", HOSTILE)

    assert asyncio.run(main()) == "1.1.1.1"
    assert names.asked.count("dead.example") == MAX_THREADS_PER_HOST


def test_where_no_thread_can_be_started_the_name_is_unreachable_and_no_place_is_lost(
    names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_ups = ThreadedResolver()

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> str:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refused)
            for _ in range(MAX_THREADS_PER_SERVER + 1):
                with pytest.raises(OSError, match="no thread"):
                    await address(look_ups, "honest.example")
        return await address(look_ups, "honest.example")

    assert asyncio.run(main()) == "1.1.1.1"


def test_a_look_up_that_ends_after_its_event_loop_says_nothing(
    names: Names, caplog: pytest.LogCaptureFixture
) -> None:
    look_ups = ThreadedResolver()
    caplog.set_level(logging.DEBUG)
    asyncio.run(asked_in_vain(look_ups, "dead.example"))
    names.wait_asked(1)

    async def abandoned() -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(look_ups.resolve("dead.example", 443, HOSTILE))
        await asyncio.sleep(0)
        # An event loop that stops cancels its tasks like this.
        task.cancel()

    asyncio.run(abandoned())
    names.release("dead.example")
    asyncio.run(address(look_ups, "honest.example", HOSTILE))
    assert [record.message for record in caplog.records if "asyncio" not in record.name] == []


@covers("look-up-abandoned")
def test_a_request_ends_at_its_limit_and_its_event_loop_too_whatever_the_resolver_does(names: Names) -> None:
    async def main() -> None:
        with pytest.raises(TimedOut, match=r"dead\.example did not answer"):
            await fetch(configured("https://dead.example/mcp"), response_seconds=0.05)

    # The resolver hangs until the test ends.
    asyncio.run(main())
    assert names.asked == ["dead.example"]


@covers("look-up-abandoned")
def test_twelve_requests_at_a_dead_name_delay_neither_an_honest_server_nor_file_work(tmp_path: Path) -> None:
    issued = certificates(tmp_path, "mcp.example")
    (tmp_path / "file").write_text("read")

    async def main() -> tuple[list[int], str, int]:
        dead = [
            asyncio.create_task(fetch(configured(f"https://dead.example/{number}"))) for number in range(12)
        ]
        dead += [asyncio.create_task(fetch(configured("https://dead.example/mcp"))) for _ in range(40)]
        await asyncio.to_thread(resolver.wait_asked, 13)
        async with serving(always(reply()), tls=serving_tls(issued)) as peer:
            url = peer.url("/mcp", "mcp.example", "https")
            honest = await fetch(configured(url, ca_file=str(issued.ca_file)))
        text = await run_file_work((tmp_path / "file").read_text)
        others = await asyncio.to_thread(threading.active_count)
        for task in dead:
            task.cancel()
        outcomes = await asyncio.gather(*dead, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {asyncio.CancelledError}
        return [each.status for each in honest], text, others

    with resolving(mcp_example="127.0.0.1") as resolver:
        statuses, text, threads = asyncio.run(main())
    assert (statuses, text) == ([200], "read")
    assert Counter(resolver.asked) == {"dead.example": 13, "mcp.example": 1}
    assert threads < 60


def test_what_the_system_does_not_know_is_unreachable_and_literal_addresses_are_not_asked_for(
    names: Names,
) -> None:
    names.refused.add("dead.example")
    with pytest.raises(Unreachable, match=r"The name dead\.example could not be resolved"):
        asyncio.run(fetch(configured("https://dead.example/mcp")))
    with pytest.raises(socket.gaierror):
        asyncio.run(resolve_host("dead.example", 443))
    assert set(names.asked) == {"dead.example"}
    with pytest.raises(Unreachable):
        asyncio.run(fetch(configured("https://127.0.0.1:1/mcp")))
    assert set(names.asked) == {"dead.example"}


FORKED = """
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
def test_a_forked_child_has_all_places(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKED]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout.strip(), ended.stderr) == ("[IPv4Address('1.1.1.1')]", "")
