"""File work has its own few threads. A call that waits for a server has a thread that no exit waits for."""

from __future__ import annotations

import ast
import asyncio
import contextvars
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.threads import (
    MAX_FILE_THREADS,
    MAX_LIBRARY_THREADS,
    DaemonExecutor,
    run_file_work,
    run_in_own_thread,
)
from tests.requirements import covers

ROOT = Path(__file__).resolve().parents[1]
PLACE: contextvars.ContextVar[str] = contextvars.ContextVar("PLACE")


@covers("file-work")
def test_nothing_of_ours_runs_in_an_event_loop_s_default_executor() -> None:
    """`run_in_executor(None, ...)` and the loop's getaddrinfo use that executor too."""
    found: list[str] = []
    for package in ("hermes_mcp_auth_remote", "gateway_hooks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                name = node.attr if isinstance(node, ast.Attribute) else ""
                if name in {"to_thread", "getaddrinfo", "getnameinfo", "run_in_executor"}:
                    found.append(f"{path.relative_to(ROOT)} {name}")
    assert found == [
        "hermes_mcp_auth_remote/http/dns.py getaddrinfo",
        "hermes_mcp_auth_remote/threads.py run_in_executor",
    ]


@covers("file-work")
def test_file_work_has_a_few_threads_that_all_event_loops_share() -> None:
    seen: set[str] = set()

    async def main() -> list[int]:
        def work(number: int) -> int:
            seen.add(threading.current_thread().name)
            return number

        return await asyncio.gather(*(run_file_work(work, number) for number in range(50)))

    for _ in range(3):
        assert asyncio.run(main()) == list(range(50))
    assert len(seen) <= MAX_FILE_THREADS
    assert all(name.startswith("mcp-auth-files") for name in seen)


@pytest.mark.parametrize("run", [run_file_work, run_in_own_thread])
def test_a_result_an_error_and_the_context_come_through(run: object) -> None:
    def work(number: int, *, by: int) -> tuple[int, str]:
        return number // by, PLACE.get()

    async def main() -> None:
        PLACE.set("here")
        assert callable(run)
        assert await run(work, 8, by=2) == (4, "here")
        with pytest.raises(ZeroDivisionError):
            await run(work, 8, by=0)

    asyncio.run(main())


def test_a_default_executor_of_daemons_is_bounded_and_its_places_come_back() -> None:
    held = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(DaemonExecutor())
        holding = [asyncio.create_task(asyncio.to_thread(held.wait)) for _ in range(MAX_LIBRARY_THREADS)]
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="too many calls"):
            await asyncio.to_thread(int)
        held.set()
        await asyncio.gather(*holding)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)

    asyncio.run(main())


ENDING = """
import asyncio, atexit, time
from hermes_mcp_auth_remote.threads import run_file_work, run_in_own_thread

async def main():
    task = asyncio.ensure_future(run_in_own_thread(time.sleep, 3600))
    await asyncio.sleep(0.05)
    task.cancel()
    print(await run_file_work(lambda: "file"), flush=True)

asyncio.run(main())
# A poll may bring tokens while the interpreter exits. They must still be stored.
atexit.register(lambda: print(asyncio.run(run_file_work(lambda: "last file")), flush=True))
"""

FORKED = """
import asyncio, os, threading
from hermes_mcp_auth_remote.threads import MAX_FILE_THREADS, run_file_work

held = threading.Event()
def hold():
    asyncio.run(run_file_work(held.wait))

threads = [threading.Thread(target=hold) for _ in range(MAX_FILE_THREADS)]
for thread in threads:
    thread.start()
child = os.fork()
if not child:
    print(asyncio.run(run_file_work(lambda: "child")), flush=True)
    os._exit(0)
os.waitpid(child, 0)
held.set()
"""


def ended(program: str) -> tuple[str, str, int]:
    command = [sys.executable, "-W", "ignore", "-c", program]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return process.stdout, process.stderr, process.returncode


@covers("file-work")
def test_no_exit_waits_for_a_call_to_a_server_and_file_work_is_done_to_the_last() -> None:
    assert ended(ENDING) == ("file\nlast file\n", "", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_forked_child_has_threads_for_its_files() -> None:
    assert ended(FORKED) == ("child\n", "", 0)
