"""The table of `status`: aligned, never wider than the terminal, nothing lost."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hermes_mcp_auth_remote.cli.connection_status import ConnectionStatus
from hermes_mcp_auth_remote.cli.status_table import MIN_TABLE_COLUMNS, format_statuses
from hermes_mcp_auth_remote.errors import StoreCorrupt
from hermes_mcp_auth_remote.values import CredentialKey
from tests.gateway_hooks.login_factories import make_connection
from tests.oauth.builders import NOW
from tests.requirements import covers

WIDE_TABLE = """\
  Server             State          Account          Lasts                       Next
✓ notes              connected      ada@example.com  until the provider ends it  refreshes itself before 09:00
✓ soon               connected      ada@example.com  until 2027-01-16 08:00      log in again before 2027-01-16 08:00
"""  # noqa: E501
HOUR, DAY = 3600.0, 86_400.0


def make_statuses() -> list[ConnectionStatus]:
    """Return a server in each state."""

    def status(name: str, **fields: object) -> ConnectionStatus:
        return ConnectionStatus(CredentialKey(name), name, NOW, make_connection(**fields))

    return [
        status("notes"),
        status("soon", refresh_expires_at=NOW + DAY),
        status("lone", can_refresh=False, expires_at=NOW + 3 * HOUR),
        status("expired", can_refresh=False, expires_at=NOW - HOUR),
        status("ended", login_needed="login.example has ended the session"),
        ConnectionStatus(
            CredentialKey("new", "telegram:42"), "new", NOW, server_url="https://new.example/mcp"
        ),
        ConnectionStatus(CredentialKey("broken"), "broken", NOW, error=StoreCorrupt("The file is damaged.")),
    ]


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@covers("status-table", "status-next")
def test_a_wide_terminal_shows_every_column() -> None:
    lines = format_statuses(make_statuses(), 120).splitlines()
    assert [line.rstrip() for line in lines[:3]] == WIDE_TABLE.splitlines()


@covers("status-table", "status-next")
def test_eighty_columns_have_no_account_and_the_command_is_whole() -> None:
    text = format_statuses(make_statuses(), 80)
    lines = text.splitlines()
    assert lines[0].split() == ["Server", "State", "Lasts", "Next"]
    assert max(map(len, lines)) <= 80
    for command in ("login soon", "login expired", "login ended", "login new --owner telegram:42"):
        assert any(line.endswith(f"  hermes-mcp-auth {command}") for line in lines)
    assert "    Because  login.example has ended the session\n" in text
    assert "    Address  https://new.example/mcp\n" in text
    assert "    Because  The file is damaged.\n" in text


@covers("status-table")
@pytest.mark.parametrize("columns", [0, 40, MIN_TABLE_COLUMNS - 1])
def test_a_narrow_terminal_and_no_terminal_get_a_line_per_fact(columns: int) -> None:
    statuses = make_statuses()
    text = format_statuses(statuses, columns)
    assert text == "\n".join(status.to_text(columns) for status in statuses)
    assert text.startswith("✓ notes: connected\n")
    # A wrapped command would be another command when it is copied.
    command = "hermes-mcp-auth login new --owner telegram:42"
    assert any(line.endswith(f"  {command}") for line in text.splitlines())


@covers("status-table")
@settings(deadline=None, max_examples=60)
@given(
    columns=st.integers(MIN_TABLE_COLUMNS, 200),
    names=st.lists(st.text("abcdefgh-ü ", min_size=1, max_size=128), min_size=1, max_size=4),
    account=st.text("ada@.", max_size=80),
)
def test_no_row_is_wider_than_the_terminal(columns: int, names: list[str], account: str) -> None:
    statuses = [
        ConnectionStatus(CredentialKey(name), name, NOW, make_connection(account=account)) for name in names
    ]
    text = format_statuses(statuses, columns)
    assert max(map(len, text.splitlines())) <= columns
    assert text.count("✓ ") == len(names)
    is_table = text.startswith("  Server")
    assert is_table, "columns that are too wide are wrapped"
