"""What a terminal says about a login, a connection, an error: values in, text out.

Names, accounts and scopes come from servers and other people: `shown` keeps them from steering the terminal.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.client import supports_device_flow
from hermes_mcp_auth_remote.oauth.device import DeviceAuthorization
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host
from hermes_mcp_auth_remote.phrases import (
    SERVER_SAYS,
    connection_rows,
    display_duration,
    display_scope,
    display_url,
    other_hosts,
    quote_server_message,
    replace_unprintable,
)

CHECK_MARK, CROSS_MARK = "✓", "✗"
# Prose is hard to read where lines are longer, and hardly wraps well where they are shorter.
MAX_COLUMNS, MIN_COLUMNS = 80, 30


def login_summary(login: Login, now: float, columns: int = MAX_COLUMNS) -> str:
    """Say what is about to happen: which server, which authorization server, which scope, until when."""
    request, at = login.request, login.authorization_host
    rows = [
        ("Server", f"{login.key.server_name}  {display_url(login.server_url)}"),
        ("You log in at", f"{at}  (compare it with your browser's address bar)"),
    ]
    if others := other_hosts(login):
        rows.append(("Tokens come from", "  ".join(others)))
    rows.append(("Access", display_scope(request.scope)))
    if login.added_scope:
        rows.append(("New", display_scope(login.added_scope)))
    rows.append(
        ("Open until", f"{clock_time(login.expires_at, now)}  ({display_duration(login.expires_at - now)})")
    )
    return table(rows, columns)


def next_step(
    login: Login,
    *,
    browser_opened: bool,
    port: int | None,
    columns: int = MAX_COLUMNS,
    allows_device: bool = True,
) -> str:
    """Say what the person does now; `opened` where a browser was, `port` the loopback port listened on.

    `device` is False where the operator lets nobody go on by a code for another device.
    """
    issuer = login.authorization_server
    unreachable = "the browser ends on a page that cannot be reached: that is expected."
    paste = "Copy that page's whole address, paste it here and press Enter."
    forward = ""
    if browser_opened:
        said = (
            "A browser was opened: go on there, and this ends by itself. If none came up, open the address "
            f"above. On another device {unreachable} {paste}"
        )
    elif is_loopback_host(_host(login.request.redirect_uri)):
        said = f"Open the address on any device. After you approve, {unreachable} {paste}"
        if port is not None:
            forward = f"(Or forward the port, ssh -L {port}:127.0.0.1:{port}, and paste nothing.)"
    else:
        said = f"Open the address on any device and approve. {paste.replace('that', 'the last')}"
    warning = "Paste it nowhere else, and only for a login that you asked for. Ctrl-C cancels."
    may_switch = allows_device and supports_device_flow(issuer)
    other = "(Type code to enter a code on the other device instead.)" if may_switch else ""
    return "\n".join(wrap_text(each, columns) for each in (said, forward, other, warning) if each)


def verification_uri_hint(code: DeviceAuthorization, columns: int = MAX_COLUMNS) -> str:
    """Say, above the address, what to do with the code for a device."""
    scan = "Scan the QR code, or open" if code.verification_uri_complete else "Open"
    return wrap_text(f"{scan} this address on any device, and log in there:", columns)


def user_code_hint(code: DeviceAuthorization, columns: int = MAX_COLUMNS) -> str:
    """Say, above the user code, what to do with it."""
    if code.verification_uri_complete is None:
        return wrap_text("Enter this code there:", columns)
    return wrap_text("Enter this code there. If it is there already, compare it letter by letter:", columns)


def next_step_for_device(columns: int = MAX_COLUMNS) -> str:
    """Say what comes next, and what never to do (RFC 8628 section 5.4)."""
    said = "This ends by itself once you have approved. Send the code to nobody, and approve only a login "
    said += "that you asked for, just now and here: whoever asked for it gets the access."
    words = "Type new for another code, paste to paste an address instead. Ctrl-C cancels."
    return "\n".join(wrap_text(each, columns) for each in (said, words))


def countdown(seconds: float) -> str:
    """Write how long a code is still good."""
    minutes, rest = divmod(max(int(seconds), 0), 60)
    return f"Waiting: the code is good for {minutes}:{rest:02d}"


def connection_summary(connection: Connection, now: float, columns: int = MAX_COLUMNS) -> str:
    """Say who or what is connected, with which scope, until when."""
    rows = [*connection_rows(connection), ("Lasts", connection_lifetime(connection, now))]
    return (
        f"{CHECK_MARK} {replace_unprintable(connection.key.server_name)}: connected\n{table(rows, columns)}"
    )


def connection_lifetime(connection: Connection, now: float) -> str:
    """Say how long a connection lasts, or that it renews itself."""
    if connection.expires_at is None:
        return "until the provider ends it"
    when = clock_time(connection.expires_at, now)
    if connection.can_refresh:
        return f"as long as the provider lets it (renews itself, next by {when})"
    if connection.expires_at <= now:
        return f"it ended at {when}"
    return f"until {when} ({display_duration(connection.expires_at - now)}), then log in again"


def error_text(error: McpAuthError, columns: int = 0) -> str:
    """Say what went wrong, what the server said about it, and what to do, on a line each."""
    lines = [wrap_text(f"{CROSS_MARK} {replace_unprintable(str(error))}", columns)]
    if error.server_message:
        lines.append(wrap_text(f"{SERVER_SAYS}: {quote_server_message(error.server_message)}", columns, 2))
    return "\n".join([*lines, wrap_text(replace_unprintable(error.advice), columns, 2)])


def clock_time(epoch_seconds: float, now: float) -> str:
    """Write a moment in local time, with the date where it is not the day of `now`."""
    try:
        moment, today = time.localtime(epoch_seconds), time.localtime(now)
    except (OverflowError, ValueError, OSError):
        return "the end of time"
    return time.strftime("%H:%M" if moment[:3] == today[:3] else "%Y-%m-%d %H:%M", moment)


def table(rows: Iterable[tuple[str, str]], columns: int = MAX_COLUMNS) -> str:
    """Write labelled lines, the values below one another, long ones on several lines."""
    rows = list(rows)
    indent = max(len(label) for label, _ in rows) + 4
    lines: list[str] = []
    for label, value in rows:
        if 0 < columns <= 2 * indent:
            # Labels would take half the room: values go below them.
            lines.append(f"  {label}\n{wrap_text(replace_unprintable(value), columns, 4)}")
        else:
            lines.append(
                f"  {label}".ljust(indent) + wrap_text(replace_unprintable(value), columns, indent).lstrip()
            )
    return "\n".join(lines)


def wrap_text(text: str, columns: int, indent: int = 0) -> str:
    """Wrap a paragraph for a terminal, not at all where there is none (0).

    An address, or any other word longer than a line, stays whole and where it is: the terminal breaks it.
    """
    width = min(max(columns, MIN_COLUMNS), MAX_COLUMNS) - indent if columns else len(text)
    lines = [""]
    for word in re.split(r"(?<=[^ ]) (?! )", text):
        with_word = f"{lines[-1]} {word}" if lines[-1] else word
        if len(with_word) <= width or not lines[-1] or len(word) > width:
            lines[-1] = with_word
        else:
            lines.append(word)
    return "\n".join(" " * indent + line for line in lines)


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].rpartition(":")[0]
