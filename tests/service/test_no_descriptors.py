"""If a process has no free file descriptors, it gets a typed error. It continues when some are free again."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.cli.signals import run_until_stopped
from hermes_mcp_auth_remote.errors import McpAuthError, OutOfResources
from hermes_mcp_auth_remote.service.poll_scheduler import PollScheduler
from tests.requirements import covers
from tests.service.fakes import EXPIRED_AT, SERVER, FakeServer, make_service, make_store

# The number of descriptors that the caller's own event loop needs.
LIMIT = 200


@contextmanager
def no_descriptors() -> Generator[None]:
    """Use up every file descriptor during a block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, LIMIT), hard))
    opened: list[int] = []
    try:
        with suppress(OSError):
            while True:
                opened.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@covers("no-descriptors")
@pytest.mark.parametrize("kind", ["header", "header_blocking", "handle_challenge_blocking"])
def test_a_header_without_file_descriptors_raises_a_typed_error(tmp_path: Path, kind: str) -> None:
    make_store(tmp_path)
    server = FakeServer()
    session = make_service(tmp_path, server, EXPIRED_AT).session(SERVER)
    calls: dict[str, Callable[[], object]] = {
        "header_blocking": session.header_blocking,
        "handle_challenge_blocking": lambda: session.handle_challenge_blocking("Bearer access-0", 401, []),
    }

    async def main() -> None:
        with no_descriptors(), pytest.raises(McpAuthError) as caught:
            await session.header()
        assert caught.value.advice

    if kind == "header":
        asyncio.run(main())
    else:
        with no_descriptors(), pytest.raises(McpAuthError) as caught:
            calls[kind]()
        assert caught.value.advice
    assert server.requests == []
    assert asyncio.run(session.header()) == "Bearer new"


@covers("no-descriptors")
def test_a_command_without_file_descriptors_raises_a_typed_error_and_warns_of_nothing(tmp_path: Path) -> None:
    make_store(tmp_path)
    session = make_service(tmp_path, FakeServer(), EXPIRED_AT).session(SERVER)

    async def main() -> str:
        return await session.header()

    # A warning, such as that of a half-made event loop, is an error in the tests.
    with no_descriptors(), pytest.raises(OutOfResources):
        run_until_stopped(main())
    gc.collect()
    assert run_until_stopped(main()) == "Bearer new"


@covers("no-descriptors")
def test_a_poll_scheduler_without_file_descriptors_raises_a_typed_error() -> None:
    class Idle:
        async def run_step(self, job: object) -> None: ...
        def has_changed(self, job: object) -> bool:
            return False

        async def release_job(self, job: object) -> None: ...
        async def release_resources(self) -> None: ...
        def reset_in_child(self) -> None: ...

    scheduler = PollScheduler(Idle())
    with no_descriptors(), pytest.raises(McpAuthError):
        scheduler.subscribe("a-login", "a-server", lambda _error: None)
    done: list[BaseException | None] = []
    scheduler.subscribe("a-login", "a-server", done.append)
    thread = scheduler.stop_new_steps()
    if thread is not None:
        thread.join(20)
