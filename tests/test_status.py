"""There is one rule for the state of a connection, so command line, chats and reminders always agree."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway_hooks.dialog.connection_rendering import ConnectionRenderer, ServerStatus
from gateway_hooks.dialog.rendering import Renderer
from gateway_hooks.runtime.reminders import _login_need
from hermes_mcp_auth_remote.cli.connection_status import ConnectionStatus
from hermes_mcp_auth_remote.login import Connection
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.status import SessionStatus, next_change_at, remind_at, session_status
from hermes_mcp_auth_remote.terminal.text import connection_summary
from hermes_mcp_auth_remote.values import CredentialKey
from tests.gateway_hooks.login_factories import make_connection
from tests.oauth.builders import NOW
from tests.requirements import covers

HOUR, DAY = 3600.0, 86_400.0
FAILURE = RefreshFailure(
    first_at=NOW - 60,
    last_at=NOW - 60,
    failures=1,
    in_phase=0,
    was_alive=False,
    is_final=False,
    message="It could not be reached.",
    advice="Wait.",
    kind="unreachable",
)


def chat_status(connection: Connection, *, uses_machine_grant: bool = False) -> str:
    """Return what /connections says about the connection."""
    status = ServerStatus("notes", connection, uses_machine_grant=uses_machine_grant)
    card = ConnectionRenderer(Renderer()).connections_card([status], None, NOW, may_change=False)
    return card.rows[0].value


@covers("one-status")
@pytest.mark.parametrize(
    ("fields", "expected", "chat_text"),
    [
        pytest.param(
            {"can_refresh": False, "expires_at": NOW - HOUR},
            SessionStatus("expired", "log in", NOW - HOUR, NOW - HOUR),
            "ended at 07:00 UTC: log in again",
            id="ended without a refresh token",
        ),
        pytest.param(
            {"expires_at": NOW - 2 * HOUR, "refresh_expires_at": NOW - HOUR},
            SessionStatus("expired", "log in", NOW - 2 * HOUR, NOW - HOUR),
            "ended at 07:00 UTC: log in again",
            id="ended refresh token",
        ),
        pytest.param(
            {"expires_at": NOW + 3 * HOUR, "refresh_expires_at": NOW - HOUR},
            SessionStatus("connected", "log in soon", NOW + 3 * HOUR, NOW + 3 * HOUR),
            "connected as ada@example.com, until 11:00 UTC, then log in again",
            id="ended refresh token, valid access token",
        ),
        pytest.param(
            {
                "can_refresh": False,
                "expires_at": NOW + 50,
                "obtained_at": NOW - HOUR,
                "refresh_failure": replace(FAILURE, was_alive=True, is_final=True),
            },
            SessionStatus("connected", "log in soon", NOW + 50, NOW + 50),
            "connected as ada@example.com, until 08:00 UTC, then log in again",
            id="refused refresh token, valid access token",
        ),
        pytest.param(
            {"refresh_expires_at": NOW + 2 * DAY},
            SessionStatus("connected", "log in soon", NOW + HOUR, NOW + 2 * DAY, can_refresh=True),
            "connected as ada@example.com, until 2027-01-17 08:00 UTC (refreshes itself)",
            id="session that ends soon",
        ),
        pytest.param(
            {"refresh_expires_at": NOW + 60, "expires_at": NOW + HOUR},
            SessionStatus("connected", "log in soon", NOW + HOUR, NOW + HOUR, can_refresh=True),
            "connected as ada@example.com, until 09:00 UTC (refreshes itself)",
            id="access token that outlives the refresh token",
        ),
        pytest.param(
            {"expires_at": NOW - HOUR, "refresh_failure": FAILURE},
            SessionStatus("refresh failing", "none", NOW - HOUR, None, can_refresh=True),
            "connected as ada@example.com, its refresh fails; the next use tries again",
            id="failing refresh",
        ),
        pytest.param(
            {"login_needed": "the provider has ended the session"},
            SessionStatus("login needed", "log in", NOW + HOUR, None),
            "login needed: the provider has ended the session",
            id="ended by the server",
        ),
        pytest.param(
            {"can_refresh": False, "expires_at": None},
            SessionStatus("connected", "none", None, None),
            "connected as ada@example.com, until the provider ends it",
            id="no expiry",
        ),
        pytest.param(
            {"can_refresh": False, "expires_at": NOW + HOUR / 2, "obtained_at": NOW - HOUR / 2},
            SessionStatus("connected", "none", NOW + HOUR / 2, NOW + HOUR / 2),
            "connected as ada@example.com, until 08:30 UTC, then log in again",
            id="token too short-lived for a warning",
        ),
    ],
)
def test_chat_command_line_and_reminder_agree(
    fields: dict[str, object], expected: SessionStatus, chat_text: str
) -> None:
    connection = make_connection(**fields)
    assert session_status(connection, NOW) == expected
    assert chat_status(connection) == chat_text
    status = ConnectionStatus(CredentialKey("notes"), "notes", NOW, connection)
    assert status.state == expected.state
    assert status.action == expected.action
    assert status.next_step.startswith("log in again before ") is (expected.action == "log in soon")
    assert (status.next_step == "log in") is (expected.action == "log in")
    need = _login_need(connection, NOW)
    assert (None if need is None else need.is_over) == {"none": None, "log in soon": False, "log in": True}[
        expected.action
    ]


@covers("one-status")
def test_a_machine_grant_is_connected_everywhere_after_its_token_has_ended() -> None:
    connection = make_connection(can_refresh=False, expires_at=NOW - HOUR, account=None)
    status = ConnectionStatus(CredentialKey("notes"), "notes", NOW, connection, uses_machine_grant=True)
    assert status.state == "connected"
    assert chat_status(connection, uses_machine_grant=True) == (
        "connected, until the provider ends it (refreshes itself)"
    )
    assert "log in again" not in connection_summary(connection, NOW, uses_machine_grant=True)
    assert (status.lasts, status.next_step) == (
        "until the provider ends it",
        "refreshes itself when it is used",
    )


TIMES = st.none() | st.floats(NOW - 5 * DAY, NOW + 5 * DAY)
CONNECTIONS = st.builds(
    replace,
    st.just(make_connection()),
    expires_at=TIMES,
    refresh_expires_at=TIMES,
    obtained_at=TIMES,
    can_refresh=st.booleans(),
    login_needed=st.sampled_from([None, "it is over"]),
)


@covers("one-status")
@settings(deadline=None)
@given(CONNECTIONS)
def test_no_screen_contradicts_another(connection: Connection) -> None:
    is_over = session_status(connection, NOW).is_over
    assert chat_status(connection).startswith("connected") is not is_over
    status = ConnectionStatus(CredentialKey("notes"), "notes", NOW, connection)
    assert status.lasts.startswith("ended") is is_over
    assert (status.next_step == "log in") is is_over
    assert (status.state in {"expired", "login needed"}) is is_over
    # Both screens of the command line have the same words.
    summary = connection_summary(connection, NOW)
    assert f"  Lasts    {status.lasts}\n" in summary
    assert summary.endswith(f"  Next     {status.next_step}")
    need = _login_need(connection, NOW)
    assert (need is not None and need.is_over) is is_over


@covers("one-status")
@settings(deadline=None)
@given(
    expires_at=TIMES,
    refresh_expires_at=TIMES,
    obtained_at=TIMES,
    can_refresh=st.booleans(),
    part=st.floats(0, 1, exclude_max=True),
)
def test_a_status_keeps_until_its_next_change(
    expires_at: float | None,
    refresh_expires_at: float | None,
    obtained_at: float | None,
    *,
    can_refresh: bool,
    part: float,
) -> None:
    connection = replace(
        make_connection(),
        expires_at=expires_at,
        refresh_expires_at=refresh_expires_at,
        obtained_at=obtained_at,
        can_refresh=can_refresh,
    )
    change_at = next_change_at(connection, NOW)
    end = NOW + 20 * DAY if change_at is None else change_at
    later = NOW + part * (end - NOW)
    if later < end:
        assert session_status(connection, later) == session_status(connection, NOW)


@covers("status-ahead", "one-status")
@settings(deadline=None)
@given(
    expires_at=st.floats(NOW - 5 * DAY, NOW + 5 * DAY),
    refresh_expires_at=TIMES,
    obtained_at=TIMES,
    can_refresh=st.booleans(),
    is_refused=st.booleans(),
)
def test_a_warning_stays_until_the_end(
    expires_at: float,
    refresh_expires_at: float | None,
    obtained_at: float | None,
    *,
    can_refresh: bool,
    is_refused: bool,
) -> None:
    connection = replace(
        make_connection(),
        expires_at=expires_at,
        refresh_expires_at=refresh_expires_at,
        obtained_at=obtained_at,
        can_refresh=can_refresh and not is_refused,
        refresh_failure=replace(FAILURE, is_final=True) if is_refused else None,
    )
    moments = sorted({NOW, *(NOW + days * DAY for days in (1, 2, 3, 4, 5))})
    actions = [session_status(connection, moment).action for moment in moments]
    order = {"none": 0, "log in soon": 1, "log in": 2}
    assert [order[action] for action in actions] == sorted(order[action] for action in actions)


@covers("one-status")
@settings(deadline=None)
@given(CONNECTIONS, st.floats(-20 * DAY, 20 * DAY))
def test_no_user_must_act_before_the_time_of_the_reminder(connection: Connection, later: float) -> None:
    start = remind_at(connection)
    if session_status(connection, NOW + later).action != "none":
        assert start is not None
        assert start <= NOW + later
    if start is not None:
        assert session_status(connection, start).action != "none"
