"""Pastes through real pseudo-terminals and pipes; the terminal's state is restored in every case."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import termios
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from hermes_mcp_auth_remote.terminal.input import (
    MAX_PIPED_CHARS,
    Keyboard,
    ThreadedLineSource,
    open_line_source,
)
from tests.requirements import covers

PASTE = "http://127.0.0.1:1/callback?code=" + "c0de-that-nobody-may-see" * 900

# Writes each line to a file, and prints no input.
CHILD_CODE = """
import asyncio, resource, sys
from hermes_mcp_auth_remote.terminal.input import open_line_source
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
async def main():
    async with open_line_source() as keyboard:
        print("READY", flush=True)
        while (line := await keyboard.read_line()) is not None:
            with open(sys.argv[1], "a") as file:
                print(repr(line), file=file)
            print("TOOK", flush=True)
    print("ENDED", flush=True)
asyncio.run(main())
"""


class PseudoTerminal:
    """A pseudo-terminal in this process: one thread reads the screen, another one types."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.initial_attributes = termios.tcgetattr(self.slave)
        self.output = b""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._watch)
        self._reader.start()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 65536):
                with self._changed:
                    self.output += data
                    self._changed.notify_all()

    async def wait_until_shown(self, text: str) -> None:
        """Wait until the screen ends with `text`."""

        def wait() -> bool:
            with self._changed:
                return self._changed.wait_for(lambda: self.output.endswith(text.encode()), timeout=20)

        assert await asyncio.to_thread(wait), self.output

    async def type_bytes(self, data: bytes) -> None:
        def write() -> None:
            rest = data
            while rest:
                rest = rest[os.write(self.master, rest) :]

        await asyncio.to_thread(write)

    def close(self) -> str:
        """Close the terminal and return everything that the screen showed."""
        if self.slave >= 0:
            os.close(self.slave)
            self.slave = -1
        self._reader.join()
        return self.output.decode()


@pytest.fixture(autouse=True)
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    # Do not depend on the terminal that runs the tests.
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def terminal() -> Iterator[PseudoTerminal]:
    pseudo_terminal = PseudoTerminal()
    yield pseudo_terminal
    pseudo_terminal.close()
    os.close(pseudo_terminal.master)


def run_with_keyboard(terminal: PseudoTerminal, use_keyboard: Callable[[Keyboard], Awaitable[None]]) -> str:
    async def main() -> None:
        async with Keyboard.open(terminal.slave) as keys:
            await use_keyboard(keys)

    asyncio.run(main())
    assert termios.tcgetattr(terminal.slave) == terminal.initial_attributes
    return terminal.close()


def test_a_long_paste_is_complete_and_not_echoed(terminal: PseudoTerminal) -> None:
    async def test(keys: Keyboard) -> None:
        line, _ = await asyncio.gather(
            keys.read_line(), terminal.type_bytes(b"\x1b[200~" + PASTE.encode() + b"\x1b[201~\r")
        )
        assert line == PASTE

    assert len(PASTE) > 20_000
    screen = run_with_keyboard(terminal, test)
    assert "c0de" not in screen
    assert screen.startswith("\x1b[?2004h")
    assert f"[{len(PASTE)} characters]\r\n" in screen
    assert screen.endswith("\x1b[?2004l")


