"""A real terminal: run a command in tmux, read its screen, press keys and paste text."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts.requirements import find_program

POLL_SECONDS = 0.05
START_SECONDS = 20.0
# `status off`: the status line would take a row.
CONFIG = """\
set -g status off
set -g default-shell /bin/sh
set -g default-terminal tmux-256color
set -s escape-time 0
"""
# The command's parent writes the exit status to the pane's title, after all output, and keeps the pane open:
# tmux 3.3a drops unread output when a pane's first process ends, and sometimes misses that end.
PARENT_SCRIPT = r"""trap : INT QUIT; "$@"; printf '\033]2;ended %d\007' $?; exec sleep infinity"""
# The environment variables that a command inherits from the test.
INHERITED_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR")


@dataclass(frozen=True, slots=True)
class Terminal:
    """One pane in its own tmux server."""

    tmux: tuple[str, ...]
    # A new pane gets PATH from the tmux command that creates it, not from the server.
    environ: Mapping[str, str] = field(repr=False)

    def send(self, text: str) -> None:
        """Type the text literally, without Enter."""
        self._run_tmux("send-keys", "-l", "--", text)

    def press(self, *keys: str) -> None:
        """Press keys by tmux's names: Enter, C-c, Escape, Up."""
        self._run_tmux("send-keys", *keys)

    def paste(self, text: str) -> None:
        """Paste as a terminal does: bracketed if the program has enabled that, and newlines as Enter."""
        # Pass the text by stdin and not in argv, because it may be a secret.
        self._run_tmux("load-buffer", "-b", "pasted", "-", stdin=text)
        self._run_tmux("paste-buffer", "-p", "-d", "-b", "pasted")

    def resize(self, columns: int, rows: int) -> None:
        """Resize the window; the program gets SIGWINCH."""
        self._run_tmux("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self) -> str:
        """Return the rows of the screen without the empty rows at its end."""
        return self._run_tmux("capture-pane", "-p").rstrip()

    def full_text(self) -> str:
        """Return the screen and its scrollback, with wrapped lines joined (for long URLs)."""
        return self._run_tmux("capture-pane", "-p", "-J", "-S", "-").rstrip()

    def coloured_text(self) -> str:
        """Return `full_text()` with the escape sequences of its colours."""
        return self._run_tmux("capture-pane", "-p", "-e", "-J", "-S", "-").rstrip()

    def exit_status(self) -> int | None:
        """Return the command's exit status (128 + signal number, as in a shell); None while it runs."""
        word, _, status = self._run_tmux("display-message", "-p", "#{pane_title}").strip().partition(" ")
        return int(status) if word == "ended" else None

    def wait_for(self, text: str, seconds: float = 20) -> str:
        """Wait until the text is on the screen or in its scrollback; return `full_text()`."""
        deadline = time.monotonic() + seconds
        while True:
            # Read the status first: no output follows it.
            status = self.exit_status()
            output = self.full_text()
            if text in output:
                return output
            if status is not None or time.monotonic() > deadline:
                reason = f"the command ended with {status}" if status is not None else f"{seconds} s passed"
                raise AssertionError(f"{text!r} did not appear: {reason}. The screen:\n{output}")
            time.sleep(POLL_SECONDS)

    def wait_for_exit(self, seconds: float = 20) -> int:
        """Wait until the command ends; return its exit status."""
        deadline = time.monotonic() + seconds
        while (status := self.exit_status()) is None:
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"The command still ran after {seconds} s. The screen:\n{self.full_text()}"
                )
            time.sleep(POLL_SECONDS)
        return status

    def _run_tmux(self, *arguments: str, stdin: str = "") -> str:
        result = subprocess.run(
            [*self.tmux, *arguments],
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            env=self.environ,
            check=False,
        )
        if result.returncode:
            raise AssertionError(f"tmux {arguments[0]} failed: {result.stderr.strip()}")
        return result.stdout


@contextmanager
def open_terminal(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    columns: int = 80,
    rows: int = 24,
    cwd: Path | None = None,
) -> Iterator[Terminal]:
    """Run a command in a terminal of this size, and kill the command when the block ends.

    The command's environment is `env`, INHERITED_VARIABLES, LANG=C.UTF-8 and the variables of tmux.
    """
    tmux = find_program("tmux", "tmux")
    # A socket's path may have 107 bytes; pytest's folders are longer.
    with tempfile.TemporaryDirectory(prefix="tmux-") as name:
        config = Path(name, "config")
        config.write_text(CONFIG, "utf-8")
        client = (tmux, "-u", "-N", "-S", str(Path(name, "socket")), "-f", str(config))
        inherited = {key: os.environ[key] for key in INHERITED_VARIABLES if key in os.environ}
        environment = inherited | {"LANG": "C.UTF-8", "TERM": "xterm-256color"} | dict(env or {})
        # Run the server in the foreground, because this process cannot wait for a daemon.
        server = subprocess.Popen(
            [tmux, "-D", "-u", "-S", str(Path(name, "socket")), "-f", str(config)],
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        try:
            screen = Terminal(client, environment)
            size = ("-x", str(columns), "-y", str(rows))
            folder = ("-c", str(cwd or Path.cwd()))
            _run_when_ready(
                server, screen, "new-session", "-d", *size, *folder, "sh", "-c", PARENT_SCRIPT, "sh", *command
            )
            yield screen
        finally:
            server.terminate()
            server.wait()


def _run_when_ready(server: subprocess.Popen[bytes], screen: Terminal, *arguments: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            screen._run_tmux(*arguments)
        except AssertionError as error:
            # The server has not created its socket yet.
            is_starting = "no server running" in str(error) or "error connecting" in str(error)
            if not is_starting or server.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(POLL_SECONDS)
        else:
            return
