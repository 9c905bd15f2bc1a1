"""Format logins, connections and errors as text for a terminal.

Names, accounts and scopes come from servers and other people. `replace_unprintable` removes the control
characters from them, so that they cannot control the terminal.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from hermes_mcp_auth_remote.commands import finish_command
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.client import supports_device_flow
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host
from hermes_mcp_auth_remote.phrases import (
    ACCESS_LABEL,
    LASTS_LABEL,
    REFRESHES_ITSELF,
    SERVER_LABEL,
    SERVER_SAYS,
    TOKEN_HOSTS_LABEL,
    UNTIL,
    UNTIL_PROVIDER_ENDS_IT,
    connection_rows,
    display_duration,
    display_scope,
    display_url,
    other_hosts,
    quote_server_message,
    replace_unprintable,
)
from hermes_mcp_auth_remote.shown_program import with_shown_program
from hermes_mcp_auth_remote.status import SessionStatus, session_status

CHECK_MARK, CROSS_MARK = "✓", "✗"
NEXT_LABEL, LOG_IN = "Next", "log in"
# A word, with blanks at the start of a line or after another blank, or with text between backticks.
_WORD = re.compile(r"(?:`[^`]*`|[^ ]| (?= )|(?<![^ ]) )+")
# Longer lines are hard to read. Shorter lines wrap badly.
MAX_COLUMNS, MIN_COLUMNS = 80, 20


def login_summary(login: Login, now: float, columns: int = MAX_COLUMNS) -> str:
    """Describe a login: server, authorization server, scope and deadline. `now` is in epoch seconds."""
    request, host = login.request, login.authorization_host
    rows = [
        (SERVER_LABEL, f"{login.key.server_name}  {display_url(login.server_url)}"),
        ("You log in at", f"{host}  (compare it with your browser's address bar)"),
    ]
    if token_hosts := other_hosts(login):
        rows.append((TOKEN_HOSTS_LABEL, "  ".join(token_hosts)))
    rows.append((ACCESS_LABEL, display_scope(request.scope)))
    if login.added_scope:
        rows.append(("New access", display_scope(login.added_scope)))
    rows.append(
        ("Open until", f"{clock_time(login.expires_at, now)}  ({display_duration(login.expires_at - now)})")
    )
    return table(rows, columns)


@dataclass(frozen=True, slots=True)
class NextStepOptions:
    """What the user of this terminal can do.

    `allows_device` is False if the operator has disabled the device flow. `can_paste` is False if standard
    input is closed. `waits` is False if another command completes the login. `forward_command` forwards the
    port. `offers_qr` is True if the user can type "qr". `browser_failed` is True if the command could open no
    browser.
    """

    allows_device: bool = True
    can_paste: bool = True
    waits: bool = True
    forward_command: str = ""
    offers_qr: bool = False
    browser_failed: bool = False


def next_step(
    login: Login,
    *,
    browser_opened: bool,
    port: int | None,
    columns: int = MAX_COLUMNS,
    options: NextStepOptions | None = None,
) -> str:
    """Tell the user what to do next.

    `browser_opened` is True if a browser was opened. `port` is the loopback port of the listener, None
    without a listener.
    """
    options = options or NextStepOptions()
    waits, can_paste = options.waits, options.can_paste
    expected_failure = "the browser shows a page that cannot be reached: that is expected."
    paste = "Copy that page's whole address, paste it here and press Enter."
    if not waits:
        paste = "Copy that page's whole address."
    elif not can_paste:
        paste = f"Copy that page's whole address, and pipe it into `{finish_command(login.id)}`."
    forward_hint = ""
    failure = "No browser was opened on this machine. " if options.browser_failed else ""
    if browser_opened:
        instruction = (
            "A browser was opened. Continue there: this command ends by itself. If no browser appeared, open "
            f"the address above. On another device {expected_failure} {paste}"
        )
    elif is_loopback_host(_host(login.request.redirect_uri)):
        instruction = (
            f"{failure}Open the address on any device. After you approve, {expected_failure} {paste}"
        )
        if port is not None:
            hint = "Or run this on your computer first; then you need not copy that page's address:"
            forward_hint = wrap_text(hint, columns)
            # Keep the command unbroken on its own line: the user copies it.
            forward_hint += f"\n{options.forward_command or f'ssh -N -L {port}:127.0.0.1:{port} USER@HOST'}"
    else:
        paste = paste.replace("that", "the last", 1)
        instruction = f"{failure}Open the address on any device and approve. {paste}"
    warning = "Paste it only here, and only for a login that you started. Ctrl-C cancels."
    if not waits:
        warning = "Use it only for a login that you started."
    elif not can_paste:
        warning = "Do this only for a login that you started. Ctrl-C cancels."
    can_switch = (
        waits and can_paste and options.allows_device and supports_device_flow(login.authorization_server)
    )
    commands = _commands_hint(
        qr="draw a QR code" if options.offers_qr else "",
        code="get a short code to enter on the other device" if can_switch else "",
    )
    paragraphs = (
        wrap_text(instruction, columns),
        forward_hint,
        *(wrap_text(it, columns) for it in (commands, warning)),
    )
    return "\n".join(paragraph for paragraph in paragraphs if paragraph)


def prompt_texts(login: Login) -> tuple[str, ...]:
    """Return the prompts for a login, the longest first. A narrow window gets a shorter one."""
    if login.poll_state is not None:
        return ()
    return ("Paste the address here: ", "Paste here: ", "> ")


def verification_uri_hint(columns: int = MAX_COLUMNS, *, has_qr: bool = True) -> str:
    """Tell the user to open the verification URI that follows. `has_qr` is True if a QR code is above it."""
    scan = "Scan the QR code, or open" if has_qr else "Open"
    return wrap_text(f"{scan} this address on any device, and log in there:", columns)


def qr_content_hint(code: DeviceAuthorization, columns: int = MAX_COLUMNS) -> str:
    """Say what the QR code holds if it is not the address that is printed."""
    if code.verification_uri_complete in {None, code.verification_uri}:
        return ""
    hint = "The QR code opens the same page with the code filled in:"
    return f"{wrap_text(hint, columns)}\n{replace_unprintable(code.verification_uri_complete or '')}"


def user_code_hint(code: DeviceAuthorization, columns: int = MAX_COLUMNS) -> str:
    """Tell the user to enter or compare the user code that follows."""
    if code.verification_uri_complete is None:
        return wrap_text("Enter this code there:", columns)
    return wrap_text("Enter this code there. If the page already shows it, compare every letter:", columns)


def next_step_for_device(
    columns: int = MAX_COLUMNS, *, can_type: bool = True, waits: bool = True, offers_qr: bool = False
) -> str:
    """Tell the user what happens next, and warn about phishing (RFC 8628 section 5.4).

    `can_type` is False if standard input is closed. `waits` is False if another command waits for the login.
    """
    ends = "This command ends by itself after you approve. " if waits else ""
    instruction = (
        f"{ends}Do not send the code to anyone. Approve only a login "
        "that you just started here: the person who started the login gets the access."
    )
    commands = ""
    if waits:
        commands = "Ctrl-C cancels."
        if can_type:
            hint = _commands_hint(
                new="get another code", paste="paste an address", qr="draw a QR code" if offers_qr else ""
            )
            commands = f"{hint} {commands}"
    return "\n".join(wrap_text(paragraph, columns) for paragraph in (instruction, commands) if paragraph)


def _commands_hint(**purposes: str) -> str:
    """Say which words the user can type. `purposes` maps each word to its purpose; "" leaves the word out."""
    hints = [f'"{word}" to {purpose}' for word, purpose in purposes.items() if purpose]
    if not hints:
        return ""
    *first, last = hints
    return f"Type {', '.join(first)} or {last}." if first else f"Type {last}."


def countdown(login: Login, seconds: float, columns: int = MAX_COLUMNS) -> str:
    """Format the time for which a code or a login is valid."""
    minutes, rest = divmod(max(int(seconds), 0), 60)
    time_left = f"{minutes}:{rest:02d}"
    if login.poll_state is not None:
        return f"Waiting: the code is valid for {time_left}"
    line = f"Waiting for your login at {replace_unprintable(login.authorization_host)}: open for {time_left}"
    return line if len(line) < columns else f"Waiting: open for {time_left}"


def connection_summary(
    connection: Connection, now: float, columns: int = MAX_COLUMNS, *, uses_machine_grant: bool = False
) -> str:
    """Describe a connection: account, scope, end and next event. `now` is in epoch seconds."""
    session = session_status(connection, now, uses_machine_grant=uses_machine_grant)
    rows = [
        *connection_rows(connection),
        (LASTS_LABEL, session_end(session, now)),
        (NEXT_LABEL, next_event(connection, session, now)),
    ]
    return (
        f"{CHECK_MARK} {replace_unprintable(connection.key.server_name)}: connected\n{table(rows, columns)}"
    )


def session_end(session: SessionStatus, now: float) -> str:
    """Describe when the user must log in again, or had to (the value of "Lasts"). `now`: epoch seconds."""
    ends_at = session.ends_at
    if session.state == "login needed" or (session.is_over and ends_at is None):
        return "ended"
    if ends_at is None:
        return UNTIL_PROVIDER_ENDS_IT
    clock = clock_time(ends_at, now)
    return f"ended at {clock}" if session.is_over else UNTIL.format(clock=clock)


def next_event(connection: Connection, session: SessionStatus, now: float) -> str:
    """Describe what the user should do, or else what happens next by itself (the value of "Next")."""
    access_ends_at, failure = session.access_ends_at, connection.refresh_failure
    if session.action == "log in":
        return LOG_IN
    if session.action == "log in soon":
        return f"log in again before {clock_time(session.ends_at or now, now)}"
    if session.state == "refresh failing":
        retry_at = None if failure is None else failure.retry_at
        after = "" if retry_at is None else f" after {clock_time(retry_at, now)}"
        return f"tries to refresh when it is used{after}"
    if not session.can_refresh:
        return "log in again when it ends"
    if access_ends_at is None:
        return f"{REFRESHES_ITSELF} when the server refuses the token"
    is_over = access_ends_at <= now
    return f"{REFRESHES_ITSELF} " + (
        "when it is used" if is_over else f"before {clock_time(access_ends_at, now)}"
    )


def error_text(error: McpAuthError, columns: int = 0) -> str:
    """Format an error: its message, the server's message, and the advice, each on its own line."""
    lines = [marked_text(CROSS_MARK, replace_unprintable(str(error)), columns)]
    if error.server_message:
        lines.append(wrap_text(f"{SERVER_SAYS}: {quote_server_message(error.server_message)}", columns, 2))
    return "\n".join([*lines, wrap_text(replace_unprintable(error.advice), columns, 2)])


