"""Track failed refreshes of one session: in memory, and on the disk for other processes."""

from __future__ import annotations

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.refresh_failure import RefreshFailure, build_refresh_failure
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store.protocol import RefreshFailureStore
from hermes_mcp_auth_remote.values import CredentialKey, Secret

_TokenPair = tuple[Secret, Secret | None]


class RefreshFailureTracker:
    """The last failed refresh of a session's tokens. The caller holds the session's lock."""

    __slots__ = (
        "_key",
        "_last_failure",
        "_store",
    )

    def __init__(self, store: RefreshFailureStore, key: CredentialKey) -> None:
        self._store = store
        self._key = key
        # The tokens that could not be refreshed, the failure's record, and the error that was raised.
        self._last_failure: tuple[_TokenPair, RefreshFailure, McpAuthError] | None = None

    def last_failure(self, tokens: Tokens) -> tuple[RefreshFailure, McpAuthError] | None:
        """Return the last failure with these tokens in any process, and its error; None if there is none."""
        stored = self._store.read(self._key, tokens)
        own_failure = self._last_failure
        is_own = own_failure is not None and own_failure[0] == _token_pair(tokens)
        if (
            own_failure is not None
            and is_own
            and (stored is None or stored.last_at <= own_failure[1].last_at)
        ):
            return own_failure[1], own_failure[2].with_traceback(None)
        return None if stored is None else (stored, stored.as_error())

    def save_failure(
        self, tokens: Tokens, error: McpAuthError, now: float, *, is_token_valid: bool
    ) -> RefreshFailure:
        """Record that a refresh with these tokens failed; `now` is in epoch seconds.

        A network error of this process is not written to the disk: it does not concern other processes.
        """
        previous = self.last_failure(tokens)
        failure = build_refresh_failure(
            None if previous is None else previous[0], error, now, is_token_valid=is_token_valid
        )
        self._last_failure = _token_pair(tokens), failure, error
        if failure.is_answered:
            self._store.write(self._key, tokens, failure)
        return failure

    def clear(self) -> None:
        """Forget the last failure, after a refresh that succeeded."""
        self._last_failure = None
        self._store.clear(self._key)


def _token_pair(tokens: Tokens) -> _TokenPair:
    # A new login may return the same access token with another refresh token.
    return tokens.access_token, tokens.refresh_token
