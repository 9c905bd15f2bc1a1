"""Read lines of text from a terminal or a pipe without echoing them.

In its default mode a terminal cuts a line at 4096 bytes, ends a paste at the first line break, and echoes
the text. `Keyboard` switches the terminal to deliver every byte, and shows only the number of characters.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from hermes_mcp_auth_remote.terminal.key_sequences import LineEditor

if sys.platform == "win32":
    import _thread
    import msvcrt

    def _console_key() -> bytes:
        """Wait for one key of a Windows console."""
        key = msvcrt.getwch()
        if key in "\0\xe0":  # an arrow or function key: a second code follows
            msvcrt.getwch()
            return _console_key()
        if key == "\x03":
            _thread.interrupt_main()
        return b"" if key in "\x03\x1a" else key.encode("utf-8", "replace")

else:
    import termios

# A longer line from a pipe is cut to this length, which is one more than the service accepts.
MAX_PIPED_CHARS = 16_385
_READ_BYTES = 65_536
_BRACKETED_PASTE_ON, _BRACKETED_PASTE_OFF = b"\x1b[?2004h", b"\x1b[?2004l"


class LineSource(Protocol):
    """A source of lines: a `Keyboard` or a pipe. Use it with `async with`."""

    async def read_line(self) -> str | None:
        """Return the next line without its line break, None at the end. Can be cancelled."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_line_source() -> LineSource:
    """Open standard input: as a keyboard if it is a terminal, otherwise as a pipe."""
    if sys.platform == "win32":
        return ThreadedLineSource(_console_key) if os.isatty(0) else ThreadedLineSource()
    return Keyboard.open() if os.isatty(0) else ThreadedLineSource()


