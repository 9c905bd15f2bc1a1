"""Standard input and output: pipes, sockets and files, and clients that read slowly or never."""

from __future__ import annotations

import asyncio
import os
import pty
import socket
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hermes_mcp_auth_remote.bridge.buffers import MAX_MEMORY_BYTES, MessageBuffer
from hermes_mcp_auth_remote.bridge.stdio import LineWriter, read_lines
from tests.bridge.client import run_in_loop
from tests.requirements import covers

Ends = tuple[int, int]
"""A descriptor to read from, and one to write to."""


@pytest.fixture(params=["pipe", "socket"])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """Two ends as clients make them: Node.js uses sockets, others use pipes."""
    if request.param == "pipe":
        descriptors = os.pipe()
    else:
        first, second = socket.socketpair()
        descriptors = first.detach(), second.detach()
    yield descriptors
    for descriptor in descriptors:
        os.close(descriptor)


async def read_whole_lines(descriptor: int, count: int) -> list[bytes]:
    """Read until there are so many lines."""
    data = b""
    while data.count(b"\n") < count:
        data += await asyncio.to_thread(os.read, descriptor, 100_000)
    return data.splitlines()


@covers("bridge-transports")
@pytest.mark.parametrize("blocking", [True, False])
@run_in_loop
async def test_messages_of_all_sizes_keep_their_order_if_the_client_reads_late(
    ends: Ends, *, blocking: bool
) -> None:
    reading, writing = ends
    os.set_blocking(writing, blocking)
    writer = LineWriter(writing)
    messages = [b"%d" % n + b"x" * (n * 397 % 9000) for n in range(300)]
    large = MessageBuffer()
    large.write(b"y" * (MAX_MEMORY_BYTES + 1))

    async def write() -> None:
        for message in messages[:150]:
            await writer.write(message)
        await writer.write(large)
        for message in messages[150:]:
            await writer.write(message)

    task = asyncio.create_task(write())
    # The client reads when the pipe is full.
    await asyncio.sleep(0.05)
    assert not task.done()
    lines = await read_whole_lines(reading, 301)
    await task
    assert [lines.pop(150), *lines] == [b"y" * (MAX_MEMORY_BYTES + 1), *messages]
    large.close()
    await writer.close()


@run_in_loop
async def test_a_short_message_is_written_without_a_thread(
    ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LineWriter(ends[1])

    def refuse(messages: object) -> bool:
        raise AssertionError(messages)

    monkeypatch.setattr(writer, "_write_lines", refuse)
    await writer.write(b"{}")
    assert os.read(ends[0], 100) == b"{}\n"
    monkeypatch.undo()
    await writer.close()


@covers("bridge-bad-input")
@run_in_loop
async def test_a_client_that_never_reads_keeps_neither_the_loop_nor_the_end_waiting(ends: Ends) -> None:
    writer = LineWriter(ends[1])
    writes = [asyncio.create_task(writer.write(b"x" * 3000)) for _ in range(2000)]
    await asyncio.sleep(0.02)
    assert not all(task.done() for task in writes)
    await writer.close(timeout_seconds=0.05)
    await asyncio.gather(*writes)
    assert not writer.broken.done()
    # The thread ends when the client reads or ends.
    os.set_blocking(ends[0], False)
    while writer._thread.is_alive():
        try:
            os.read(ends[0], 100_000)
        except BlockingIOError:
            await asyncio.sleep(0.01)


@run_in_loop
async def test_a_client_that_has_closed_its_end_breaks_the_writer() -> None:
    reading, writing = os.pipe()
    writer = LineWriter(writing)
    os.close(reading)
    await writer.write(b"{}")
    assert writer.broken.done()
    await writer.write(b"{}")
    await writer.close()
    os.close(writing)


async def collect(descriptor: int) -> list[object]:
    return [line async for line in read_lines(descriptor)]


def make_file(tmp_path: Path, data: bytes) -> int:
    (tmp_path / "input").write_bytes(data)
    return os.open(tmp_path / "input", os.O_RDONLY)


def make_pipe(_: Path, data: bytes) -> int:
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return reading


def make_non_blocking_pipe(tmp_path: Path, data: bytes) -> int:
    reading = make_pipe(tmp_path, data)
    os.set_blocking(reading, False)
    return reading


@covers("bridge-bad-input")
@pytest.mark.parametrize("make", [make_file, make_pipe, make_non_blocking_pipe])
def test_lines_of_a_pipe_and_of_a_file(make: Callable[[Path, bytes], int], tmp_path: Path) -> None:
    descriptor = make(tmp_path, b'{"a": 1}\r\n\n{"b": "' + b"x" * 60_000 + b'"}\nhalf')
    lines = asyncio.run(collect(descriptor))
    assert lines == [b'{"a": 1}', b'{"b": "' + b"x" * 60_000 + b'"}', b"half"]
    os.close(descriptor)


@run_in_loop
async def test_a_terminal_that_another_process_has_made_non_blocking_is_no_end_of_input() -> None:
    controller, terminal = pty.openpty()
    tty.setraw(terminal)
    os.set_blocking(terminal, False)
    lines = read_lines(terminal)
    line = asyncio.ensure_future(anext(lines))
    # The thread finds no data at first.
    await asyncio.sleep(0.02)
    os.write(controller, b'{"a": 1}\n')
    assert await line == b'{"a": 1}'
    os.close(controller)
    await lines.aclose()


def test_a_closed_standard_input_is_an_empty_one() -> None:
    descriptor = make_pipe(Path(), b"")
    os.close(descriptor)
    assert asyncio.run(collect(descriptor)) == []
