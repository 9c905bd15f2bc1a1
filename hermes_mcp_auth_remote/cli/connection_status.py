"""How a login stands: in a word, for people and for programs, with what comes next. Values in, text out."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_mcp_auth_remote.cli.servers import login_command
from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure
from hermes_mcp_auth_remote.phrases import SERVER_SAYS, about, duration, quoted_words, shown
from hermes_mcp_auth_remote.terminal.text import NO, YES, clock_time, table
from hermes_mcp_auth_remote.values import Key


@dataclass(frozen=True, slots=True)
class Standing:
    """How one server and owner stand: a connection, none, or the error that hides it.

    `named` is what it can be named by again; `needs_nobody` where its grant asks no person; `waiting` are
    the logins that wait for one.
    """

    key: Key
    named: str
    found: Connection | None = None
    error: McpAuthError | None = None
    needs_nobody: bool = False
    waiting: tuple[Login, ...] = ()

    def state(self, now: float) -> str:
        """Say it in a word or two; an error's code where there is one. `now` is in epoch seconds."""
        if self.error is not None:
            return self.error.code
        if self.found is None:
            return "not connected"
        if self.found.login_needed is not None:
            return "login needed"
        ends = self.found.expires_at
        if ends is None or ends > now:
            return "connected"
        if not self._renews(now):
            return "expired"
        return "connected" if self.found.refresh_failure is None else "refresh failing"

    def next(self, now: float) -> str | None:
        """Say what will happen by itself, None where nothing will."""
        found = self.found
        if found is None or self.state(now) != "connected":
            return None
        if found.expires_at is None:
            return "lasts until the provider ends it"
        when = clock_time(found.expires_at, now)
        if self._renews(now):
            return f"renews itself by {when}" if found.expires_at > now else "renews itself when it is used"
        return f"ends at {when} ({duration(found.expires_at - now)}), then log in again"

    def warning(self, now: float) -> str | None:
        """Say what a person should do soon; None where nothing has to be done."""
        found = self.found
        if found is None or self.needs_nobody or self.state(now) != "connected":
            return None
        ends = found.near_end(now)
        if ends is None:
            return None
        if self._renews(now):
            return f"log in again before {clock_time(ends, now)}, when the provider ends the session"
        return f"log in again before {clock_time(ends, now)}: this login cannot renew itself"

    def paragraph(self, now: float, columns: int) -> str:
        """Write it for people."""
        key, found, state = self.key, self.found, self.state(now)
        name = shown(f"{key.server} ({key.owner})" if key.owner else key.server)
        if self.error is not None:
            rows = [("Because", str(self.error)), *_server_says(self.error.server_words)]
            rows.append(("Do", self.error.advice))
            return f"{NO} {name}: unreadable\n{table([*rows, *self._waits(now)], columns)}"
        rows = [] if found is None else about(found)
        if found is not None and found.refreshed_at is not None:
            rows.append(("Refreshed", f"{duration(max(now - found.refreshed_at, 0))} ago"))
        # A session that has ended says so itself; what its last refresh met adds nothing to act on.
        if (
            found is not None
            and found.refresh_failure is not None
            and state in {"connected", "refresh failing"}
        ):
            rows += _failed(found.refresh_failure, now)
        if state == "connected":
            rows += [(label, said) for label, said in self._ahead(now) if said is not None]
            return f"{YES} {name}: {state}\n{table([*rows, *self._waits(now)], columns)}"
        if state == "refresh failing":
            # A person can do nothing about a server that is not well.
            return f"{NO} {name}: {state}\n{table([*rows, *self._waits(now)], columns)}"
        if found is not None:
            rows.append(("Because", found.login_needed or _ended(found, now)))
        if found is not None or not self.waiting:
            rows.append(("Do", login_command(self.named, key.owner)))
        return f"{NO} {name}: {state}\n{table([*rows, *self._waits(now)], columns)}"

    def event(self, now: float) -> dict[str, object]:
        """Write it for programs. No address of a waiting login: that is for the person who logs in."""
        found, error = self.found, self.error
        event: dict[str, object] = {
            "server": self.key.server,
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
                "next": self.next(now),
                "warning": self.warning(now),
            }
        waiting = [{"login_id": login.id, "expires_at": login.expires_at} for login in self.waiting]
        return event | {"waiting": waiting}

    def _renews(self, now: float) -> bool:
        return self.needs_nobody or (self.found is not None and self.found.renews(now))

    def _ahead(self, now: float) -> tuple[tuple[str, str | None], ...]:
        return ("Next", self.next(now)), ("Warning", self.warning(now))

    def _waits(self, now: float) -> list[tuple[str, str]]:
        return [("Waiting", _waits(login, now)) for login in self.waiting]


def _server_says(words: str) -> list[tuple[str, str]]:
    return [(SERVER_SAYS, quoted_words(words))] if words else []


def _failed(failure: RefreshFailure, now: float) -> list[tuple[str, str]]:
    """Say that the last refresh failed, why, and when the next one is due."""
    times = "once" if failure.failures == 1 else f"{failure.failures} times"
    since = f"failed {times} since {clock_time(failure.first_at, now)}: {failure.message}"
    rows = [("Refresh", since), *_server_says(failure.server_words)]
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


def _waits(login: Login, now: float) -> str:
    until = clock_time(login.expires_at, now)
    if login.device is not None:
        # It has nothing to paste: whoever began it asks the server.
        return f"a login waits until {until} for a code to be entered on another device"
    return f"a login waits until {until}: hermes-mcp-auth login --finish {login.id}"


def _ended(found: Connection, now: float) -> str:
    ends = found.expires_at
    return "it has ended" if ends is None else f"it ended at {clock_time(ends, now)}"
