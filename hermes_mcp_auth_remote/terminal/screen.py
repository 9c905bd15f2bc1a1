"""Show a login on a terminal: the address unbroken on its own line, the QR code only if it fits."""

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

# If the countdown cannot be updated in place, print it once at each of these seconds before the end.
_COUNTDOWN_MARKS_SECONDS = frozenset({60, 300})


@dataclass(frozen=True, slots=True)
class PlainScreen:
    """Shows a login as text. `columns` and `rows` are the size of the terminal, 0 without a terminal."""

    stream: TextIO
    columns: int
    rows: int
    clock: Clock
    with_qr: bool = True
    colour: bool = True
    # True if the terminal obeys escape sequences: the countdown then updates in place.
    in_place: bool = True
    # Returns False if the operator has disabled the device flow (`AuthService.allows_device`).
    allows_device: Callable[[Login], bool] = lambda _login: True

    def show(self, login: Login, *, browser_opened: bool, port: int | None) -> None:
        """Show a login that waits. The next step comes last, because a tall QR code scrolls the screen."""
        columns = self.columns or MAX_COLUMNS
        self._print_lines(login_summary(login, self.clock(), columns), "")
        if login.device_authorization is not None:
            self._show_code(login, login.device_authorization, columns)
            return
        if self.with_qr and self.columns and not browser_opened:
            self._print_lines(*self._qr_lines(login.authorization_url))
        # Do not wrap or indent the address: the user copies the whole line.
        self._print_lines(login.authorization_url, "")
        allows_device = self.allows_device(login)
        self._print_lines(
            next_step(
                login, browser_opened=browser_opened, port=port, columns=columns, allows_device=allows_device
            ),
            "",
        )

    def _show_code(self, login: Login, code: DeviceAuthorization, columns: int) -> None:
        if self.with_qr and self.columns:
            self._print_lines(*self._qr_lines(code.verification_uri_complete or code.verification_uri))
        user_code = replace_unprintable(code.user_code)
        bold = ("\x1b[1m", "\x1b[m") if self.colour and self.columns else ("", "")
        self._print_lines(verification_uri_hint(code, columns), "", code.verification_uri, "")
        # Print the address and the code on their own lines, for a double click and for screen readers.
        self._print_lines(
            user_code_hint(code, columns), "", user_code.join(bold), "", next_step_for_device(columns)
        )
        self.show_countdown(login, on_new_line=True)

    def show_refusal(self, error: McpAuthError) -> None:
        """Show why an answer was refused."""
        # The advice of StillExchanging says how the login continues.
        reminder = [] if isinstance(error, StillExchanging) else ["  The login still waits."]
        self._print_lines(error_text(error, self.columns), *reminder)

    def show_countdown(self, login: Login, *, on_new_line: bool = False) -> None:
        """Show how long the code is valid: in place on a terminal, otherwise only near the end."""
        seconds_left = login.expires_at - self.clock()
        line = countdown(seconds_left)
        if self.columns <= len(line) or not self.in_place:
            if not on_new_line and int(seconds_left) in _COUNTDOWN_MARKS_SECONDS:
                self._print_lines(f"The code is valid for {display_duration(seconds_left)} more.")
        elif on_new_line:
            self._print_lines(line)
        else:
            # The cursor is on the line below, which may already contain typed text.
            self.stream.write(f"\x1b7\x1b[1A\r{line}\x1b[K\x1b8")
            self.stream.flush()

    def show_expiry(self, login: Login) -> None:
        """Show that the user code has expired and that Enter requests another code."""
        name = replace_unprintable(login.key.server_name)
        message = f"The code for {name} has expired. Press Enter for a new code, or Ctrl-C to stop."
        self._print_lines(wrap_text(message, self.columns))

    def _qr_lines(self, url: str) -> list[str]:
        blocks = render_terminal_blocks(url, self.columns, colour=self.colour)
        if blocks is None:
            return [
                wrap_text("(No QR code: it would be too wide for this window.)", self.columns),
                "",
            ]
        if not _can_encode(blocks, self.stream.encoding):
            return []
        is_too_tall = self.rows and blocks.count("\n") > self.rows
        hint = "(The QR code is taller than this window. To scan it, enlarge the window and scroll up.)"
        return [blocks, *([wrap_text(hint, self.columns), ""] if is_too_tall else [])]

    def _print_lines(self, *lines: str) -> None:
        print(*lines, sep="\n", file=self.stream, flush=True)


def terminal_size(stream: TextIO) -> tuple[int, int]:
    """Return the columns and rows of a stream's terminal, zeros if the stream is not a terminal."""
    try:
        columns, rows = os.get_terminal_size(stream.fileno())
    except (AttributeError, OSError, ValueError):  # AttributeError: a closed standard stream is None
        return 0, 0
    return columns, rows


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True
