"""How a login stands: in a word, for people and for programs, with what comes next. Values in, text out."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_mcp_auth_remote.cli.servers import login_command
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.phrases import (
    SERVER_SAYS,
    connection_rows,
    display_duration,
    quote_server_message,
    replace_unprintable,
)
from hermes_mcp_auth_remote.terminal.text import CHECK_MARK, CROSS_MARK, clock_time, table
from hermes_mcp_auth_remote.values import CredentialKey


@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """How one server and owner stand: a connection, none, or the error that hides it.

    `named` is what it can be named by again; `needs_nobody` where its grant asks no person; `waiting` are
    the logins that wait for one.
    """

    key: CredentialKey
    server_argument: str
    connection: Connection | None = None
    error: McpAuthError | None = None
    uses_machine_grant: bool = False
    waiting_logins: tuple[Login, ...] = ()

    def state(self, now: float) -> str:
        """Say it in a word or two; an error's code where there is one. `now` is in epoch seconds."""
        if self.error is not None:
            return self.error.code
        if self.connection is None:
            return "not connected"
        if self.connection.login_needed is not None:
            return "login needed"
        ends = self.connection.expires_at
        if ends is None or ends > now:
            return "connected"
        if not self._can_refresh(now):
            return "expired"
        return "connected" if self.connection.refresh_failure is None else "refresh failing"

    def next_step(self, now: float) -> str | None:
        """Say what will happen by itself, None where nothing will."""
        found = self.connection
        if found is None or self.state(now) != "connected":
            return None
        if found.expires_at is None:
            return "lasts until the provider ends it"
        when = clock_time(found.expires_at, now)
        if self._can_refresh(now):
            return f"renews itself by {when}" if found.expires_at > now else "renews itself when it is used"
        return f"ends at {when} ({display_duration(found.expires_at - now)}), then log in again"

    def warning(self, now: float) -> str | None:
        """Say what a person should do soon; None where nothing has to be done."""
        found = self.connection
        if found is None or self.uses_machine_grant or self.state(now) != "connected":
            return None
        ends = found.upcoming_expiry(now)
        if ends is None:
            return None
        if self._can_refresh(now):
            return f"log in again before {clock_time(ends, now)}, when the provider ends the session"
        return f"log in again before {clock_time(ends, now)}: this login cannot renew itself"

    def to_text(self, now: float, columns: int) -> str:
        """Write it for people."""
        key, found, state = self.key, self.connection, self.state(now)
        name = replace_unprintable(f"{key.server_name} ({key.owner})" if key.owner else key.server_name)
        if self.error is not None:
            rows = [("Because", str(self.error)), *_server_message_rows(self.error.server_message)]
            rows.append(("Do", self.error.advice))
            return f"{CROSS_MARK} {name}: unreadable\n{table([*rows, *self._waiting_rows(now)], columns)}"
        rows = [] if found is None else connection_rows(found)
        if found is not None and found.refreshed_at is not None:
            rows.append(("Refreshed", f"{display_duration(max(now - found.refreshed_at, 0))} ago"))
        # A session that has ended says so itself; what its last refresh met adds nothing to act on.
        if (
            found is not None
            and found.refresh_failure is not None
            and state in {"connected", "refresh failing"}
        ):
            rows += _refresh_failure_rows(found.refresh_failure, now)
        if state == "connected":
            rows += [(label, said) for label, said in self._outlook_rows(now) if said is not None]
            return f"{CHECK_MARK} {name}: {state}\n{table([*rows, *self._waiting_rows(now)], columns)}"
        if state == "refresh failing":
            # A person can do nothing about a server that is not well.
            return f"{CROSS_MARK} {name}: {state}\n{table([*rows, *self._waiting_rows(now)], columns)}"
        if found is not None:
            rows.append(("Because", found.login_needed or _ended_text(found, now)))
        if found is not None or not self.waiting_logins:
            rows.append(("Do", login_command(self.server_argument, key.owner)))
        return f"{CROSS_MARK} {name}: {state}\n{table([*rows, *self._waiting_rows(now)], columns)}"

    def to_event(self, now: float) -> dict[str, object]:
        """Write it for programs. No address of a waiting login: that is for the person who logs in."""
        found, error = self.connection, self.error
        event: dict[str, object] = {
            "server": self.key.server_name,
            "owner": self.key.owner,
            "state": self.state(now).replace(" ", "_"),
        }
        if error is not None:
            event |= {"message": str(error), "advice": error.advice}
        if found is not None:
            event |= {
                "url": found.server_url,
                "issuer": found.issuer,
                "account": found.account,
                "scope": sorted(found.scope) if found.scope is not None else None,
                "missing_scope": sorted(found.missing_scope),
                "expires_at": found.expires_at,
                "can_refresh": found.can_refresh,
                "refreshed_at": found.refreshed_at,
                "refresh_expires_at": found.refresh_expires_at,
                "reason": found.login_needed,
                "refresh_failure": _failure_event(found.refresh_failure),
                "next": self.next_step(now),
                "warning": self.warning(now),
            }
        waiting = [{"login_id": login.id, "expires_at": login.expires_at} for login in self.waiting_logins]
        return event | {"waiting": waiting}

    def _can_refresh(self, now: float) -> bool:
        return self.uses_machine_grant or (
            self.connection is not None and self.connection.can_refresh_at(now)
        )

    def _outlook_rows(self, now: float) -> tuple[tuple[str, str | None], ...]:
        return ("Next", self.next_step(now)), ("Warning", self.warning(now))

    def _waiting_rows(self, now: float) -> list[tuple[str, str]]:
        return [("Waiting", _waiting_text(login, now)) for login in self.waiting_logins]


def _server_message_rows(server_words: str) -> list[tuple[str, str]]:
    return [(SERVER_SAYS, quote_server_message(server_words))] if server_words else []


def _refresh_failure_rows(failure: RefreshFailure, now: float) -> list[tuple[str, str]]:
    """Say that the last refresh failed, why, and when the next one is due."""
    times = "once" if failure.failures == 1 else f"{failure.failures} times"
    since = f"failed {times} since {clock_time(failure.first_at, now)}: {failure.message}"
    rows = [("Refresh", since), *_server_message_rows(failure.server_words)]
    if failure.retry_at is not None:
        rows.append(("Tries again", f"when it is used after {clock_time(failure.retry_at, now)}"))
        rows.append(("If it lasts", failure.advice))
    return rows


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
        # It has nothing to paste: whoever began it asks the server.
        return f"a login waits until {until} for a code to be entered on another device"
    return f"a login waits until {until}: hermes-mcp-auth login --finish {login.id}"


def _ended_text(connection: Connection, now: float) -> str:
    ends = connection.expires_at
    return "it has ended" if ends is None else f"it ended at {clock_time(ends, now)}"
