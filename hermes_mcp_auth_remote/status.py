"""The state of a connection: one rule for the command line, the chats and their reminders. Pure.

A connection is usable while its access token is valid, or can be refreshed without the user. So the expiry of
the access token does not end a connection that can be refreshed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from hermes_mcp_auth_remote.login import Connection

# Warn this long before the user must log in again. A session is a login whose tokens can be
# refreshed, or could be refreshed earlier. A lone access token could never be refreshed. `status`, the chats
# and the reminders all use these constants.
SESSION_WARNING_SECONDS = 3 * 86_400
TOKEN_WARNING_SECONDS = 3_600

ConnectionState = Literal["connected", "refresh failing", "expired", "login needed"]
"""`refresh failing`: the access token has ended, and the last refresh failed; a later one may succeed.
`expired`: the session has ended by its own time. `login needed`: the authorization server has ended it."""

UserAction = Literal["none", "log in soon", "log in"]
"""What the user should do."""


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """The state of a connection at a moment. Times are in epoch seconds.

    `can_refresh`: the access token is replaced without the user. `access_ends_at`: when the access token ends
    or has ended; None if unknown. `ends_at`: when the user must log in again, or had to; None if only the
    authorization server decides that.
    """

    state: ConnectionState
    action: UserAction
    access_ends_at: float | None
    ends_at: float | None
    can_refresh: bool = False

    @property
    def is_over(self) -> bool:
        """True if the connection works only after a login."""
        return self.action == "log in"


def session_status(connection: Connection, now: float, *, uses_machine_grant: bool = False) -> SessionStatus:
    """Return the status of a connection at `now` (epoch seconds).

    `uses_machine_grant`: the server's grant needs no user, so a new token can always be requested.
    """
    can_refresh = uses_machine_grant or connection.can_refresh_at(now)
    access_ends_at = connection.expires_at
    has_access = access_ends_at is None or access_ends_at > now
    ends_at = _session_end(connection, can_refresh=can_refresh, uses_machine_grant=uses_machine_grant)
    if connection.login_needed is not None:
        return SessionStatus("login needed", "log in", access_ends_at, ends_at)
    if not (has_access or can_refresh):
        return SessionStatus("expired", "log in", access_ends_at, ends_at)
    warning_seconds = _warning_seconds(connection, can_refresh=can_refresh)
    action: UserAction = "none"
    if ends_at is not None and ends_at - now < warning_seconds:
        action = "log in soon"
    is_failing = not has_access and connection.refresh_failure is not None
    state: ConnectionState = "refresh failing" if is_failing else "connected"
    return SessionStatus(state, action, access_ends_at, ends_at, can_refresh)


def next_change_at(connection: Connection, now: float) -> float | None:
    """Return the time (epoch seconds) at which the status may change, None if time alone never changes it."""
    ends = [end for end in (connection.expires_at, connection.refresh_expires_at) if end is not None]
    # At the warning time itself there is no warning yet: it begins just after this time.
    warnings = [
        math.nextafter(end - seconds, math.inf)
        for end in ends
        for seconds in (SESSION_WARNING_SECONDS, TOKEN_WARNING_SECONDS)
    ]
    return min((time for time in (*ends, *warnings) if time > now), default=None)


def remind_at(connection: Connection) -> float | None:
    """Return when the user must start to act (epoch seconds), None if time alone never requires it.

    0 means that the user must act now, whatever the time is. Later, the user may no longer have to act: ask
    `session_status`.
    """
    moment: float | None = 0.0
    while moment is not None and session_status(connection, moment).action == "none":
        moment = next_change_at(connection, moment)
    return moment


def _session_end(connection: Connection, *, can_refresh: bool, uses_machine_grant: bool) -> float | None:
    """Return when the user must log in again, or had to; None if only the server decides that."""
    if uses_machine_grant:
        return None
    access_ends_at, refresh_ends_at = connection.expires_at, connection.refresh_expires_at
    if not connection.can_refresh or access_ends_at is None:
        return refresh_ends_at if can_refresh else access_ends_at
    # An access token can outlive the refresh token.
    return None if refresh_ends_at is None else max(access_ends_at, refresh_ends_at)


def _warning_seconds(connection: Connection, *, can_refresh: bool) -> float:
    """Return how long before the end a warning begins, 0 for no warning."""
    failure = connection.refresh_failure
    has_lost_refresh = connection.refresh_expires_at is not None or (failure is not None and failure.is_final)
    if can_refresh or has_lost_refresh:
        return SESSION_WARNING_SECONDS
    if connection.obtained_at is None or connection.expires_at is None:
        return TOKEN_WARNING_SECONDS
    # A lone token that lives briefly would need a warning during most of its life.
    is_short_lived = connection.expires_at - connection.obtained_at < 2 * TOKEN_WARNING_SECONDS
    return 0 if is_short_lived else TOKEN_WARNING_SECONDS
