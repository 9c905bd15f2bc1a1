"""The status of a connection: its state, its end and what comes next, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from hermes_mcp_auth_remote.cli.output import error_members
from hermes_mcp_auth_remote.commands import finish_command, login_command
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.oauth.token_refusal import TokenRefusal
from hermes_mcp_auth_remote.phrases import (
    LASTS_LABEL,
    NOT_CONNECTED,
    SERVER_SAYS,
    connection_rows,
    display_duration,
    display_url,
    quote_server_message,
    replace_unprintable,
)
from hermes_mcp_auth_remote.status import SessionStatus, UserAction, session_status
from hermes_mcp_auth_remote.terminal.text import (
    CHECK_MARK,
    CROSS_MARK,
    LOG_IN,
    NEXT_LABEL,
    Command,
    clock_time,
    next_event,
    session_end,
    table,
)
from hermes_mcp_auth_remote.values import CredentialKey

UNREADABLE = "unreadable"
ADDRESS_LABEL, REASON_LABEL, COMMAND_LABEL = "Address", "Because", "Run"


@dataclass(slots=True)
class ConnectionStatus:
    """The status of one server and owner: a connection, no connection, or an error that prevented the check.

    `now` is the moment that it describes (epoch seconds). `session` is the status of the connection.
    `server_argument` is the name or address that names the server on the command line. `server_url` is ""
    if it is unknown. `uses_machine_grant` is True if the server's grant needs no user. `waiting_logins` are
    the logins that wait for an answer.
    """

    key: CredentialKey
    server_argument: str
    now: float
    connection: Connection | None = None
    error: McpAuthError | None = None
    uses_machine_grant: bool = False
    waiting_logins: tuple[Login, ...] = ()
    server_url: str = ""
    session: SessionStatus | None = field(init=False)

    def __post_init__(self) -> None:
        self.session = None
        if self.connection is not None:
            self.session = session_status(
                self.connection, self.now, uses_machine_grant=self.uses_machine_grant
            )

    @property
    def name(self) -> str:
        """The server's name and owner, for people."""
        key = self.key
        return replace_unprintable(f"{key.server_name} ({key.owner})" if key.owner else key.server_name)

    @property
    def state(self) -> str:
        """Return the state in one or two words."""
        if self.error is not None:
            return UNREADABLE
        session = self.session
        return NOT_CONNECTED if session is None else session.state

    @property
    def mark(self) -> str:
        """Return the mark that shows whether the server works."""
        return CHECK_MARK if self.state == "connected" else CROSS_MARK

    @property
    def action(self) -> UserAction:
        """Return what the user should do, by the state alone."""
        session = self.session
        if session is None:
            return "none" if self.uses_machine_grant or self.error is not None else "log in"
        return session.action

    @property
    def needs_person(self) -> bool:
        """True if the server does not work, or will not work for long, unless a person does something."""
        return self.error is not None or self.action != "none" or self._needs_another_login()

    @property
    def lasts(self) -> str:
        """Describe when the user must log in again, "" without a connection."""
        session = self.session
        return "" if self.error is not None or session is None else session_end(session, self.now)

    @property
    def next_step(self) -> str:
        """Describe what the user should do, or else what happens next by itself."""
        connection, session = self.connection, self.session
        if self.error is not None:
            return self.error.advice
        if connection is None or session is None:
            if self.waiting_logins:
                has_code = self.waiting_logins[-1].poll_state is not None
                return "enter the code on the other device" if has_code else "finish the login that waits"
            return "gets a token when it is used" if self.uses_machine_grant else LOG_IN
        if session.action == "none" and self._needs_another_login():
            return "log in again"
        return next_event(connection, session, self.now)

    def to_text(self, columns: int) -> str:
        """Format the status for people. `columns` is the terminal's width, 0 without a terminal."""
        rows = [] if self.connection is None else connection_rows(self.connection)
        if self.connection is not None and self.connection.refreshed_at is not None:
            seconds = max(self.now - self.connection.refreshed_at, 0)
            rows.append(("Refreshed", f"{display_duration(seconds)} ago"))
        rows += self._problem_rows()
        if lasts := self.lasts:
            rows.append((LASTS_LABEL, lasts))
        rows.append((NEXT_LABEL, self.next_step))
        rows += self._command_rows()
        return f"{self.mark} {self.name}: {self.state}\n{table(rows, columns)}"

    @property
    def cells(self) -> tuple[str, str, str, str, str]:
        """Return the values of a table row: name, state, account, end, next step."""
        account = replace_unprintable(self.connection.account or "") if self.connection is not None else ""
        # An advice may contain a command, which must not be broken.
        next_step = self.next_step if self.error is None else "see below"
        return self.name, self.state, account, self.lasts, next_step

    @property
    def attention_rows(self) -> list[tuple[str, str]]:
        """Return what the user needs to see below the row of a table; empty if all is well."""
        rows = [] if self.connection is None else connection_rows(self.connection)
        rows = [row for row in rows if row[0] in _PROBLEM_LABELS] + self._problem_rows()
        if self.error is not None:
            rows.append((NEXT_LABEL, self.next_step))
        return [*rows, *self._command_rows()]

    def to_event(self) -> dict[str, object]:
        """Return the status for programs. Omit the URLs of waiting logins: only their users may see these."""
        connection, error, session = self.connection, self.error, self.session
        event: dict[str, object] = {
            "event": "status",
            "server": self.key.server_name,
            "owner": self.key.owner,
            "url": (self.server_url if connection is None else connection.server_url) or None,
            "state": self.state.replace(" ", "_"),
            "action": self.action.replace(" ", "_"),
            "needs_person": self.needs_person,
            "next": self.next_step,
            "ends_at": None if session is None else session.ends_at,
            "waiting": [
                {"login_id": login.id, "expires_at": login.expires_at} for login in self.waiting_logins
            ],
        }
        event |= error_members(error)
        if connection is None:
            return event | dict.fromkeys(_CONNECTION_MEMBERS)
        return event | {
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
        }

    def _needs_another_login(self) -> bool:
        """True if the server demands more access, or refuses the tokens of this login."""
        connection = self.connection
        return connection is not None and (
            connection.needed_scope is not None or connection.token_refusal is not None
        )

    def _problem_rows(self) -> list[tuple[str, str]]:
        """Return the address of a server without a connection, and why it needs attention."""
        connection, session = self.connection, self.session
        if self.error is not None:
            return [(REASON_LABEL, str(self.error)), *_server_message_rows(self.error.server_message)]
        if connection is None or session is None:
            return [(ADDRESS_LABEL, display_url(self.server_url))] if self.server_url else []
        if session.action == "log in":
            # The last refresh failure adds nothing to act on.
            return [(REASON_LABEL, connection.login_needed or "its access token has ended")]
        rows: list[tuple[str, str]] = []
        if connection.refresh_failure is not None:
            is_failing = session.state == "refresh failing"
            rows += _refresh_failure_rows(connection.refresh_failure, self.now, has_retry=not is_failing)
        if session.action == "log in soon":
            reason = "the provider ends the session then"
            rows.append((REASON_LABEL, reason if session.can_refresh else "this login cannot refresh itself"))
        return rows

    def _command_rows(self) -> list[tuple[str, str]]:
        """Return the command for what the user should do, and the logins that wait."""
        rows: list[tuple[str, str]] = []
        is_login_started = self.connection is None and bool(self.waiting_logins)
        if self.error is None and self.needs_person and not is_login_started:
            rows.append((COMMAND_LABEL, Command(login_command(self.server_argument, self.key.owner))))
        for login in self.waiting_logins:
            rows += _waiting_rows(login, self.now)
        return rows


