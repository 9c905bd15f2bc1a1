"""The texts of the terminal, for screens of any width and for any values."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.phrases import display_duration, replace_unprintable
from hermes_mcp_auth_remote.status import session_status
from hermes_mcp_auth_remote.terminal.text import (
    clock_time,
    connection_summary,
    error_text,
    login_summary,
    next_event,
    session_end,
    table,
    wrap_text,
)
from hermes_mcp_auth_remote.values import CredentialKey, Origin
from tests.oauth.builders import NOW, request, server
from tests.requirements import covers

TEXT = "Open the address on any device. After you approve, the browser ends on a page."


def make_connection(**members: object) -> Connection:
    defaults: dict[str, object] = {
        "key": CredentialKey("demo"),
        "server_url": "https://mcp.example/mcp",
        "issuer": "https://login.example",
        "account": None,
        "scope": None,
        "expires_at": None,
        "can_refresh": False,
    }
    return Connection(**{**defaults, **members})  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", [20, 30, 31, 40, 57, 79, 80])
def test_a_wrapped_paragraph_fits_and_keeps_every_word(columns: int) -> None:
    lines = wrap_text(TEXT, columns).splitlines()
    assert max(map(len, lines)) <= columns
    assert " ".join(lines) == TEXT


def test_a_paragraph_has_a_minimum_and_a_maximum_width() -> None:
    assert max(map(len, wrap_text(TEXT * 3, 300).splitlines())) <= 80
    assert wrap_text(TEXT, 3) == wrap_text(TEXT, 20)


def test_without_a_terminal_nothing_is_wrapped() -> None:
    assert wrap_text(TEXT * 3, 0) == TEXT * 3


def test_a_word_longer_than_a_line_is_not_broken() -> None:
    path = "/home/" + "x" * 90
    assert wrap_text(f"✗ {path} is open to others.", 40) == f"✗ {path}\nis open to others."


def test_double_spaces_are_kept() -> None:
    assert wrap_text("demo  https://mcp.example/mcp", 80) == "demo  https://mcp.example/mcp"


@covers("advice-runs")
def test_a_command_between_backticks_is_not_broken() -> None:
    command = "`hermes-mcp-auth login notes --via telegram:42`"
    assert wrap_text(f"Run {command}, then try again.", 40, 2) == f"  Run {command},\n  then try again."
    assert wrap_text("a ` b", 40) == "a ` b"


def test_a_table_indents_values_and_puts_them_below_if_it_is_narrow() -> None:
    rows = [("Access", "one two three four five six seven"), ("Open until", "12:00")]
    assert table(rows, 34) == (
        "  Access      one two three four\n              five six seven\n  Open until  12:00"
    )
    assert table(rows, 20).splitlines()[:2] == ["  Access", "    one two three"]


@covers("no-escape")
@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "a\rb", "\x07", "\u202ea", "\x9b31m", "\ud800"])
def test_control_characters_are_never_printed(text: str) -> None:
    assert all(character.isprintable() for character in replace_unprintable(text))
    output = connection_summary(
        make_connection(account=text, scope=frozenset({text}), key=CredentialKey(text)), 0.0
    )
    output += error_text(McpAuthError(f"{text}.", text))
    assert all(character.isprintable() or character == "\n" for character in output)
    assert "a\nb" not in output


def test_an_error_has_a_message_and_an_advice() -> None:
    assert error_text(McpAuthError("It broke.", "Mend it.")) == "✗ It broke.\n  Mend it."
    long_error = McpAuthError("It broke although it was quite new.", "Mend it.")
    assert error_text(long_error, 30) == "✗ It broke although it was\n  quite new.\n  Mend it."


@pytest.mark.parametrize(
    ("seconds", "expected_text"),
    [
        (-5, "less than a minute"),
        (59, "less than a minute"),
        (60, "1 minute"),
        (600, "10 minutes"),
        (3600, "1 hour"),
        (86_400 * 2, "2 days"),
    ],
)
def test_durations_are_rounded_down(seconds: float, expected_text: str) -> None:
    assert display_duration(seconds) == expected_text


def test_a_time_on_another_day_includes_the_date() -> None:
    assert len(clock_time(NOW, NOW)) == 5
    assert clock_time(NOW + 3 * 86_400, NOW).startswith("20")
    # The time of day does not depend on the current date.
    assert clock_time(NOW, NOW) == clock_time(NOW, NOW + 3 * 86_400)[-5:]
    assert clock_time(1e300, NOW) == clock_time(float("inf"), NOW) == "a date too far away to show"


@covers("status-next")
@pytest.mark.parametrize(
    ("fields", "lasts", "next_step"),
    [
        ({}, "until the provider ends it", "log in again when it ends"),
        ({"expires_at": NOW + 7200}, "until {access}", "log in again when it ends"),
        ({"expires_at": NOW + 60}, "until {access}", "log in again before {access}"),
        ({"expires_at": NOW - 1}, "ended at {access}", "log in"),
        ({"login_needed": "it is over"}, "ended", "log in"),
        (
            {"expires_at": NOW + 60, "can_refresh": True},
            "until the provider ends it",
            "refreshes itself before {access}",
        ),
        (
            {"expires_at": NOW - 1, "can_refresh": True},
            "until the provider ends it",
            "refreshes itself when it is used",
        ),
        (
            {"can_refresh": True},
            "until the provider ends it",
            "refreshes itself when the server refuses the token",
        ),
    ],
)
def test_the_end_of_a_connection_and_what_comes_next(
    fields: dict[str, object], lasts: str, next_step: str
) -> None:
    connection = make_connection(**fields)
    session = session_status(connection, NOW)
    access = clock_time(connection.expires_at or 0.0, NOW)
    assert session_end(session, NOW) == lasts.format(access=access)
    assert next_event(connection, session, NOW) == next_step.format(access=access)


def test_the_summary_of_a_connection() -> None:
    summary = connection_summary(
        make_connection(
            account="ada@example.com", scope=frozenset({"b", "a"}), missing_scope=frozenset({"c"})
        ),
        0.0,
    )
    assert summary == (
        "✓ demo: connected\n"
        "  Address      https://mcp.example/mcp\n"
        "  Account      ada@example.com\n"
        "  Access       a b\n"
        "  Not granted  c\n"
        "  Lasts        until the provider ends it\n"
        "  Next         log in again when it ends"
    )


def render_login_summary(**members: object) -> str:
    issuer = server(**members)
    login = Login(
        "1",
        CredentialKey("demo"),
        "https://mcp.example/mcp",
        request(authorization_server=issuer),
        issuer,
        Origin("terminal"),
        0.0,
        600.0,
    )
    return login_summary(login, 0.0)


def test_the_token_host_is_shown_if_it_differs_from_the_login_host() -> None:
    assert "Tokens" not in render_login_summary()
    mixed_up = render_login_summary(authorization_endpoint="https://login.honest.example/authorize")
    assert "  You log in at     login.honest.example  (compare" in mixed_up
    assert "  Tokens come from  as.example\n" in mixed_up
    assert "  Tokens come from  evil.example\n" in render_login_summary(
        token_endpoint="https://evil.example/token"
    )
    both = render_login_summary(
        issuer="https://issuer.example",
        authorization_endpoint="https://as.example/authorize",
        token_endpoint="https://evil.example/token",
    )
    assert "  Tokens come from  evil.example  issuer.example\n" in both
