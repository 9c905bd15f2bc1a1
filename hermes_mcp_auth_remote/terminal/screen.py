"""A login on a terminal's screen: the address whole on a line of its own, the QR code only where it fits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TextIO

from hermes_mcp_auth_remote.errors import PasteRefused
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.qr import terminal_blocks
from hermes_mcp_auth_remote.terminal.words import introduction, next_step, trouble
from hermes_mcp_auth_remote.values import Clock


@dataclass(frozen=True, slots=True)
class PlainScreen:
    """Text for people, written to `stream`; `columns` is the terminal's width, 0 where there is none."""

    stream: TextIO
    columns: int
    clock: Clock
    with_qr: bool = True

    def show(self, login: Login, *, opened: bool, port: int | None) -> None:
        """Show a login that waits."""
        self._say(introduction(login, self.clock()), "", login.authorization_url, "")
        if self.with_qr and not opened:
            self._say_qr(login.authorization_url)
        self._say(next_step(login, opened=opened, port=port), "")

    def refused(self, error: PasteRefused) -> None:
        """Say why an answer did not count."""
        self._say(f"✗ {trouble(error)}", "  The login still waits.")

    def _say_qr(self, url: str) -> None:
        blocks = terminal_blocks(url, self.columns) if self.columns else None
        if blocks is not None:
            self._say(blocks)
        elif self.columns:
            self._say("(No QR code: this address makes one that is too wide for this terminal.)", "")

    def _say(self, *lines: str) -> None:
        print(*lines, sep="\n", file=self.stream, flush=True)


def width(stream: TextIO) -> int:
    """Return the columns of the terminal that a stream goes to, 0 where it goes to none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        return 0
