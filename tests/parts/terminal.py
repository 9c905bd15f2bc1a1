"""A real terminal: a command in tmux, with a screen to read, keys to press and text to paste."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.parts.needs import program

POLL_SECONDS = 0.05
START_SECONDS = 20.0
# The status line would take a row.
CONFIG = """\
set -g status off
set -g default-shell /bin/sh
set -g default-terminal tmux-256color
set -s escape-time 0
"""
# The command's parent says in the pane's title how it ended, behind all its output, and keeps the pane open:
# tmux 3.3a drops what it has not read yet when a pane's first process ends, and at times misses that end.
PARENT = r"""trap : INT QUIT; "$@"; printf '\033]2;ended %d\007' $?; exec sleep infinity"""
# What a command needs of its surroundings; nothing else of the test's own environment gets in.
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Terminal:
    """One pane of a tmux server of its own."""

    tmux: tuple[str, ...]

    def send(self, text: str) -> None:
        """Type the text as it is, without Enter."""
        self._run("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: Enter, C-c, Escape, Up."""
        self._run("send-keys", *keys)

    def paste(self, text: str) -> None:
        """Paste as a terminal does: bracketed where the program asked for it, newlines as Enter."""
        # By stdin, not by argument: what a test pastes may be a secret that its tripwire watches.
        self._run("load-buffer", "-b", "pasted", "-", stdin=text)
        self._run("paste-buffer", "-p", "-d", "-b", "pasted")

    def resize(self, columns: int, rows: int) -> None:
        """Give the window another size; the program gets SIGWINCH."""
        self._run("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self) -> str:
        """Return the screen as it looks, row by row, without the empty rows below."""
        return self._run("capture-pane", "-p").rstrip()

    def joined(self) -> str:
        """Return the screen and what scrolled off it, with wrapped lines joined: for long URLs."""
        return self._run("capture-pane", "-p", "-J", "-S", "-").rstrip()

    def exit_status(self) -> int | None:
        """Return the command's exit status (128 + the signal's number, as in a shell), None while it runs."""
        word, _, status = self._run("display-message", "-p", "#{pane_title}").strip().partition(" ")
        return int(status) if word == "ended" else None

    def wait_for(self, text: str, seconds: float = 20) -> str:
        """Wait until the text is on the screen, or was and scrolled off; returns `joined()`."""
        end = time.monotonic() + seconds
        while True:
            # The status first: nothing comes behind it.
            status = self.exit_status()
            seen = self.joined()
            if text in seen:
                return seen
            if status is not None or time.monotonic() > end:
                why = f"the command ended with {status}" if status is not None else f"{seconds} s passed"
                raise AssertionError(f"{text!r} never showed: {why}. The screen:\n{seen}")
            time.sleep(POLL_SECONDS)

    def wait_for_exit(self, seconds: float = 20) -> int:
        """Wait until the command ended; returns its exit status."""
        end = time.monotonic() + seconds
        while (status := self.exit_status()) is None:
            if time.monotonic() > end:
                raise AssertionError(f"The command still ran after {seconds} s. The screen:\n{self.joined()}")
            time.sleep(POLL_SECONDS)
        return status

    def _run(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [*self.tmux, *arguments], input=stdin, capture_output=True, encoding="utf-8", check=False
        )
        if done.returncode:
            raise AssertionError(f"tmux {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout


@contextmanager
def terminal(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    columns: int = 80,
    rows: int = 24,
    cwd: Path | None = None,
) -> Iterator[Terminal]:
    """Run a command in a terminal of that size; it is killed with the block.

    `env` is all that the command sees beside PATH, HOME and the like, LANG=C.UTF-8 and what tmux sets.
    """
    tmux = program("tmux", "tmux")
    # A socket's path may have 107 bytes, and pytest's folders are longer than that.
    with tempfile.TemporaryDirectory(prefix="tmux-") as name:
        config = Path(name, "config")
        config.write_text(CONFIG, "utf-8")
        client = (tmux, "-u", "-N", "-S", str(Path(name, "socket")), "-f", str(config))
        inherited = {key: os.environ[key] for key in INHERITED if key in os.environ}
        surroundings = inherited | {"LANG": "C.UTF-8", "TERM": "xterm-256color"} | dict(env or {})
        # In the foreground: a server that made itself a daemon could not be waited for.
        server = subprocess.Popen(
            [tmux, "-D", "-u", "-S", str(Path(name, "socket")), "-f", str(config)],
            env=surroundings,
            stdin=subprocess.DEVNULL,
        )
        try:
            screen = Terminal(client)
            size = ("-x", str(columns), "-y", str(rows))
            folder = ("-c", str(cwd or Path.cwd()))
            _retry(server, screen, "new-session", "-d", *size, *folder, "sh", "-c", PARENT, "sh", *command)
            yield screen
        finally:
            server.terminate()
            server.wait()


def _retry(server: subprocess.Popen[bytes], screen: Terminal, *arguments: str) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            screen._run(*arguments)
        except AssertionError as error:
            # Until the server has made its socket.
            early = "no server running" in str(error) or "error connecting" in str(error)
            if not early or server.poll() is not None or time.monotonic() > end:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return
