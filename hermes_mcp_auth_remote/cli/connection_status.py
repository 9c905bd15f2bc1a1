"""The status of a connection: its state, the next step and warnings, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_mcp_auth_remote.cli.servers import login_command
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.oauth.token_refusal import TokenRefusal
from hermes_mcp_auth_remote.phrases import (
    NOT_CONNECTED,
    REFRESHES_ITSELF,
    SERVER_SAYS,
    THEN_LOG_IN_AGAIN,
    UNTIL_PROVIDER_ENDS_IT,
    connection_rows,
    display_duration,
    quote_server_message,
    replace_unprintable,
)
from hermes_mcp_auth_remote.status import SessionStatus, session_status
from hermes_mcp_auth_remote.terminal.text import CHECK_MARK, CROSS_MARK, clock_time, table
from hermes_mcp_auth_remote.values import CredentialKey


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """The status of one server and owner: a connection, no connection, or an error that prevented the check.

    `server_argument` is the name or address that names the server on the command line.
    `uses_machine_grant` is True if the server's grant needs no user. `waiting_logins` are the logins that
    wait for an answer.
    """

    key: CredentialKey
    server_argument: str
    connection: Connection | None = None
    error: McpAuthError | None = None
    uses_machine_grant: bool = False
    waiting_logins: tuple[Login, ...] = ()

    def session(self, now: float) -> SessionStatus | None:
        """Return the status of the connection, None without one. `now` is in epoch seconds."""
        if self.connection is None:
            return None
        return session_status(self.connection, now, uses_machine_grant=self.uses_machine_grant)

    def state(self, now: float) -> str:
        """Return the state in one or two words, or the error's code."""
        if self.error is not None:
            return self.error.code
        session = self.session(now)
        return NOT_CONNECTED if session is None else session.state

    def next_step(self, now: float) -> str | None:
        """Describe what will happen without the user, None if nothing will."""
        session = self.session(now)
        if self.error is not None or session is None or session.state != "connected":
            return None
        access_ends_at = session.access_ends_at
        if access_ends_at is None:
            return f"lasts {UNTIL_PROVIDER_ENDS_IT}"
        clock = clock_time(access_ends_at, now)
        if session.can_refresh:
            return f"{REFRESHES_ITSELF} " + (f"before {clock}" if access_ends_at > now else "when it is used")
        return f"ends at {clock} ({display_duration(access_ends_at - now)}), {THEN_LOG_IN_AGAIN}"

    def warning(self, now: float) -> str | None:
        """Describe what the user should do soon, None if there is nothing to do."""
        session = self.session(now)
        if self.error is not None or session is None or session.action != "log in soon":
            return None
        clock = clock_time(session.ends_at or now, now)
        if session.can_refresh:
            return f"log in again before {clock}, when the provider ends the session"
        return f"log in again before {clock}: this login cannot refresh itself"

    def to_text(self, now: float, columns: int) -> str:
        """Format the status for people. `columns` is the terminal's width, 0 without a terminal."""
        key, connection, state = self.key, self.connection, self.state(now)
        name = replace_unprintable(f"{key.server_name} ({key.owner})" if key.owner else key.server_name)
        if self.error is not None:
            rows = [("Because", str(self.error)), *_server_message_rows(self.error.server_message)]
            rows.append(("Do", self.error.advice))
            return f"{CROSS_MARK} {name}: unreadable\n{table([*rows, *self._waiting_rows(now)], columns)}"
        rows = [] if connection is None else connection_rows(connection)
        if connection is not None and connection.refreshed_at is not None:
            rows.append(("Refreshed", f"{display_duration(max(now - connection.refreshed_at, 0))} ago"))
        # If the session has ended, the state says so, and the last refresh failure does not help the user.
        if (
            connection is not None
            and connection.refresh_failure is not None
            and state in {"connected", "refresh failing"}
        ):
            rows += _refresh_failure_rows(connection.refresh_failure, now)
        if state == "connected":
            if connection is not None and connection.needed_scope is not None:
                rows.append(("Do", login_command(self.server_argument, key.owner)))
            rows += [(label, text) for label, text in self._outlook_rows(now) if text is not None]
            return f"{CHECK_MARK} {name}: {state}\n{table([*rows, *self._waiting_rows(now)], columns)}"
        if state == "refresh failing":
            # The user can do nothing if the server fails.
            return f"{CROSS_MARK} {name}: {state}\n{table([*rows, *self._waiting_rows(now)], columns)}"
        if connection is not None:
            rows.append(("Because", connection.login_needed or self._end_text(now)))
        if connection is not None or not self.waiting_logins:
            rows.append(("Do", login_command(self.server_argument, key.owner)))
        return f"{CROSS_MARK} {name}: {state}\n{table([*rows, *self._waiting_rows(now)], columns)}"

    def to_event(self, now: float) -> dict[str, object]:
        """Return the status for programs, without the URLs of waiting logins: only the user may see those."""
        connection, error = self.connection, self.error
        event: dict[str, object] = {
            "server": self.key.server_name,
            "owner": self.key.owner,
            "state": self.state(now).replace(" ", "_"),
        }
        if error is not None:
            event |= {"message": str(error), "advice": error.advice}
        if connection is not None:
            event |= {
                "url": connection.server_url,
                "issuer": connection.issuer,
                "account": connection.account,
                "scope": sorted(connection.scope) if connection.scope is not None else None,
                "missing_scope": sorted(connection.missing_scope),
                "needed_scope": None if connection.needed_scope is None else sorted(connection.needed_scope),
                "expires_at": connection.expires_at,
                "can_refresh": connection.can_refresh,
                "refreshed_at": connection.refreshed_at,
                "refresh_expires_at": connection.refresh_expires_at,
                "reason": connection.login_needed,
                "refresh_failure": _failure_event(connection.refresh_failure),
                "token_refusal": _refusal_event(connection.token_refusal),
                "next": self.next_step(now),
                "warning": self.warning(now),
            }
        waiting = [{"login_id": login.id, "expires_at": login.expires_at} for login in self.waiting_logins]
        return event | {"waiting": waiting}

    def _outlook_rows(self, now: float) -> tuple[tuple[str, str | None], ...]:
        return ("Next", self.next_step(now)), ("Warning", self.warning(now))

    def _end_text(self, now: float) -> str:
        session = self.session(now)
        ends_at = None if session is None else session.ends_at
        return "it has ended" if ends_at is None else f"it ended at {clock_time(ends_at, now)}"

    def _waiting_rows(self, now: float) -> list[tuple[str, str]]:
        return [("Waiting", _waiting_text(login, now)) for login in self.waiting_logins]