class ThreadedLineSource:
    """Reads lines in a thread, for input that only a thread can wait for.

    `read_bytes` blocks and returns bytes, b"" at the end. The thread starts with the first `read_line`.
    """

    def __init__(self, read_bytes: Callable[[], bytes] = lambda: os.read(0, 4096)) -> None:
        self._read_bytes = read_bytes
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._thread: threading.Thread | None = None
        self._is_ended = False

    async def read_line(self) -> str | None:
        """Return the next line, of at most 16385 characters; None at the end."""
        if self._is_ended:
            return None
        if self._thread is None:
            loop = asyncio.get_running_loop()
            # Use a daemon thread: nothing can interrupt its read, and it must not delay the exit.
            self._thread = threading.Thread(target=self._read_in_thread, args=(loop,), daemon=True)
            self._thread.start()
        text = await self._lines.get()
        self._is_ended = text is None
        return text

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: the rest of the input stays unread."""

    def _read_in_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        line_editor = LineEditor(MAX_PIPED_CHARS)
        # RuntimeError: the event loop is closed.
        with contextlib.suppress(RuntimeError):
            while True:
                try:
                    data = self._read_bytes()
                except OSError:
                    data = b""
                for line in line_editor.feed(data) if data else line_editor.finish():
                    loop.call_soon_threadsafe(self._lines.put_nowait, line)
                    if line is None:
                        return


class Keyboard:
    """A terminal's keyboard: `async with Keyboard.open() as keyboard`. POSIX only.

    Inside the block the terminal shows only the number of typed characters. Ctrl-C, Ctrl-Z and the editing
    keys (backspace, Ctrl-U, Ctrl-D for the end) work. A line break inside a paste does not end the line.
    On exit, on SIGTERM and SIGQUIT, and before a suspension, the terminal gets its original mode back.
    """

    def __init__(self, terminal_fd: int, output_fd: int) -> None:
        self._terminal_fd = terminal_fd
        self._output_fd = output_fd
        self._line_editor = LineEditor()
        self._label_length = 0
        self._lines: asyncio.Queue[str | None] = asyncio.Queue()
        self._is_ended = False
        self._original_attributes = termios.tcgetattr(terminal_fd)
        self._handled_signals: list[signal.Signals] = []

    @classmethod
    def open(cls, terminal_fd: int = 0) -> Self:
        """Create a keyboard from a terminal's file descriptor.

        The terminal's mode changes only when the block is entered. Raises termios.error if the file
        descriptor is not a terminal.
        """
        return cls(
            terminal_fd, next((fd for fd in (2, 1) if terminal_fd == 0 and os.isatty(fd)), terminal_fd)
        )

    async def read_line(self) -> str | None:
        """Return the next line, None after Ctrl-D or if the terminal was closed."""
        if self._is_ended and self._lines.empty():
            return None
        return await self._lines.get()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.add_reader(self._terminal_fd, self._read_available)
        if threading.current_thread() is threading.main_thread():
            for number, handler in (
                (signal.SIGTERM, self._terminate),
                (signal.SIGQUIT, self._terminate),
                (signal.SIGTSTP, self._suspend),
                (signal.SIGCONT, self._resume),
            ):
                # Do not replace a signal handler of the calling program, nor SIG_IGN.
                if signal.getsignal(number) is signal.SIG_DFL:
                    loop.add_signal_handler(number, handler, number)
                    self._handled_signals.append(number)
        self._configure_terminal()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._terminal_fd)
        for number in self._handled_signals:
            loop.remove_signal_handler(number)
        if self._label_length:
            self._write(b"\n")
        self._restore_terminal()
        # Discard the rest of a paste: the shell would read it and save it in its history.
        with contextlib.suppress(termios.error):
            termios.tcflush(self._terminal_fd, termios.TCIFLUSH)

    def _configure_terminal(self) -> None:
        raw = termios.tcgetattr(self._terminal_fd)
        # Keep ISIG so that Ctrl-C and Ctrl-Z work. Clear ICRNL to tell "\r\n" from two line breaks.
        raw[0] &= ~(termios.ICRNL | termios.INLCR | termios.IGNCR | termios.ISTRIP)
        raw[3] &= ~(termios.ICANON | termios.ECHO | termios.ECHONL | termios.IEXTEN)
        raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._terminal_fd, termios.TCSANOW, raw)
        self._write_escape(_BRACKETED_PASTE_ON)

    def _restore_terminal(self) -> None:
        self._write_escape(_BRACKETED_PASTE_OFF)
        # termios.error: the terminal was closed.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(self._terminal_fd, termios.TCSANOW, self._original_attributes)

    def _write_escape(self, escape: bytes) -> None:
        # A dumb terminal prints escape sequences instead of obeying them.
        if os.environ.get("TERM") != "dumb":
            self._write(escape)

    def _terminate(self, signal_number: signal.Signals) -> None:
        self._restore_terminal()
        asyncio.get_running_loop().remove_signal_handler(signal_number)
        os.kill(os.getpid(), signal_number)

    def _suspend(self, signal_number: signal.Signals) -> None:
        self._restore_terminal()
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal_number)
        # Do not use SIGSTOP. If no shell can continue this process (`ssh -t host command`), the kernel
        # ignores SIGTSTP but not SIGSTOP.
        os.kill(os.getpid(), signal_number)
        loop.add_signal_handler(signal_number, self._suspend, signal_number)
        self._resume(signal_number)

    def _resume(self, _: signal.Signals) -> None:
        with contextlib.suppress(termios.error):
            self._configure_terminal()

    def _read_available(self) -> None:
        try:
            data = os.read(self._terminal_fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal was closed
            data = b""
        for line in self._line_editor.feed(data) if data else self._line_editor.finish():
            if line is not None:
                self._show_character_count(len(line))
            self._write(b"\n")
            self._label_length = 0
            self._lines.put_nowait(line)
            if line is None:
                self._is_ended = True
                asyncio.get_running_loop().remove_reader(self._terminal_fd)
                return
        self._show_character_count(self._line_editor.character_count)

    def _show_character_count(self, character_count: int) -> None:
        label = f"[{character_count} character{'s' * (character_count != 1)}]" if character_count else ""
        gap = max(self._label_length - len(label), 0)
        self._write(("\b" * self._label_length + label + " " * gap + "\b" * gap).encode())
        self._label_length = len(label)

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._output_fd, data)
