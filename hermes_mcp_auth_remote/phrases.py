"""Every phrase that the terminal and the chats both show, and formats of values for people.

No other module repeats the text of a constant of this module: a test checks that. `str.format` fills in the
fields in braces. The terminal shows local times, a chat shows UTC.

Names, accounts and scopes come from servers and other people. `replace_unprintable` prevents them from
controlling a screen.
"""

from __future__ import annotations

from collections.abc import Iterable

from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.token_refusal import TokenRefusal
from hermes_mcp_auth_remote.oauth.urls import host_of

SERVER_LABEL = "Server"
TOKEN_HOSTS_LABEL = "Tokens come from"  # noqa: S105
ACCESS_LABEL = "Access"
ACCOUNT_LABEL = "Account"
NOT_GRANTED_LABEL = "Not granted"
LASTS_LABEL = "Lasts"
SERVER_SAYS = "The server says"

NOT_CONNECTED = "not connected"
UNTIL_PROVIDER_ENDS_IT = "until the provider ends it"
REFRESHES_ITSELF = "refreshes itself"
REFRESH_FAILS = "its refresh fails; the next use tries again"
THEN_LOG_IN_AGAIN = "then log in again"
UNTIL = "until {clock}"
ENDED = "ended: log in again"
ENDED_AT = "ended at {clock}: log in again"
_QUOTATION_MARKS = str.maketrans(dict.fromkeys('“”„‟"', "'"))

# A server may grant as many scopes as a response can hold.
MAX_SCOPE_CHARS = 1000
MAX_ACCOUNT_CHARS = 200

DEFAULT_ACCESS = "whatever the provider grants by default"
ACCESS_AS_GRANTED = "as granted by the provider"


def other_hosts(login: Login) -> list[str]:
    """List the hosts of token endpoint and issuer that differ from the login page's host, without duplicates.

    Show them to the user. Without `iss`, this process cannot detect a mix-up attack: a server that sends the
    user to another server's page and receives the code (RFC 9700 section 4.4). The user may detect it.
    """
    request, page_host = login.request, login.authorization_host
    others = [host for host in map(host_of, (request.token_endpoint, request.issuer)) if host != page_host]
    return list(dict.fromkeys(others))


def display_url(url: str) -> str:
    """Return a server's URL for people, without its query, which may contain a key."""
    before, mark, _ = url.partition("#")[0].partition("?")
    return f"{before}?…" if mark else before


def connection_rows(connection: Connection) -> list[tuple[str, str]]:
    """Return labels and values that describe a connection, whether it works or not."""
    rows = [("Address", display_url(connection.server_url))]
    if connection.account:
        rows.append((ACCOUNT_LABEL, shorten(connection.account, MAX_ACCOUNT_CHARS)))
    rows.append((ACCESS_LABEL, display_scope(connection.scope) if connection.scope else ACCESS_AS_GRANTED))
    if connection.missing_scope:
        rows.append((NOT_GRANTED_LABEL, display_scope(connection.missing_scope)))
    if connection.token_refusal is not None:
        rows.append(("Problem", describe_token_refusal(connection.token_refusal)))
    if connection.lacks_offline_access:
        rows.append(
            (
                "Refresh",
                "none: `oauth.scope` or `oauth.scope_cap` leaves out offline_access",
            )
        )
    if connection.needed_scope is not None:
        rows.append(("More access", needed_scope_text(connection.needed_scope)))
    return rows


def describe_token_refusal(refusal: TokenRefusal) -> str:
    """Say that the server refused tokens that were just refreshed, and what the user can do."""
    count = "a token" if refusal.refreshes == 1 else f"{refusal.refreshes} tokens in a row"
    return (
        f"The server refused {count} right after the refresh. Log in again; if that does not help, its "
        "operator must fix it."
    )


def needed_scope_text(needed_scope: frozenset[str]) -> str:
    """Say that the server demands more access. `needed_scope` is empty if the server named no scope."""
    demanded = display_scope(needed_scope) if needed_scope else "more than this login has"
    return f"the server demands {demanded}: log in again to ask for it"


def display_scope(scopes: Iterable[str] | None) -> str:
    """Format a scope for people. Cut a long one, and say how many names are left out."""
    names = sorted(scopes or ())
    length = 0
    for number, name in enumerate(names):
        length += len(name) + 1
        if length > MAX_SCOPE_CHARS:
            shown = " ".join(names[:number]) or f"{name[:MAX_SCOPE_CHARS]}…"
            left_out = len(names) - max(number, 1)
            return f"{shown} … and {left_out} more" if left_out else shown
    return " ".join(names) or DEFAULT_ACCESS


def shorten(text: str, max_chars: int) -> str:
    """Cut a text that is longer than `max_chars`."""
    return text if len(text) <= max_chars else f"{text[:max_chars]}…"


def display_duration(seconds: float) -> str:
    """Format a duration roughly: "10 minutes", "3 hours"."""
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = round(seconds / size)
            return f"{count} {name}{'s' * (count != 1)}"
    return "less than a minute"


def quote_server_message(message: str) -> str:
    """Put a server's message in quotation marks that the message itself cannot close."""
    return f"“{replace_unprintable(message).translate(_QUOTATION_MARKS)}”"


def replace_unprintable(text: str) -> str:
    """Replace control characters, and characters that hide or reverse the text next to them."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
