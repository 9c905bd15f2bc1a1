"""Show a login on a terminal: the address unbroken on its own line, the QR code only if it fits."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TextIO

from hermes_mcp_auth_remote.errors import McpAuthError, StillExchanging
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.phrases import display_duration, replace_unprintable
from hermes_mcp_auth_remote.qr import render_terminal_blocks
from hermes_mcp_auth_remote.terminal.forwarding import ssh_forward_command
from hermes_mcp_auth_remote.terminal.text import (
    MAX_COLUMNS,
    NextStepOptions,
    countdown,
    error_text,
    login_summary,
    next_step,
    next_step_for_device,
    qr_content_hint,
    user_code_hint,
    verification_uri_hint,
    wrap_text,
)
from hermes_mcp_auth_remote.terminal.window import BOLD, RESET, colour_mark, terminal_size
from hermes_mcp_auth_remote.values import Clock

# If the countdown cannot be updated in place, print it once at each of these seconds before the end.
_COUNTDOWN_MARKS_SECONDS = frozenset({60, 300})
# The lines below the text of a login: the countdown and the prompt.
_STATUS_ROWS = 2
# The first sequence switches to the second screen of the terminal and clears it. The other switches back.
_SECOND_SCREEN_ON, _SECOND_SCREEN_OFF = "\x1b[?1049h\x1b[2J\x1b[H", "\x1b[?1049l"
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m|\x1b\]8;[^\x1b]*\x1b\\")


@dataclass(slots=True)
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
    # True if the user types at a terminal: commands such as "qr" are then offered.
    at_keyboard: bool = False
    # False if standard input is closed.
    can_paste: bool = True
    # False if this command only shows the login, and another one completes it.
    waits: bool = True
    # True if the command tries to open a browser. If that fails, the first text of a login says so.
    expects_browser: bool = False
    # True if the terminal supports hyperlinks (OSC 8): an address that wraps then stays one link.
    with_links: bool = False
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    _is_qr_shown: bool = field(default=False, init=False)

    def show(self, login: Login, *, browser_opened: bool, port: int | None) -> None:
        """Show a login that waits.

        The four facts (server, authorization server, access, deadline) come before the address. If the window
        is too low for all of the text, they follow again at the end.
        """
        columns = self.columns or MAX_COLUMNS
        summary = login_summary(login, self.clock(), columns)
        has_qr = self.with_qr and self.columns > 0 and not browser_opened
        blocks = self._render_qr(login) if has_qr else None
        is_qr_drawn = blocks is not None and self._fits(
            summary, blocks, self._steps(login, columns, browser_opened, port, has_qr=True, offers_qr=False)
        )
        offers_qr = blocks is not None and not is_qr_drawn and self.at_keyboard and self.waits
        steps = self._steps(login, columns, browser_opened, port, has_qr=is_qr_drawn, offers_qr=offers_qr)
        qr_lines = [blocks or ""] if is_qr_drawn else []
        if has_qr and not is_qr_drawn and not offers_qr and (note := self._missing_qr_note(login)):
            qr_lines = [wrap_text(note, self.columns), ""]
        self._print_lines(summary, "", *qr_lines, steps, "")
        if not self._fits(summary, *qr_lines, steps):
            self._print_lines(summary, "")
        self.show_countdown(login, on_new_line=True)
        # No later text of this login has to do with a browser of this machine.
        self.expects_browser = False

    def _steps(
        self,
        login: Login,
        columns: int,
        browser_opened: bool,  # noqa: FBT001  private
        port: int | None,
        *,
        has_qr: bool,
        offers_qr: bool,
    ) -> str:
        """Return the address and what to do with it."""
        if login.device_authorization is not None:
            return self._device_steps(login.device_authorization, columns, has_qr=has_qr, offers_qr=offers_qr)
        options = NextStepOptions(
            allows_device=self.allows_device(login),
            can_paste=self.can_paste,
            waits=self.waits,
            forward_command=(
                "" if port is None else ssh_forward_command(self.environ, login.request.redirect_uri)
            ),
            offers_qr=offers_qr,
            browser_failed=self.expects_browser and not browser_opened,
        )
        steps = next_step(login, browser_opened=browser_opened, port=port, columns=columns, options=options)
        # Do not wrap or indent the address: the user copies the whole line.
        return "\n".join((self._link(login.authorization_url), "", steps))

    def _device_steps(self, code: DeviceAuthorization, columns: int, *, has_qr: bool, offers_qr: bool) -> str:
        user_code = replace_unprintable(code.user_code)
        lines = [
            verification_uri_hint(columns, has_qr=has_qr),
            "",
            self._link(code.verification_uri),
            "",
            # Print the address and the code on their own lines, for a double click and for screen readers.
            user_code_hint(code, columns),
            "",
            self._paint(user_code, BOLD),
            "",
        ]
        if (has_qr or offers_qr) and (content := qr_content_hint(code, columns)):
            lines.append(content)
        lines.append(
            next_step_for_device(columns, can_type=self.can_paste, waits=self.waits, offers_qr=offers_qr)
        )
        return "\n".join(lines)

    def show_refusal(self, error: McpAuthError) -> None:
        """Show why an answer was refused."""
        # The advice of StillExchanging says how the login continues.
        reminder = [] if isinstance(error, StillExchanging) else ["  The login still waits."]
        text = error_text(error, self.columns)
        self._print_lines(colour_mark(text) if self.colour and self.columns else text, *reminder)

    def show_refused_requests(self, count: int) -> None:
        """Show how many requests to the listener did not belong to this login."""
        message = f"({count} requests to this address did not belong to this login. It still waits.)"
        self._print_lines(wrap_text(message, self.columns))

    def show_countdown(self, login: Login, *, on_new_line: bool = False) -> None:
        """Show how long the login waits: in place on a terminal, otherwise only near the end."""
        if self._is_qr_shown or not self.waits:
            return
        seconds_left = login.expires_at - self.clock()
        line = countdown(login, seconds_left, self.columns)
        if self.columns <= len(line) or not self.in_place:
            if not on_new_line and int(seconds_left) in _COUNTDOWN_MARKS_SECONDS:
                subject = "The code is valid" if login.poll_state is not None else "The login is open"
                self._print_lines(f"{subject} for {display_duration(seconds_left)} more.")
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

    def show_qr(self, login: Login) -> bool:
        """Show the QR code of a login alone, until `hide_qr`. Return False if it does not fit."""
        columns, rows = terminal_size(self.stream)
        if columns and rows:
            # The user may have enlarged the window.
            self.columns, self.rows = columns, rows
        blocks = self._render_qr(login)
        if blocks is None:
            self._print_lines(wrap_text(self._missing_qr_note(login) or "(No QR code.)", self.columns))
        elif 0 < self.rows <= blocks.count("\n"):
            needed = blocks.count("\n") + 1
            note = f"(The QR code needs {needed} rows; this window has {self.rows}."
            self._print_lines(wrap_text(f'{note} Enlarge it and type "qr" again.)', self.columns))
        elif not self.in_place:
            self._print_lines(blocks)
        else:
            self._is_qr_shown = True
            # No line feed at the end: it could scroll the first row away.
            self.stream.write(f"{_SECOND_SCREEN_ON}{blocks}Press Enter to go back. ")
            self.stream.flush()
        return self._is_qr_shown

    def hide_qr(self) -> None:
        """Show again what was on the screen before `show_qr`."""
        if self._is_qr_shown:
            self._is_qr_shown = False
            self.stream.write(_SECOND_SCREEN_OFF)
            self.stream.flush()

    def _render_qr(self, login: Login) -> str | None:
        """Return the QR code for the address, None if it is too wide or cannot be encoded."""
        blocks = render_terminal_blocks(_qr_content(login), self.columns, colour=self.colour)
        return blocks if blocks is not None and _can_encode(blocks, self.stream.encoding) else None

    def _missing_qr_note(self, login: Login) -> str:
        blocks = render_terminal_blocks(_qr_content(login), self.columns, colour=self.colour)
        if blocks is None:
            return "(No QR code: it would be too wide for this window.)"
        if not _can_encode(blocks, self.stream.encoding):
            return ""
        return "(No QR code: it would be too tall for this window.)"

    def _fits(self, *texts: str) -> bool:
        """True if the texts and the status lines fit the window together."""
        if not self.rows:
            return True
        text = "\n".join(texts)
        # An address that is longer than a line takes several lines.
        width = max(self.columns, 1)
        row_count = sum(max(-(-_displayed_length(line) // width), 1) for line in text.split("\n"))
        return row_count + 2 + _STATUS_ROWS <= self.rows

    def _link(self, url: str) -> str:
        url = replace_unprintable(url)
        if not (self.with_links and 0 < self.columns < len(url)):
            return url
        return f"\x1b]8;id=login;{url}\x1b\\{url}\x1b]8;;\x1b\\"

    def _paint(self, text: str, colour: str) -> str:
        return f"{colour}{text}{RESET}" if self.colour and self.columns else text

    def _print_lines(self, *lines: str) -> None:
        self.hide_qr()
        print(*lines, sep="\n", file=self.stream, flush=True)


def _qr_content(login: Login) -> str:
    code = login.device_authorization
    return (
        login.authorization_url if code is None else code.verification_uri_complete or code.verification_uri
    )


def _displayed_length(line: str) -> int:
    """Return the number of columns of a line with escape sequences for colours and links."""
    return len(_ESCAPES.sub("", line)) if "\x1b" in line else len(line)


def _can_encode(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return False
    return True
