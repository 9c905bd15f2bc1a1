"""Read lines from standard input and write lines to standard output, in threads."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from hermes_mcp_auth_remote.bridge.buffers import MessageBuffer
from hermes_mcp_auth_remote.threads import run_in_own_thread

# A larger line is refused: the bridge parses each line that a client sends.
MAX_LINE_BYTES = 33_554_432
_READ_BYTES = 65_536
# If a line is too long, this many bytes of its start and of its end are kept: they contain the id.
_END_BYTES = 4096
# A client that reads slowly must not fill the memory.
_MAX_QUEUED_MESSAGES = 256


@dataclass(frozen=True, slots=True)
class TooLongLine:
    """Stands for a line of more than MAX_LINE_BYTES, which was skipped."""

    head: bytes = field(default=b"", repr=False)
    tail: bytes = field(default=b"", repr=False)


class LineSplitter:
    """Splits chunks into lines; keeps at most MAX_LINE_BYTES of an incomplete line. Pure."""

    def __init__(self, max_line_bytes: int) -> None:
        self._max_line_bytes = max_line_bytes
        self._parts: list[bytes] = []
        self._size = 0
        self._is_skipping = False
        self._head = self._tail = b""

    def feed(self, chunk: bytes) -> list[bytes | TooLongLine]:
        """Return the lines that a chunk completes, without blank ones. An empty chunk ends the input."""
        *complete, rest = chunk.split(b"\n") if chunk else [b"", b""]
        lines = list[bytes | TooLongLine]()
        for part in complete:
            self._add(part)
            line = b"".join(self._parts).strip()
            too_long = TooLongLine(self._head, self._tail) if self._is_skipping else None
            self._parts, self._size, self._is_skipping = [], 0, False
            if too_long is not None:
                lines.append(too_long)
            elif line:
                lines.append(line)
        self._add(rest)
        return lines

    def _add(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._max_line_bytes:
            if not self._is_skipping:
                self._head = b"".join([*self._parts, part])[:_END_BYTES]
                self._tail = b""
            self._parts, self._is_skipping = [], True
            self._tail = (self._tail + part)[-_END_BYTES:]
        elif part:
            self._parts.append(part)


async def read_lines(file_descriptor: int) -> AsyncIterator[bytes | TooLongLine]:
    """Yield the lines of a file descriptor until its end."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    # The thread reads the next chunk when the lines of the last one are handled.
    may_read = threading.Semaphore(1)

    def read() -> None:
        while True:
            may_read.acquire()
            try:
                chunk = os.read(file_descriptor, _READ_BYTES)
            except OSError:
                chunk = b""
            try:
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            except RuntimeError:
                # The event loop has ended.
                return
            if not chunk:
                return

    # A daemon thread: the bridge can end while a client keeps the pipe open.
    threading.Thread(target=read, name="mcp-auth-stdin", daemon=True).start()
    splitter = LineSplitter(MAX_LINE_BYTES)
    while True:
        chunk = await chunks.get()
        for line in splitter.feed(chunk):
            yield line
        if not chunk:
            return
        may_read.release()


class LineWriter:
    """Writes messages to a file descriptor, each as one line. A thread writes, in the order of the calls."""

    def __init__(self, file_descriptor: int) -> None:
        self._file_descriptor = file_descriptor
        self._loop = asyncio.get_running_loop()
        self._queue: queue.Queue[tuple[bytes | MessageBuffer, asyncio.Future[None]] | None] = queue.Queue()
        self._is_closed = False
        self._unwritten: set[asyncio.Future[None]] = set()
        self._room = asyncio.Semaphore(_MAX_QUEUED_MESSAGES)
        self.broken: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="mcp-auth-stdout", daemon=True)
        self._thread.start()

    async def write(self, message: bytes | MessageBuffer) -> None:
        """Write a message; returns when it is written. Ignores a client that no longer reads.

        A cancelled caller waits until its buffer is written. Half a line would break the protocol, and the
        caller closes the buffer.
        """
        async with self._room:
            if self._is_closed:
                return
            done: asyncio.Future[None] = self._loop.create_future()
            self._unwritten.add(done)
            done.add_done_callback(self._unwritten.discard)
            self._queue.put((message, done))
            if isinstance(message, bytes):
                # The thread writes the message even if the caller is cancelled.
                await done
                return
            cancellation: asyncio.CancelledError | None = None
            while not done.done():
                try:
                    await asyncio.shield(done)
                except asyncio.CancelledError as error:
                    cancellation = error
            if cancellation is not None:
                raise cancellation

    async def close(self, timeout_seconds: float = 2.0) -> None:
        """Write what is queued, for at most `timeout_seconds`, and end the thread."""
        self._is_closed = True
        self._queue.put(None)
        await run_in_own_thread(self._thread.join, timeout_seconds)
        for done in list(self._unwritten):
            # The client does not read, so the callers of `write` must not wait for it.
            _resolve(done, None)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            message, done = item
            is_broken = not self._write_line(message)
            try:
                self._loop.call_soon_threadsafe(_resolve, done, self.broken if is_broken else None)
            except RuntimeError:
                return

    def _write_line(self, message: bytes | MessageBuffer) -> bool:
        """Write one line; return False if the client no longer reads."""
        parts: Iterable[bytes] = (message,) if isinstance(message, bytes) else message.read_chunks()
        try:
            for part in (*parts, b"\n") if isinstance(message, bytes) else parts:
                _write_all(self._file_descriptor, part)
            if not isinstance(message, bytes):
                _write_all(self._file_descriptor, b"\n")
        except (OSError, ValueError):
            return False
        return True


def _write_all(file_descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file_descriptor, view) :]


def _resolve(done: asyncio.Future[None], broken: asyncio.Future[None] | None) -> None:
    if not done.done():
        done.set_result(None)
    if broken is not None and not broken.done():
        broken.set_result(None)
