"""Failed refreshes of one session: in this process's memory, and on the disk for all others."""

from __future__ import annotations

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure, build_refresh_failure
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Secret

_TokenPair = tuple[Secret, Secret | None]


class RefreshFailureTracker:
    """What the last refresh of a session's tokens came to. Its caller holds the session's lock."""

    __slots__ = (
        "_key",
        "_last_failure",
        "_store",
    )

    def __init__(self, store: FileStore, key: CredentialKey) -> None:
        self._store = store
        self._key = key
        # The tokens that it is about, what is known of it, and the error as it was raised.
        self._last_failure: tuple[_TokenPair, RefreshFailure, McpAuthError] | None = None

    def last_failure(self, tokens: Tokens) -> tuple[RefreshFailure, McpAuthError] | None:
        """Return the last failure with these tokens, in whichever process, and its error; None for none."""
        stored = self._store.refresh_failures.read(self._key, tokens)
        mine = self._last_failure
        is_mine = mine is not None and mine[0] == _token_pair(tokens)
        if mine is not None and is_mine and (stored is None or stored.last_at <= mine[1].last_at):
            return mine[1], mine[2].with_traceback(None)
        return None if stored is None else (stored, stored.as_error())

    def save_failure(
        self, tokens: Tokens, error: McpAuthError, now: float, *, is_token_valid: bool
    ) -> RefreshFailure:
        """Remember that a refresh with these tokens failed; `now` is in epoch seconds.

        What only this process's network did is no news for others.
        """
        before = self.last_failure(tokens)
        failure = build_refresh_failure(
            None if before is None else before[0], error, now, is_token_valid=is_token_valid
        )
        self._last_failure = _token_pair(tokens), failure, error
        if failure.is_answered:
            self._store.refresh_failures.write(self._key, tokens, failure)
        return failure

    def clear(self) -> None:
        """Forget it: a refresh succeeded."""
        self._last_failure = None
        self._store.refresh_failures.clear(self._key)


def _token_pair(tokens: Tokens) -> _TokenPair:
    # A new login may bring the access token that there was, with another refresh token.
    return tokens.access_token, tokens.refresh_token
