"""What a terminal says about a login, a connection, an error: values in, text out."""

from __future__ import annotations

import time
from collections.abc import Iterable

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host

BY_DEFAULT = "whatever the provider grants by default"


def introduction(login: Login, now: float) -> str:
    """Say what is about to happen: which server, which authorization server, which scope, until when."""
    request = login.request
    rows = [
        ("Server", f"{login.key.server}  {login.server_url}"),
        ("You log in at", f"{login.issuer_host}  (compare it with your browser's address bar)"),
        ("Access", scope(request.scope)),
    ]
    if login.added_scope:
        rows.append(("New", scope(login.added_scope)))
    rows.append(("Open until", f"{clock_time(login.expires_at)}  ({duration(login.expires_at - now)})"))
    return table(rows)


def next_step(login: Login, *, opened: bool, port: int | None) -> str:
    """Say what the person does now; `opened` where a browser was, `port` the loopback port listened on."""
    lines: list[str] = []
    if opened:
        lines = [
            "A browser was opened; go on there, and this ends by itself.",
            "If none came up, open the address above. On another device, the browser ends on a page",
            "that cannot be reached: that is expected. Copy its address and paste it here.",
        ]
    elif is_loopback_host(_host(login.request.redirect_uri)):
        lines = [
            "Open the address on any device. After you approve, the browser ends on a page that cannot",
            "be reached: that is expected. Copy that page's whole address and paste it here.",
        ]
        if port is not None:
            lines.append(f"(Or forward the port, ssh -L {port}:127.0.0.1:{port}, and paste nothing.)")
    else:
        lines = [
            "Open the address on any device, approve, then copy the last page's address and paste it here."
        ]
    lines.append("Paste it nowhere else, and only if you have just asked for this login. Ctrl-C cancels.")
    return "\n".join(lines)


def connected(connection: Connection, now: float) -> str:
    """Say who or what is connected, with which scope, until when."""
    rows = [("Connected", f"{connection.key.server}  {connection.server_url}")]
    if connection.account:
        rows.append(("As", connection.account))
    rows.append(("Access", scope(connection.scope) if connection.scope else "as granted by the provider"))
    if connection.missing_scope:
        rows.append(("Not granted", scope(connection.missing_scope)))
    rows.append(("Lasts", lasts(connection, now)))
    return table(rows)


def lasts(connection: Connection, now: float) -> str:
    """Say how long a connection lasts, or that it renews itself."""
    if connection.expires_at is None:
        return "until the provider ends it"
    if connection.can_refresh:
        return f"as long as the provider lets it (renews itself, next by {clock_time(connection.expires_at)})"
    if connection.expires_at <= now:
        return f"it ended at {clock_time(connection.expires_at)}"
    span = duration(connection.expires_at - now)
    return f"until {clock_time(connection.expires_at)} ({span}), then log in again"


def trouble(error: McpAuthError) -> str:
    """Say what went wrong and what to do, in two sentences."""
    return f"{error} {error.advice}"


def scope(names: Iterable[str] | None) -> str:
    """Write a scope for people."""
    return " ".join(sorted(names or ())) or BY_DEFAULT


def duration(seconds: float) -> str:
    """Write a time span roughly: "10 minutes", "3 hours"."""
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = round(seconds / size)
            return f"{count} {name}{'s' * (count != 1)}"
    return "less than a minute"


def clock_time(epoch_seconds: float) -> str:
    """Write a moment in local time, with the date where it is not today."""
    moment, today = time.localtime(epoch_seconds), time.localtime()
    return time.strftime("%H:%M" if moment[:3] == today[:3] else "%Y-%m-%d %H:%M", moment)


def table(rows: Iterable[tuple[str, str]]) -> str:
    """Write labelled lines, the values below one another."""
    rows = list(rows)
    width = max(len(label) for label, _ in rows)
    return "\n".join(f"  {label:<{width}}  {value}" for label, value in rows)


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].rpartition(":")[0]