def clock_time(epoch_seconds: float, now: float) -> str:
    """Format a moment in local time, with the date if it is not the day of `now` (epoch seconds)."""
    try:
        moment, today = time.localtime(epoch_seconds), time.localtime(now)
    except (OverflowError, ValueError, OSError):
        return "a date too far away to show"
    if moment[:3] == today[:3]:
        return f"{moment.tm_hour:02}:{moment.tm_min:02}"
    return time.strftime("%Y-%m-%d %H:%M", moment)


class Command(str):
    """A command for the user. `table` does not wrap it, so that a copied command is whole."""

    __slots__ = ()


def table(rows: Iterable[tuple[str, str]], columns: int = MAX_COLUMNS) -> str:
    """Format labelled rows with aligned values. Wrap long values that are no `Command`."""
    rows = list(rows)
    indent = max(len(label) for label, _ in rows) + 4
    lines: list[str] = []
    for label, value in rows:
        width = 0 if isinstance(value, Command) else columns
        if 0 < columns <= 2 * indent:
            # The labels would take half of the width: put the values below them.
            lines.append(f"  {label}\n{wrap_text(replace_unprintable(value), width, 4)}")
        else:
            lines.append(
                f"  {label}".ljust(indent) + wrap_text(replace_unprintable(value), width, indent).lstrip()
            )
    return "\n".join(lines)


def wrap_text(text: str, columns: int, indent: int = 0) -> str:
    """Wrap a paragraph to `columns`. 0 means no terminal: do not wrap.

    A word that is longer than a line, such as an address, stays on its line: the terminal breaks it. A
    command between backticks counts as one word, because a copy of it must run.
    """
    text = with_shown_program(text)
    if not columns:
        return " " * indent + text
    words = text.split(" ")
    if "" in words or "`" in text:
        words = _WORD.findall(text)
    width = min(max(columns, MIN_COLUMNS), MAX_COLUMNS) - indent
    lines = [""]
    for word in words:
        with_word = f"{lines[-1]} {word}" if lines[-1] else word
        if len(with_word) <= width or not lines[-1] or len(word) > width:
            lines[-1] = with_word
        else:
            lines.append(word)
    return "\n".join(" " * indent + line for line in lines)


def marked_text(mark: str, text: str, columns: int) -> str:
    """Wrap a paragraph after a mark. The lines below the first one are indented like its text."""
    return f"{mark} {wrap_text(text, columns, 2).removeprefix('  ')}"


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].rpartition(":")[0]
