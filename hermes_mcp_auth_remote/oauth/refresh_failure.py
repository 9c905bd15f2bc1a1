"""A failed refresh: how long to wait before the next one, and when the session is over. No I/O.

RFC 6749 section 5.2 lists the errors, but not which of them are permanent; that rule is in `token_errors`.
"""

from __future__ import annotations

from dataclasses import dataclass

from hermes_mcp_auth_remote.errors import (
    MalformedResponse,
    McpAuthError,
    RedirectRefused,
    RegistrationError,
    ResponseTooLarge,
    ServerError,
    TokenError,
)

# The first and the longest pause while the access token is valid: no caller has to wait.
VALID_TOKEN_PAUSE_SECONDS = 15.0
MAX_VALID_TOKEN_PAUSE_SECONDS = 300.0
# The first and the longest pause after the access token has expired: all callers wait.
EXPIRED_TOKEN_PAUSE_SECONDS = 5.0
MAX_EXPIRED_TOKEN_PAUSE_SECONDS = 30.0
# A server whose database is down may respond with 401 for a short time. A 401 that lasts longer is final.
UNAUTHORIZED_GRACE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RefreshFailure:
    """The last failed refresh, with counts since the last successful one. All times are in epoch seconds.

    `failures` counts the failures since `first_at`. There are two phases: before and after the access token
    expires. `in_phase` counts the refreshes of the current phase that failed although the server responded.
    `was_alive` is True if the access token was still valid at the last failure. `is_final` is True if the
    refresh token will never work again. `unauthorized_at` is the time of the first 401 without an error code.
    `kind` is the `.code` of the error; `error` is the error code of the token endpoint, or None.
    `is_answered` is False if the network or this machine caused the failure.
    """

    first_at: float
    last_at: float
    failures: int
    in_phase: int
    was_alive: bool
    is_final: bool
    message: str
    advice: str
    kind: str
    error: str | None = None
    server_message: str = ""
    unauthorized_at: float | None = None
    is_answered: bool = True

    @property
    def pause_seconds(self) -> float:
        """The wait after this failure, in seconds. It doubles with each error response of the server."""
        first, longest = (
            (VALID_TOKEN_PAUSE_SECONDS, MAX_VALID_TOKEN_PAUSE_SECONDS)
            if self.was_alive
            else (EXPIRED_TOKEN_PAUSE_SECONDS, MAX_EXPIRED_TOKEN_PAUSE_SECONDS)
        )
        if not self.is_answered:
            # The network may return at any time, and a try does not load the server.
            return first
        return min(first * 2.0 ** min(max(self.in_phase - 1, 0), 16), longest)

    @property
    def retry_at(self) -> float | None:
        """The earliest time of the next refresh, in epoch seconds; None if the session is over."""
        return None if self.is_final else self.last_at + self.pause_seconds

    def can_retry(self, now: float, *, is_token_valid: bool) -> bool:
        """True if the caller may send a refresh at `now` (epoch seconds).

        After the access token expires, the caller may always send one more refresh.
        """
        if self.was_alive and not is_token_valid:
            return True
        if self.is_final:
            return False
        # `now` is before `last_at` if the clock was set back.
        return not self.last_at <= now < self.last_at + self.pause_seconds

    def as_error(self) -> McpAuthError:
        """Return the error of this failure, for a process that did not receive the error itself."""
        class_by_code: dict[str, type[McpAuthError]] = {
            error_class.code: error_class
            for error_class in (MalformedResponse, RedirectRefused, ResponseTooLarge)
        }
        error_class = class_by_code.get(self.kind)
        if error_class is not None:
            return error_class(self.message, self.advice, server_message=self.server_message)
        return TokenError(
            self.message,
            self.error or "",
            self.advice,
            server_message=self.server_message,
            verdict="temporary",
        )


def build_refresh_failure(
    previous_failure: RefreshFailure | None, error: McpAuthError, now: float, *, is_token_valid: bool
) -> RefreshFailure:
    """Return the RefreshFailure after a refresh has failed with `error`. `now` is in epoch seconds.

    A 401 without an error code is final if it occurs twice, at least 60 seconds apart.
    """
    if previous_failure is not None and previous_failure.last_at > now:
        # The clock was set back.
        previous_failure = None
    verdict = error.verdict if isinstance(error, TokenError) else "temporary"
    unauthorized_at = None if previous_failure is None else previous_failure.unauthorized_at
    if verdict == "unauthorized" and unauthorized_at is None:
        unauthorized_at = now
    is_lasting_401 = (
        verdict == "unauthorized"
        and unauthorized_at is not None
        and now - unauthorized_at >= UNAUTHORIZED_GRACE_SECONDS
    )
    # RegistrationError: a key or secret for the authentication is missing, so no request was sent.
    is_answered = isinstance(error, ServerError | RedirectRefused | ResponseTooLarge)
    is_answered = is_answered and not isinstance(error, RegistrationError)
    in_phase = (
        previous_failure.in_phase
        if previous_failure is not None and previous_failure.was_alive == is_token_valid
        else 0
    )
    return RefreshFailure(
        first_at=now if previous_failure is None else previous_failure.first_at,
        last_at=now,
        failures=1 if previous_failure is None else previous_failure.failures + 1,
        in_phase=in_phase + is_answered,
        was_alive=is_token_valid,
        is_final=verdict == "final" or is_lasting_401,
        message=str(error),
        advice=error.advice,
        kind=error.code,
        error=error.error if isinstance(error, TokenError) else None,
        server_message=error.server_message,
        unauthorized_at=unauthorized_at,
        is_answered=is_answered,
    )