@covers("no-escape")
def test_a_dumb_terminal_gets_no_escape_sequences(
    terminal: PseudoTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")

    async def test(keys: Keyboard) -> None:
        line, _ = await asyncio.gather(keys.read_line(), terminal.type_bytes(PASTE.encode() + b"\r"))
        assert line == PASTE

    screen = run_with_keyboard(terminal, test)
    assert f"[{len(PASTE)} characters]\r\n" in screen
    assert "\x1b" not in screen


def test_a_long_line_without_bracketed_paste_is_complete(terminal: PseudoTerminal) -> None:
    async def test(keys: Keyboard) -> None:
        line, _ = await asyncio.gather(keys.read_line(), terminal.type_bytes(PASTE.encode() + b"\r"))
        assert line == PASTE

    assert "c0de" not in run_with_keyboard(terminal, test)


def test_line_breaks_in_a_paste_do_not_end_the_line(terminal: PseudoTerminal) -> None:
    async def test(keys: Keyboard) -> None:
        await terminal.type_bytes(b"\x1b[200~one\rtwo\r\nthree\n\x1b[201~\ro\rq\n")
        assert [await keys.read_line() for _ in range(2)] == ["one\ntwo\nthree\n", "o\nq"]

    run_with_keyboard(terminal, test)


@covers("paste-together")
@pytest.mark.parametrize("end", [b"", b"\r"], ids=["without a last line break", "with a last line break"])
def test_lines_that_arrive_together_without_paste_marks_are_one_text(
    terminal: PseudoTerminal, end: bytes
) -> None:
    lines = [PASTE[n : n + 80] for n in range(0, 400, 80)]

    async def test(keys: Keyboard) -> None:
        # Send the text in two parts, split directly after a line break: a connection may split it there.
        await terminal.type_bytes("".join(f"{line}\r" for line in lines[:3]).encode())
        await terminal.wait_until_shown("[242 characters]")
        await terminal.type_bytes("\r".join(lines[3:]).encode() + end)
        if not end:
            await terminal.wait_until_shown("[404 characters]")
            await terminal.type_bytes(b"\r")
        assert await keys.read_line() == "\n".join(lines)

    run_with_keyboard(terminal, test)


@covers("csi-u")
@pytest.mark.parametrize("key", [b"\x1b[99;5u", b"\x1b[27;5;99~"])
def test_ctrl_c_as_a_control_sequence_interrupts(terminal: PseudoTerminal, key: bytes) -> None:
    async def test(keys: Keyboard) -> None:
        interrupted = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
        await terminal.type_bytes(key)
        async with asyncio.timeout(20):
            await interrupted.wait()

    run_with_keyboard(terminal, test)


def test_only_the_character_count_is_shown(terminal: PseudoTerminal) -> None:
    steps = {
        b"x": "[1 character]",
        b"yz": "\b" * 13 + "[3 characters]",
        b"\x7f": "\b" * 14 + "[2 characters]",
        b"\x15": "\b" * 14 + " " * 14 + "\b" * 14,
        b"o\r": "[1 character]\r\n",
    }

    async def test(keys: Keyboard) -> None:
        for data, shown in steps.items():
            # A cancelled read, for example after a redirect, loses no input.
            waiting = asyncio.create_task(keys.read_line())
            await terminal.type_bytes(data)
            await terminal.wait_until_shown(shown)
            if not data.endswith(b"\r"):
                waiting.cancel()
            results = await asyncio.gather(waiting, return_exceptions=True)
            assert "o" in results or not data.endswith(b"\r")

    assert run_with_keyboard(terminal, test) == f"\x1b[?2004h{''.join(steps.values())}\x1b[?2004l"


def test_control_d_ends_the_input_for_good(terminal: PseudoTerminal) -> None:
    async def test(keys: Keyboard) -> None:
        await terminal.type_bytes(b"first\r\x04")
        assert [await keys.read_line() for _ in range(3)] == ["first", None, None]

    run_with_keyboard(terminal, test)


def test_a_closed_terminal_ends_the_input(terminal: PseudoTerminal) -> None:
    master, slave = os.openpty()

    async def main() -> None:
        async with Keyboard.open(slave) as keys:
            os.close(master)
            assert await keys.read_line() is None

    asyncio.run(main())
    os.close(slave)


def test_early_input_is_read_and_unread_input_is_discarded(terminal: PseudoTerminal) -> None:
    os.write(terminal.master, b"ahead\n")

    async def test(keys: Keyboard) -> None:
        assert await keys.read_line() == "ahead"
        asyncio.get_running_loop().remove_reader(terminal.slave)
        await terminal.type_bytes(b"the rest of a paste\r")

    async def main() -> None:
        async with Keyboard.open(terminal.slave) as keys:
            await test(keys)

    asyncio.run(main())
    os.set_blocking(terminal.slave, False)
    with pytest.raises(BlockingIOError):
        os.read(terminal.slave, 100)


def test_an_exception_restores_the_terminal(terminal: PseudoTerminal) -> None:
    async def test(keys: Keyboard) -> None:
        assert not termios.tcgetattr(terminal.slave)[3] & (termios.ECHO | termios.ICANON)
        assert termios.tcgetattr(terminal.slave)[3] & termios.ISIG
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_with_keyboard(terminal, test)
    assert termios.tcgetattr(terminal.slave) == terminal.initial_attributes


def test_signal_handlers_of_the_caller_are_kept(terminal: PseudoTerminal) -> None:
    def handler(number: int, frame: object) -> None: ...

    async def test(keys: Keyboard) -> None:
        assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL

    before = signal.signal(signal.SIGTERM, handler)
    try:
        run_with_keyboard(terminal, test)
        assert signal.getsignal(signal.SIGTERM) is handler
        assert signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def child(tmp_path: Path) -> Iterator[pexpect.spawn[str]]:
    spawned = pexpect.spawn(
        sys.executable, ["-c", CHILD_CODE, str(tmp_path / "lines")], timeout=20, echo=True, encoding="utf-8"
    )
    yield spawned
    spawned.close(force=True)


def terminal_attributes(child: pexpect.spawn[str]) -> list[object]:
    return termios.tcgetattr(child.fileno())


def test_a_child_process_reads_a_paste_from_its_terminal(child: pexpect.spawn[str], tmp_path: Path) -> None:
    child.expect_exact("READY")
    child.send("\x1b[200~" + PASTE + "\x1b[201~\r")
    child.expect_exact("TOOK")
    assert "c0de" not in str(child.before)
    child.send("\x04")
    child.expect_exact("ENDED")
    child.expect_exact(pexpect.EOF)
    assert (tmp_path / "lines").read_text(encoding="utf-8") == f"{PASTE!r}\n"


@pytest.mark.parametrize(
    ("key", "number"),
    [("\x03", signal.SIGINT), ("\x1c", signal.SIGQUIT), (None, signal.SIGTERM), (None, signal.SIGINT)],
)
def test_a_signal_restores_the_terminal(
    child: pexpect.spawn[str], key: str | None, number: signal.Signals
) -> None:
    before = terminal_attributes(child)
    child.expect_exact("READY")
    assert terminal_attributes(child) != before
    if key is None:
        child.kill(number)
    else:
        child.send(key)
    child.expect_exact("\x1b[?2004l")
    child.expect_exact(pexpect.EOF)
    after = terminal_attributes(child)
    child.close()
    assert after == before
    assert child.signalstatus == number


def test_control_z_without_a_shell_does_not_hang(child: pexpect.spawn[str], tmp_path: Path) -> None:
    child.expect_exact("READY")
    child.send("\x1a")
    child.expect_exact("\x1b[?2004h")
    child.send("still here\r")
    child.expect_exact("TOOK")
    assert (tmp_path / "lines").read_text(encoding="utf-8") == "'still here'\n"


def test_control_z_restores_the_terminal_and_fg_takes_it_again(tmp_path: Path) -> None:
    lines, script = tmp_path / "lines", tmp_path / "child.py"
    script.write_text(CHILD_CODE, encoding="utf-8")
    environ = {**os.environ, "PS1": "PROMPT> ", "PYTHONPATH": str(Path.cwd()), "TERM": "dum"}
    shell = pexpect.spawn("bash", ["--norc", "--noprofile", "-i"], env=environ, timeout=20, encoding="utf-8")
    try:
        shell.expect_exact("PROMPT> ")
        shell.sendline(f"{sys.executable} {script} {lines}")
        shell.expect_exact("READY")
        shell.send("half ")
        shell.expect_exact("[5 characters]")
        shell.send("\x1a")
        shell.expect_exact("\x1b[?2004l")
        shell.expect_exact("PROMPT> ")
        shell.sendline("stty -a | grep -o '[-]*icanon'")
        shell.expect(r"\n(-?icanon)")
        assert isinstance(shell.match, re.Match)
        assert shell.match[1] == "icanon"
        shell.expect_exact("PROMPT> ")
        shell.sendline("fg")
        shell.expect_exact("\x1b[?2004h")
        shell.send("and half\r")
        shell.expect_exact("TOOK")
        shell.send("\x04")
        shell.expect_exact("ENDED")
        shell.expect_exact("PROMPT> ")
        assert lines.read_text(encoding="utf-8") == "'half and half'\n"
    finally:
        shell.close(force=True)


def read_all(read_end: int) -> list[str | None]:
    async def main() -> list[str | None]:
        async with ThreadedLineSource(lambda: os.read(read_end, 4096)) as lines:
            read_lines: list[str | None] = []
            while not read_lines or read_lines[-1] is not None:
                read_lines.append(await lines.read_line())
            assert await lines.read_line() is None
            return read_lines

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", [None]),
        (b"one\ntwo\r\n\nlast", ["one\ntwo\n\nlast", None]),
        (b"x" * 16_000 + b"\n", ["x" * 16_000, None]),
        (b"x" * 50_000 + b"\nnext\n", ["x" * MAX_PIPED_CHARS, None]),
        (b"\xff\n", ["\ufffd", None]),
    ],
)
def test_lines_are_read_from_a_pipe_or_a_file(
    tmp_path: Path, data: bytes, expected: list[str | None]
) -> None:
    (tmp_path / "file").write_bytes(data)
    file = os.open(tmp_path / "file", os.O_RDONLY)
    assert read_all(file) == expected
    os.close(file)
    read_end, write_end = os.pipe()

    def write() -> None:
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    assert read_all(read_end) == expected
    writer.join()
    os.close(read_end)


