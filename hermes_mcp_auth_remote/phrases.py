"""What every way in says in the same words: a scope, a span of time, a connection. Values in, text out.

Names, accounts and scopes come from servers and other people: `shown` keeps them from steering a screen.
"""

from __future__ import annotations

from collections.abc import Iterable

from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.urls import host_of

SERVER_SAYS = "The server says"
_QUOTATION_MARKS = str.maketrans(dict.fromkeys('“”„‟"', "'"))

DEFAULT_SCOPE_TEXT = "whatever the provider grants by default"


def other_hosts(login: Login) -> list[str]:
    """Name the hosts that take part beside the one where the person logs in, each once.

    A server without `iss` cannot be told from one that sends people to another's page and takes the code
    (RFC 9700 section 4.4): the person may know better.
    """
    request, at = login.request, login.authorization_host
    others = [host for host in map(host_of, (request.token_endpoint, request.issuer)) if host != at]
    return list(dict.fromkeys(others))


def display_url(url: str) -> str:
    """Return a server's URL as people see it: what follows a question mark may be a key."""
    before, mark, _ = url.partition("#")[0].partition("?")
    return f"{before}?…" if mark else before


def connection_rows(connection: Connection) -> list[tuple[str, str]]:
    """Say what is known of a connection, whether it holds or not."""
    rows = [("Address", display_url(connection.server_url))]
    if connection.account:
        rows.append(("As", connection.account))
    rows.append(
        ("Access", display_scope(connection.scope) if connection.scope else "as granted by the provider")
    )
    if connection.missing_scope:
        rows.append(("Not granted", display_scope(connection.missing_scope)))
    return rows


def display_scope(scopes: Iterable[str] | None) -> str:
    """Write a scope for people."""
    return " ".join(sorted(scopes or ())) or DEFAULT_SCOPE_TEXT


def display_duration(seconds: float) -> str:
    """Write a time span roughly: "10 minutes", "3 hours"."""
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = round(seconds / size)
            return f"{count} {name}{'s' * (count != 1)}"
    return "less than a minute"


def quote_server_message(message: str) -> str:
    """Write a server's words for people, in quotation marks that the words cannot end."""
    return f"“{replace_unprintable(message).translate(_QUOTATION_MARKS)}”"


def replace_unprintable(text: str) -> str:
    """Replace what a terminal would obey, or what would hide or turn round the text beside it."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
