"""A login on a terminal's screen: the address whole on a line of its own, the QR code only where it fits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TextIO

from hermes_mcp_auth_remote.errors import PasteRefused
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.qr import terminal_blocks
from hermes_mcp_auth_remote.terminal.words import WIDEST, filled, introduction, next_step, trouble
from hermes_mcp_auth_remote.values import Clock


@dataclass(frozen=True, slots=True)
class PlainScreen:
    """Text for people; `columns` and `rows` are those of the stream's terminal, 0 where there is none."""

    stream: TextIO
    columns: int
    rows: int
    clock: Clock
    with_qr: bool = True
    colour: bool = True

    def show(self, login: Login, *, opened: bool, port: int | None) -> None:
        """Show a login that waits. What the person needs first comes last: a tall QR code scrolls."""
        columns = self.columns or WIDEST
        self._say(introduction(login, self.clock(), columns), "")
        if self.with_qr and self.columns and not opened:
            self._say(*self._qr(login.authorization_url))
        # Not wrapped, not indented, nothing around it: it is copied whole.
        self._say(login.authorization_url, "")
        self._say(next_step(login, opened=opened, port=port, columns=columns), "")

    def refused(self, error: PasteRefused) -> None:
        """Say why an answer did not count."""
        self._say(trouble(error, self.columns), "  The login still waits.")

    def _qr(self, url: str) -> list[str]:
        blocks = terminal_blocks(url, self.columns, colour=self.colour)
        if blocks is None:
            return [
                filled("(No QR code: for this address it is too wide for this window.)", self.columns),
                "",
            ]
        if not _can_encode(blocks, self.stream.encoding):
            return []
        too_tall = self.rows and blocks.count("\n") > self.rows
        hint = "(To scan the code, which is taller than this window, enlarge it and scroll up.)"
        return [blocks, *([filled(hint, self.columns), ""] if too_tall else [])]

    def _say(self, *lines: str) -> None:
        print(*lines, sep="\n", file=self.stream, flush=True)


def size(stream: TextIO) -> tuple[int, int]:
    """Return columns and rows of the terminal that a stream goes to, zeros where it goes to none."""
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (AttributeError, OSError, ValueError):  # AttributeError: a stream that was closed is None
        return 0, 0
    return columns, rows


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True