def test_reading_a_pipe_does_not_block_the_loop_and_can_be_cancelled() -> None:
    read_end, write_end = os.pipe()

    async def main() -> None:
        lines = ThreadedLineSource(lambda: os.read(read_end, 4096))
        waiting = asyncio.create_task(lines.read_line())
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        os.write(write_end, b"later\n")
        assert await lines.read_line() == "later"
        os.close(write_end)
        assert await lines.read_line() is None

    asyncio.run(main())
    os.close(read_end)


def test_a_closed_standard_input_is_end_of_input() -> None:
    assert read_all(-1) == [None]


def test_standard_input_is_a_keyboard_only_if_it_is_a_terminal(
    terminal: PseudoTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "isatty", lambda fd: False)
    assert isinstance(open_line_source(), ThreadedLineSource)
    before = os.dup(0)
    try:
        os.dup2(terminal.slave, 0)
        monkeypatch.setattr(os, "isatty", lambda fd: fd == 0)
        assert isinstance(open_line_source(), Keyboard)
    finally:
        os.dup2(before, 0)
        os.close(before)


def test_a_child_without_a_terminal_reads_its_pipe(tmp_path: Path) -> None:
    import subprocess

    process = subprocess.run(
        [sys.executable, "-c", CHILD_CODE, str(tmp_path / "lines")],
        input=f"{PASTE[:16_000]}\n".encode(),
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert re.split(rb"\s+", process.stdout.strip()) == [b"READY", b"TOOK", b"ENDED"]
    assert not process.stderr
    assert (tmp_path / "lines").read_text(encoding="utf-8") == f"{PASTE[:16_000]!r}\n"
