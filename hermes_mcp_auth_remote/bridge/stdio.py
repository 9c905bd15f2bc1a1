"""Read lines from standard input and write lines to standard output. Neither blocks the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import select
import socket
import stat
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator
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


async def read_lines(file_descriptor: int) -> AsyncGenerator[bytes | TooLongLine]:
    """Yield the lines of a file descriptor until its end."""
    can_wait = sys.platform != "win32" and _is_pipe(file_descriptor)
    splitter = LineSplitter(MAX_LINE_BYTES)
    async for chunk in _read_in_loop(file_descriptor) if can_wait else _read_in_thread(file_descriptor):
        for line in splitter.feed(chunk):
            yield line
    for line in splitter.feed(b""):
        yield line


def _is_pipe(file_descriptor: int) -> bool:
    """True for a pipe or socket: the event loop can wait for them, but not for files."""
    try:
        mode = os.fstat(file_descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


async def _read_in_loop(file_descriptor: int) -> AsyncIterator[bytes]:
    """Yield the data of a pipe until its end, without a thread."""
    loop = asyncio.get_running_loop()
    while True:
        is_readable: asyncio.Future[None] = loop.create_future()
        loop.add_reader(file_descriptor, _resolve, is_readable)
        try:
            await is_readable
        finally:
            loop.remove_reader(file_descriptor)
        try:
            chunk = os.read(file_descriptor, _READ_BYTES)
        except BlockingIOError:
            # The client has made the pipe non-blocking, and there is no data after all.
            continue
        except OSError:
            return
        if not chunk:
            return
        yield chunk


async def _read_in_thread(file_descriptor: int) -> AsyncIterator[bytes]:
    """Yield the data of any file descriptor until its end."""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    # The thread reads the next chunk when the lines of the last one are handled.
    may_read = threading.Semaphore(1)

    def read() -> None:
        while True:
            may_read.acquire()
            try:
                chunk = _read_blocking(file_descriptor)
            except OSError:
                chunk = b""
            try:
                loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            except RuntimeError:
                # The event loop has ended.
                return
            if not chunk:
                return

    # A daemon thread: the bridge can end while a client keeps the file open.
    threading.Thread(target=read, name="mcp-auth-stdin", daemon=True).start()
    while chunk := await chunks.get():
        yield chunk
        may_read.release()


def _read_blocking(file_descriptor: int) -> bytes:
    """Read the next data; wait for it even if the client has made the descriptor non-blocking."""
    while True:
        try:
            return os.read(file_descriptor, _READ_BYTES)
        except BlockingIOError:
            select.select([file_descriptor], [], [])


class LineWriter:
    """Writes messages to a file descriptor, each as one line, in the order of the calls.

    The event loop writes what a pipe takes at once. A thread writes the rest: the client may read slowly.
    """

    def __init__(self, file_descriptor: int) -> None:
        self._file_descriptor = file_descriptor
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._is_closed = False
        self._unwritten: set[asyncio.Future[None]] = set()
        self._room = asyncio.Semaphore(_MAX_QUEUED_MESSAGES)
        self._direct_output = _DirectOutput(file_descriptor)
        self.broken: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="mcp-auth-stdout", daemon=True)
        self._thread.start()

    async def write(self, message: bytes | MessageBuffer) -> None:
        """Write a message; returns when it is written. Ignores a client that no longer reads.

        A cancelled caller also waits until its buffer is written, because it closes the buffer afterwards. If
        it closed the buffer earlier, the thread would write half a line, which breaks the protocol.
        """
        is_waiting = bool(self._unwritten) or self._room.locked()
        if isinstance(message, bytes) and not (is_waiting or self._is_closed):
            line = message + b"\n"
            try:
                written = self._direct_output.write(line)
            except OSError:
                _resolve(self.broken)
                return
            if written == len(line):
                return
            message = line[written:-1]
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
        self._direct_output.close()
        self._queue.put(None)
        await run_in_own_thread(self._thread.join, timeout_seconds)
        for done in list(self._unwritten):
            # The client does not read, so the callers of `write` must not wait for it.
            _resolve(done)

    def _run(self) -> None:
        has_ended = False
        while not has_ended:
            items = [self._queue.get()]
            while not self._queue.empty() and len(items) < _MAX_QUEUED_MESSAGES:
                items.append(self._queue.get())
            has_ended = items[-1] is None
            lines = [item for item in items if item is not None]
            resolved = [done for _, done in lines]
            if not self._write_lines([message for message, _ in lines]):
                resolved.append(self.broken)
            try:
                self._loop.call_soon_threadsafe(_resolve, *resolved)
            except RuntimeError:
                return

    def _write_lines(self, messages: list[bytes | MessageBuffer]) -> bool:
        """Write each message as a line, short ones together; return False if the client no longer reads."""
        short_lines, size = list[bytes](), 0
        try:
            for message in messages:
                if not isinstance(message, bytes):
                    _write_all(self._file_descriptor, b"".join(short_lines))
                    for part in message.read_chunks():
                        _write_all(self._file_descriptor, part)
                    short_lines, size = [b"\n"], 0
                    continue
                short_lines += [message, b"\n"]
                size += len(message)
                if size >= _READ_BYTES:
                    _write_all(self._file_descriptor, b"".join(short_lines))
                    short_lines, size = [], 0
            _write_all(self._file_descriptor, b"".join(short_lines))
        except (OSError, ValueError):
            return False
        return True


_Item = tuple[bytes | MessageBuffer, asyncio.Future[None]]
"""A message, and the future that is resolved when it is written."""


class _DirectOutput:
    """Writes what a pipe or socket takes at once.

    The descriptor stays as it is: another process may share it, so it must not become non-blocking.
    """

    def __init__(self, file_descriptor: int) -> None:
        self._file_descriptor = file_descriptor
        self._socket: socket.socket | None = None
        self._poll: select.poll | None = None
        if sys.platform == "win32" or not _is_pipe(file_descriptor):
            return
        if stat.S_ISSOCK(os.fstat(file_descriptor).st_mode):
            # Clients on Node.js use sockets.
            self._socket = socket.socket(fileno=os.dup(file_descriptor))
        else:
            self._poll = select.poll()
            self._poll.register(file_descriptor, select.POLLOUT)

    def write(self, data: bytes) -> int:
        """Return how many bytes were written. Raises OSError if the other end is closed."""
        if self._socket is not None:
            with contextlib.suppress(BlockingIOError):
                return self._socket.send(data, socket.MSG_DONTWAIT)
        # A pipe that has room takes PIPE_BUF bytes without blocking. After an error, the write raises it.
        elif self._poll is not None and len(data) <= select.PIPE_BUF and self._poll.poll(0):
            return os.write(self._file_descriptor, data)
        return 0

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _write_all(file_descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(file_descriptor, view) :]
        except BlockingIOError:
            # The client has made the descriptor non-blocking.
            select.select([], [file_descriptor], [])


def _resolve(*futures: asyncio.Future[None]) -> None:
    for future in futures:
        if not future.done():
            future.set_result(None)
