"""A login on a terminal's screen: the address whole on a line of its own, the QR code only where it fits."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

from hermes_mcp_auth_remote.errors import McpAuthError, StillExchanging
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.phrases import display_duration, replace_unprintable
from hermes_mcp_auth_remote.qr import render_terminal_blocks
from hermes_mcp_auth_remote.terminal.text import (
    MAX_COLUMNS,
    countdown,
    error_text,
    login_summary,
    next_step,
    next_step_for_device,
    user_code_hint,
    verification_uri_hint,
    wrap_text,
)
from hermes_mcp_auth_remote.values import Clock

# Seconds before the end at which it is said once more where it cannot be said in place.
_COUNTDOWN_MARKS_SECONDS = frozenset({60, 300})


@dataclass(frozen=True, slots=True)
class PlainScreen:
    """Text for people; `columns` and `rows` are those of the stream's terminal, 0 where there is none."""

    stream: TextIO
    columns: int
    rows: int
    clock: Clock
    with_qr: bool = True
    colour: bool = True
    # Where the terminal obeys escapes: the countdown stays on its line.
    in_place: bool = True
    # False where the operator has turned devices off (`AuthService.allows_device`).
    allows_device: Callable[[Login], bool] = lambda _login: True

    def show(self, login: Login, *, browser_opened: bool, port: int | None) -> None:
        """Show a login that waits. What the person needs first comes last: a tall QR code scrolls."""
        columns = self.columns or MAX_COLUMNS
        self._print_lines(login_summary(login, self.clock(), columns), "")
        if login.device_authorization is not None:
            self._show_code(login, login.device_authorization, columns)
            return
        if self.with_qr and self.columns and not browser_opened:
            self._print_lines(*self._qr_lines(login.authorization_url))
        # Not wrapped, not indented, nothing around it: it is copied whole.
        self._print_lines(login.authorization_url, "")
        device = self.allows_device(login)
        self._print_lines(
            next_step(login, browser_opened=browser_opened, port=port, columns=columns, allows_device=device),
            "",
        )

    def _show_code(self, login: Login, code: DeviceAuthorization, columns: int) -> None:
        if self.with_qr and self.columns:
            self._print_lines(*self._qr_lines(code.verification_uri_complete or code.verification_uri))
        user_code = replace_unprintable(code.user_code)
        bold = ("\x1b[1m", "\x1b[m") if self.colour and self.columns else ("", "")
        self._print_lines(verification_uri_hint(code, columns), "", code.verification_uri, "")
        # Each alone on its line: a double click, or a screen reader, gets it whole.
        self._print_lines(
            user_code_hint(code, columns), "", user_code.join(bold), "", next_step_for_device(columns)
        )
        self.show_countdown(login, on_new_line=True)

    def show_refusal(self, error: McpAuthError) -> None:
        """Say why an answer did not count."""
        # That one says itself how the login goes on.
        waits = [] if isinstance(error, StillExchanging) else ["  The login still waits."]
        self._print_lines(error_text(error, self.columns), *waits)

    def show_countdown(self, login: Login, *, on_new_line: bool = False) -> None:
        """Say how long the code is still good: in place on a terminal, elsewhere only towards the end."""
        left = login.expires_at - self.clock()
        line = countdown(left)
        if self.columns <= len(line) or not self.in_place:
            if not on_new_line and int(left) in _COUNTDOWN_MARKS_SECONDS:
                self._print_lines(f"The code is good for {display_duration(left)} more.")
        elif on_new_line:
            self._print_lines(line)
        else:
            # The cursor is on the line below, where something may be typed already.
            self.stream.write(f"\x1b7\x1b[1A\r{line}\x1b[K\x1b8")
            self.stream.flush()

    def show_expiry(self, login: Login) -> None:
        """Say that a code has expired, and that Enter gets another one."""
        name = replace_unprintable(login.key.server_name)
        said = f"The code for {name} has expired. Press Enter for a new one; Ctrl-C ends this."
        self._print_lines(wrap_text(said, self.columns))

    def _qr_lines(self, url: str) -> list[str]:
        blocks = render_terminal_blocks(url, self.columns, colour=self.colour)
        if blocks is None:
            return [
                wrap_text("(No QR code: for this address it is too wide for this window.)", self.columns),
                "",
            ]
        if not _can_encode(blocks, self.stream.encoding):
            return []
        too_tall = self.rows and blocks.count("\n") > self.rows
        hint = "(To scan the code, which is taller than this window, enlarge it and scroll up.)"
        return [blocks, *([wrap_text(hint, self.columns), ""] if too_tall else [])]

    def _print_lines(self, *lines: str) -> None:
        print(*lines, sep="\n", file=self.stream, flush=True)


def terminal_size(stream: TextIO) -> tuple[int, int]:
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
