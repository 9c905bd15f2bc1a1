"""Failed refreshes of one session: in this process's memory, and on the disk for all others."""

from __future__ import annotations

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure, after_failure
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import Key, Secret

_Pair = tuple[Secret, Secret | None]


class FailureMemory:
    """What the last refresh of a session's tokens came to. Its caller holds the session's lock."""

    __slots__ = ("_key", "_remembered", "_store")

    def __init__(self, store: FileStore, key: Key) -> None:
        self._store = store
        self._key = key
        # The tokens that it is about, what is known of it, and the error as it was raised.
        self._remembered: tuple[_Pair, RefreshFailure, McpAuthError] | None = None

    def last(self, tokens: Tokens) -> tuple[RefreshFailure, McpAuthError] | None:
        """Return the last failure with these tokens, in whichever process, and its error; None for none."""
        stored = self._store.refresh_failures.read(self._key, tokens)
        mine = self._remembered
        is_mine = mine is not None and mine[0] == _pair(tokens)
        if mine is not None and is_mine and (stored is None or stored.last_at <= mine[1].last_at):
            return mine[1], mine[2].with_traceback(None)
        return None if stored is None else (stored, stored.as_error())

    def note(self, tokens: Tokens, trouble: McpAuthError, now: float, *, is_alive: bool) -> RefreshFailure:
        """Remember that a refresh with these tokens failed; `now` is in epoch seconds.

        What only this process's network did is no news for others.
        """
        before = self.last(tokens)
        failure = after_failure(None if before is None else before[0], trouble, now, is_alive=is_alive)
        self._remembered = _pair(tokens), failure, trouble
        if failure.is_answered:
            self._store.refresh_failures.write(self._key, tokens, failure)
        return failure

    def clear(self) -> None:
        """Forget it: a refresh succeeded."""
        self._remembered = None
        self._store.refresh_failures.clear(self._key)


def _pair(tokens: Tokens) -> _Pair:
    # A new login may bring the access token that there was, with another refresh token.
    return tokens.access_token, tokens.refresh_token
