"""File work has a few threads of its own. If a call waits for a server, no exit waits for its thread."""

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
CONTEXT_VALUE: contextvars.ContextVar[str] = contextvars.ContextVar("PLACE")


@covers("file-work")
def test_no_package_code_uses_an_event_loops_default_executor() -> None:
    """`run_in_executor(None, ...)` and the loop's getaddrinfo use that executor too."""
    uses: list[str] = []
    for package in ("hermes_mcp_auth_remote", "gateway_hooks"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                name = node.attr if isinstance(node, ast.Attribute) else ""
                if name in {"to_thread", "getaddrinfo", "getnameinfo", "run_in_executor"}:
                    uses.append(f"{path.relative_to(ROOT)} {name}")
    assert uses == ["hermes_mcp_auth_remote/http/dns.py getaddrinfo"]


@covers("file-work")
def test_all_event_loops_share_a_few_threads_for_file_work() -> None:
    thread_names: set[str] = set()

    async def main() -> list[int]:
        def work(number: int) -> int:
            thread_names.add(threading.current_thread().name)
            return number

        return await asyncio.gather(*(run_file_work(work, number) for number in range(50)))

    for _ in range(3):
        assert asyncio.run(main()) == list(range(50))
    assert len(thread_names) <= MAX_FILE_THREADS
    assert all(name.startswith("mcp-auth-files") for name in thread_names)


@pytest.mark.parametrize("run_work", [run_file_work, run_in_own_thread])
def test_results_errors_and_the_context_reach_the_caller(run_work: object) -> None:
    def work(number: int, *, by: int) -> tuple[int, str]:
        return number // by, CONTEXT_VALUE.get()

    async def main() -> None:
        CONTEXT_VALUE.set("here")
        assert callable(run_work)
        assert await run_work(work, 8, by=2) == (4, "here")
        with pytest.raises(ZeroDivisionError):
            await run_work(work, 8, by=0)

    asyncio.run(main())


def test_the_daemon_executor_is_bounded_and_frees_its_threads() -> None:
    release = threading.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(DaemonExecutor())
        holding = [asyncio.create_task(asyncio.to_thread(release.wait)) for _ in range(MAX_LIBRARY_THREADS)]
        await asyncio.sleep(0)
        with pytest.raises(OSError, match="too many calls"):
            await asyncio.to_thread(int)
        release.set()
        await asyncio.gather(*holding)
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)

    asyncio.run(main())


EXIT_SCRIPT = """
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

FORK_SCRIPT = """
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


def run_script(program: str) -> tuple[str, str, int]:
    command = [sys.executable, "-W", "ignore", "-c", program]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return process.stdout, process.stderr, process.returncode


@covers("file-work")
def test_an_exit_abandons_server_calls_and_completes_file_work() -> None:
    assert run_script(EXIT_SCRIPT) == ("file\nlast file\n", "", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="forks")
def test_a_forked_child_has_its_own_file_threads() -> None:
    assert run_script(FORK_SCRIPT) == ("child\n", "", 0)
