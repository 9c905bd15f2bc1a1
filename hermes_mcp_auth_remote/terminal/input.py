"""Read text from a terminal or a pipe without echoing it: a typed line, or a paste of several lines.

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
from typing import Protocol, Self, runtime_checkable

from hermes_mcp_auth_remote.terminal.key_sequences import MAX_LINE_CHARS, LineEditor

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
        # A paste arrives as keys, without marks; LineEditor joins what arrives together.
        return b"" if key in "\x03\x1a" else key.encode("utf-8", "replace")

else:
    import termios

# A longer line from a pipe is cut to this length, which is one more than the service accepts.
MAX_PIPED_CHARS = 16_385
_READ_BYTES = 65_536
_BRACKETED_PASTE_ON, _BRACKETED_PASTE_OFF = b"\x1b[?2004h", b"\x1b[?2004l"
# Room for "[65536 characters]" behind a prompt.
_LABEL_COLUMNS = 20
# A terminal usually turns these keys into signals. If a key arrives as a control sequence, send its signal.
_SIGNAL_KEYS = {"\x03": "SIGINT", "\x1a": "SIGTSTP", "\x1c": "SIGQUIT"}


class LineSource(Protocol):
    """A source of texts: a `Keyboard` or a pipe. Use it with `async with`."""

    async def read_line(self) -> str | None:
        """Return the next text without its last line break, None at the end. Can be cancelled.

        A text is a typed line, or lines that arrive together, as a paste does.
        """
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@runtime_checkable
class Prompt(Protocol):
    """A line source that shows a prompt on the line on which the user types."""

    def show_prompt(self, *texts: str) -> None:
        """Show the first text that leaves room for the user's input."""
        ...

    def hide_prompt(self) -> None:
        """Clear the line, so that other text can be printed there."""
        ...


def has_standard_input() -> bool:
    """True if a user or a program can send text: standard input is neither closed nor the null device."""
    if sys.stdin is None:
        # File descriptor 0 may belong to any file that this process opened since.
        return False
    try:
        return not os.path.samestat(os.fstat(0), os.stat(os.devnull))  # noqa: PTH116  compared by its device
    except OSError:
        return False


def open_line_source() -> LineSource:
    """Open standard input: as a keyboard if it is a terminal, otherwise as a pipe."""
    if sys.stdin is None:
        return ThreadedLineSource(lambda: b"")
    if sys.platform == "win32":
        return ThreadedLineSource(_console_key) if os.isatty(0) else ThreadedLineSource()
    return Keyboard.open() if os.isatty(0) else ThreadedLineSource()


class _TextQueue:
    """Queues each text when no more bytes follow it. Use it in one event loop."""

    def __init__(self, max_chars: int, show_text: Callable[[str | None], None] = lambda _: None) -> None:
        self.line_editor = LineEditor(max_chars)
        self._texts: asyncio.Queue[str | None] = asyncio.Queue()
        self._show_text = show_text
        self._pause: asyncio.TimerHandle | None = None
        self._fed_at = 0.0
        self._has_end = False
        self._is_read_to_end = False

    @property
    def has_text(self) -> bool:
        """True if `get` returns at once."""
        return not self._texts.empty()

    async def get(self) -> str | None:
        """Return the next text, or None if the input has ended and no text is left."""
        if self._is_read_to_end:
            return None
        text = await self._texts.get()
        self._is_read_to_end = text is None
        return text

    def feed(self, data: bytes) -> bool:
        """Add bytes, b"" at the end of the input. Return False if no more are needed."""
        if self._has_end:
            return False
        loop = asyncio.get_running_loop()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        now = loop.time()
        for text in self.line_editor.feed(data, idle_seconds=now - self._fed_at):
            self._put(text)
        self._fed_at = now
        if not data or self.line_editor.is_ended:
            self._put_rest()
            self._put(None)
            self._has_end = True
        elif self.line_editor.is_complete:
            self._pause = loop.call_later(self.line_editor.pause_seconds, self._put_rest)
        return not self._has_end

    def cancel(self) -> None:
        """Stop the timer. A text that is not yet followed by a pause stays in the editor."""
        if self._pause is not None:
            self._pause.cancel()

    def _put_rest(self) -> None:
        text = self.line_editor.take_text()
        if text is not None:
            self._put(text)

    def _put(self, text: str | None) -> None:
        self._show_text(text)
        self._texts.put_nowait(text)