# The rows of `connection_rows` that name a problem.
_PROBLEM_LABELS = frozenset({"Problem", "More access"})
_CONNECTION_MEMBERS = (
    "issuer",
    "account",
    "scope",
    "missing_scope",
    "needed_scope",
    "expires_at",
    "can_refresh",
    "refreshed_at",
    "refresh_expires_at",
    "reason",
    "refresh_failure",
    "token_refusal",
)


def _server_message_rows(server_message: str) -> list[tuple[str, str]]:
    return [(SERVER_SAYS, quote_server_message(server_message))] if server_message else []


def _refresh_failure_rows(failure: RefreshFailure, now: float, *, has_retry: bool) -> list[tuple[str, str]]:
    """Describe the last refresh failure. If `has_retry`, also say when the next refresh is due."""
    count = "once" if failure.failures == 1 else f"{failure.failures} times"
    summary = f"failed {count} since {clock_time(failure.first_at, now)}: {failure.message}"
    rows = [("Refresh", summary), *_server_message_rows(failure.server_message)]
    if failure.retry_at is not None:
        if has_retry:
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


def _waiting_rows(login: Login, now: float) -> list[tuple[str, str]]:
    until = clock_time(login.expires_at, now)
    if login.poll_state is not None:
        # In the device flow there is nothing to paste: the process that started the login polls.
        return [("Waiting", f"a login waits until {until} for a code to be entered on another device")]
    return [("Waiting", f"a login waits until {until}"), (COMMAND_LABEL, Command(finish_command(login.id)))]