def _server_message_rows(server_message: str) -> list[tuple[str, str]]:
    return [(SERVER_SAYS, quote_server_message(server_message))] if server_message else []


def _refresh_failure_rows(failure: RefreshFailure, now: float) -> list[tuple[str, str]]:
    """Describe the last refresh failure and when the next refresh is due."""
    count = "once" if failure.failures == 1 else f"{failure.failures} times"
    summary = f"failed {count} since {clock_time(failure.first_at, now)}: {failure.message}"
    rows = [("Refresh", summary), *_server_message_rows(failure.server_message)]
    if failure.retry_at is not None:
        rows.append(("Retries", f"when it is used after {clock_time(failure.retry_at, now)}"))
        rows.append(("If it lasts", failure.advice))
    return rows


def _refusal_event(refusal: TokenRefusal | None) -> dict[str, object] | None:
    if refusal is None:
        return None
    return {"refreshes": refusal.refreshes, "since": refusal.first_at, "retry_at": refusal.retry_at}


def _failure_event(failure: RefreshFailure | None) -> dict[str, object] | None:
    if failure is None:
        return None
    return {
        "error": failure.kind,
        "message": failure.message,
        "advice": failure.advice,
        "since": failure.first_at,
        "last_at": failure.last_at,
        "failures": failure.failures,
        "is_final": failure.is_final,
        "retry_at": failure.retry_at,
    }


def _waiting_text(login: Login, now: float) -> str:
    until = clock_time(login.expires_at, now)
    if login.poll_state is not None:
        # In the device flow there is nothing to paste: the process that started the login polls.
        return f"a login waits until {until} for a code to be entered on another device"
    return f"a login waits until {until}: hermes-mcp-auth login --finish {login.id}"
