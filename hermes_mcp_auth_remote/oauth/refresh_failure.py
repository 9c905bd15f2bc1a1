"""A refresh that failed: for how long no other one is sent, and when the session is over. Values; no I/O.

RFC 6749 section 5.2 says which refusals there are, and not which of them last; the rule is in `token_errors`.
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

# While the old token works, nobody waits: the first pause, and the longest one.
VALID_TOKEN_PAUSE_SECONDS = 15.0
MAX_VALID_TOKEN_PAUSE_SECONDS = 300.0
# Once it has ended, everybody waits.
EXPIRED_TOKEN_PAUSE_SECONDS = 5.0
MAX_EXPIRED_TOKEN_PAUSE_SECONDS = 30.0
# A server that has lost its data base may answer 401 for a moment.
UNAUTHORIZED_GRACE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RefreshFailure:
    """What came of the last refresh, which brought no tokens. Times are epoch seconds.

    `failures` counts them since `first_at`, `in_phase` those that the server answered since the access token
    ended (or, before that, while it works). `was_alive` is True if the access token still worked at the last
    one. `is_final` says that the refresh token is dead. `unauthorized_at` is the time of the first 401 that
    said nothing else. `kind` is the error's `.code`, `error` that of the token endpoint, None without one.
    `is_answered` is False if the network or this machine stopped it.
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
    server_words: str = ""
    unauthorized_at: float | None = None
    is_answered: bool = True

    @property
    def pause_seconds(self) -> float:
        """How long after this failure no refresh is sent; longer each time that the server has answered."""
        first, longest = (
            (VALID_TOKEN_PAUSE_SECONDS, MAX_VALID_TOKEN_PAUSE_SECONDS)
            if self.was_alive
            else (EXPIRED_TOKEN_PAUSE_SECONDS, MAX_EXPIRED_TOKEN_PAUSE_SECONDS)
        )
        if not self.is_answered:
            # A network comes back at once, and asking costs nobody else anything.
            return first
        return min(first * 2.0 ** min(max(self.in_phase - 1, 0), 16), longest)

    @property
    def retry_at(self) -> float | None:
        """When the next refresh may be sent while nothing else changes; None for a session that is over."""
        return None if self.is_final else self.last_at + self.pause_seconds

    def can_retry(self, now: float, *, is_token_valid: bool) -> bool:
        """True if a refresh may be sent now. `is_alive` says whether the access token still works.

        When the access token ends, one more refresh is sent, whatever was said before.
        """
        if self.was_alive and not is_token_valid:
            return True
        if self.is_final:
            return False
        # Before `last_at`: the clock was set back.
        return not self.last_at <= now < self.last_at + self.pause_seconds

    def as_error(self) -> McpAuthError:
        """Return the error that this failure was, for a process that did not see it."""
        by_kind: dict[str, type[McpAuthError]] = {
            each.code: each for each in (MalformedResponse, RedirectRefused, ResponseTooLarge)
        }
        made = by_kind.get(self.kind)
        if made is not None:
            return made(self.message, self.advice, server_message=self.server_words)
        return TokenError(
            self.message, self.error or "", self.advice, server_message=self.server_words, verdict="passing"
        )


def build_refresh_failure(
    previous_failure: RefreshFailure | None, error: McpAuthError, now: float, *, is_token_valid: bool
) -> RefreshFailure:
    """Return what is known once a refresh has failed. `now` is in epoch seconds; `before` the last failure.

    A 401 without a word is final if it comes twice, 60 s apart.
    """
    if previous_failure is not None and previous_failure.last_at > now:
        # The clock was set back.
        previous_failure = None
    verdict = error.verdict if isinstance(error, TokenError) else "passing"
    unauthorized_at = None if previous_failure is None else previous_failure.unauthorized_at
    if verdict == "unauthorized" and unauthorized_at is None:
        unauthorized_at = now
    lasts = (
        verdict == "unauthorized"
        and unauthorized_at is not None
        and now - unauthorized_at >= UNAUTHORIZED_GRACE_SECONDS
    )
    # RegistrationRefused: there is no key or secret to authenticate with, so nothing was sent.
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
        is_final=verdict == "final" or lasts,
        message=str(error),
        advice=error.advice,
        kind=error.code,
        error=error.error if isinstance(error, TokenError) else None,
        server_words=error.server_message,
        unauthorized_at=unauthorized_at,
        is_answered=is_answered,
    )
