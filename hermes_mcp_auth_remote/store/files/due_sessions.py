"""The sessions whose users must act, kept in memory: files have no index of times.

A pass reads only the sessions that have changed since the last one (`key_changes`).
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable

from hermes_mcp_auth_remote.errors import StoreError
from hermes_mcp_auth_remote.fork import reset_after_fork
from hermes_mcp_auth_remote.store.files.key_changes import FileKeyChanges
from hermes_mcp_auth_remote.store.protocol import DueSession
from hermes_mcp_auth_remote.values import CredentialKey

_Order = tuple[float, str, bool, str]


class DueSessions:
    """The sessions of a store with a time from which their user must act. Any thread may use it."""

    def __init__(
        self, changes: FileKeyChanges, read_session: Callable[[CredentialKey], DueSession | None]
    ) -> None:
        self._changes = changes
        self._read_session = read_session
        self._sessions: dict[CredentialKey, DueSession] = {}
        # The same sessions in the order of their times.
        self._sorted: list[DueSession] = []
        self.reset_in_child()
        reset_after_fork(self)

    def reset_in_child(self) -> None:
        """Reset the lock, which a thread of the parent process may have held; read everything again."""
        self._lock = threading.Lock()
        self._changes.forget()
        self._sessions = {}

    def list_due(self, now: float, after: DueSession | None, limit: int) -> list[DueSession]:
        """List what is due at `now` (epoch seconds); raises StoreUnsafe, StoreUnwritable."""
        with self._lock:
            self._update()
            start = 0 if after is None else bisect_right(self._sorted, _order_of(after), key=_order_of)
            end = bisect_right(self._sorted, now, key=lambda session: session.remind_at)
            return self._sorted[start : min(end, start + limit)]

    def _update(self) -> None:
        changed_keys = self._changes.poll()
        for key in changed_keys:
            try:
                session = self._read_session(key)
            except StoreError:
                # `status` shows the error.
                session = None
            if session is None:
                self._sessions.pop(key, None)
            else:
                self._sessions[key] = session
        if changed_keys:
            self._sorted = sorted(self._sessions.values(), key=_order_of)


def _order_of(session: DueSession) -> _Order:
    key = session.key
    return session.remind_at, key.server_name, key.owner is not None, key.owner or ""