class ThreadedLineSource:
    """Reads texts in a thread, for input that only a thread can wait for.

    `read_bytes` blocks and returns bytes, b"" at the end. The thread starts with the first `read_line`.
    """

    def __init__(self, read_bytes: Callable[[], bytes] = lambda: os.read(0, 4096)) -> None:
        self._read_bytes = read_bytes
        self._texts = _TextQueue(MAX_PIPED_CHARS)
        self._thread: threading.Thread | None = None

    async def read_line(self) -> str | None:
        """Return the next text, of at most 16385 characters; None at the end."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            # Use a daemon thread: nothing can interrupt its read, and it must not delay the exit.
            self._thread = threading.Thread(target=self._read_in_thread, args=(loop,), daemon=True)
            self._thread.start()
        return await self._texts.get()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing: the rest of the input stays unread."""

    def _read_in_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        # RuntimeError: the event loop is closed.
        with contextlib.suppress(RuntimeError):
            data = b"-"
            while data:
                try:
                    data = self._read_bytes()
                except OSError:
                    data = b""
                loop.call_soon_threadsafe(self._texts.feed, data)


class Keyboard:
    """A terminal's keyboard: `async with Keyboard.open() as keyboard`. POSIX only.

    Inside the block the terminal shows only the number of typed characters. Ctrl-C, Ctrl-Z and the editing
    keys (backspace, Ctrl-U, Ctrl-D for the end) work, even if the terminal sends them as control sequences. A
    line break inside a paste does not end the text.
    On exit, on SIGTERM and SIGQUIT, and before a suspension, the terminal gets its original mode back.
    """

    def __init__(self, terminal_fd: int, output_fd: int) -> None:
        self._terminal_fd = terminal_fd
        self._output_fd = output_fd
        self._texts = _TextQueue(MAX_LINE_CHARS, self._show_text)
        self._prompt = ""
        self._label = ""
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
        """Return the next text, None after Ctrl-D or if the terminal was closed."""
        return await self._texts.get()

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
        self._texts.cancel()
        for number in self._handled_signals:
            loop.remove_signal_handler(number)
        if self._prompt or self._label:
            self._write(b"\n")
            self._prompt = self._label = ""
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
        if not self._texts.feed(data):
            asyncio.get_running_loop().remove_reader(self._terminal_fd)
            return
        self._show_character_count(self._texts.line_editor.character_count)
        self._raise_signals()

    def show_prompt(self, *texts: str) -> None:
        """Show the first text that leaves room for the character count, and that count."""
        self.hide_prompt()
        if self._texts.has_text:
            # A text arrived before the prompt, and its line is over.
            return
        try:
            columns = os.get_terminal_size(self._output_fd).columns
        except OSError:
            columns = 0
        fitting_texts = (text for text in texts if not 0 < columns < len(text) + _LABEL_COLUMNS)
        self._prompt = next(fitting_texts, "")
        self._write(self._prompt.encode())
        self._show_character_count(self._texts.line_editor.character_count)

    def hide_prompt(self) -> None:
        """Clear the line, so that other text can be printed there."""
        if self._prompt or self._label:
            is_dumb = os.environ.get("TERM") == "dumb"
            self._write(b"\n" if is_dumb else b"\r\x1b[K")
            self._prompt = self._label = ""

    def _show_text(self, text: str | None) -> None:
        if text is not None:
            self._show_character_count(len(text))
        self._write(b"\n")
        self._prompt = self._label = ""

    def _raise_signals(self) -> None:
        keys, self._texts.line_editor.signal_keys = self._texts.line_editor.signal_keys, []
        for key in keys:
            os.kill(os.getpid(), signal.Signals[_SIGNAL_KEYS[key]])

    def _show_character_count(self, character_count: int) -> None:
        label = f"[{character_count} character{'s' * (character_count != 1)}]" if character_count else ""
        if label == self._label:
            return
        gap = max(len(self._label) - len(label), 0)
        self._write(("\b" * len(self._label) + label + " " * gap + "\b" * gap).encode())
        self._label = label

    def _write(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self._output_fd, data)
