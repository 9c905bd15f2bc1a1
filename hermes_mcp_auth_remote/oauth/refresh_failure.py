"""A refresh that failed: for how long no other one is sent, and when the session is over. Values; no I/O.

RFC 6749 section 5.2 says which refusals there are, and not which of them last; the rule is in `token_errors`.
"""

from __future__ import annotations

from dataclasses import dataclass

from hermes_mcp_auth_remote.errors import (
    AnswerTooLarge,
    McpAuthError,
    RedirectRefused,
    RegistrationRefused,
    ServerError,
    TokenRefused,
    UnreadableAnswer,
)

# While the old token works, nobody waits: the first pause, and the longest one.
ALIVE_PAUSE_SECONDS = 15.0
MAX_ALIVE_PAUSE_SECONDS = 300.0
# Once it has ended, everybody waits.
ENDED_PAUSE_SECONDS = 5.0
MAX_ENDED_PAUSE_SECONDS = 30.0
# A server that has lost its data base may answer 401 for a moment.
UNAUTHORIZED_SECONDS = 60.0


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
            (ALIVE_PAUSE_SECONDS, MAX_ALIVE_PAUSE_SECONDS)
            if self.was_alive
            else (ENDED_PAUSE_SECONDS, MAX_ENDED_PAUSE_SECONDS)
        )
        if not self.is_answered:
            # A network comes back at once, and asking costs nobody else anything.
            return first
        return min(first * 2.0 ** min(max(self.in_phase - 1, 0), 16), longest)

    @property
    def retry_at(self) -> float | None:
        """When the next refresh may be sent while nothing else changes; None for a session that is over."""
        return None if self.is_final else self.last_at + self.pause_seconds

    def may_retry(self, now: float, *, is_alive: bool) -> bool:
        """True if a refresh may be sent now. `is_alive` says whether the access token still works.

        When the access token ends, one more refresh is sent, whatever was said before.
        """
        if self.was_alive and not is_alive:
            return True
        if self.is_final:
            return False
        # Before `last_at`: the clock was set back.
        return not self.last_at <= now < self.last_at + self.pause_seconds

    def as_error(self) -> McpAuthError:
        """Return the error that this failure was, for a process that did not see it."""
        by_kind: dict[str, type[McpAuthError]] = {
            each.code: each for each in (UnreadableAnswer, RedirectRefused, AnswerTooLarge)
        }
        made = by_kind.get(self.kind)
        if made is not None:
            return made(self.message, self.advice, server_words=self.server_words)
        return TokenRefused(
            self.message, self.error or "", self.advice, server_words=self.server_words, verdict="passing"
        )


def after_failure(
    before: RefreshFailure | None, trouble: McpAuthError, now: float, *, is_alive: bool
) -> RefreshFailure:
    """Return what is known once a refresh has failed. `now` is in epoch seconds; `before` the last failure.

    A 401 without a word is final if it comes twice, 60 s apart.
    """
    if before is not None and before.last_at > now:
        # The clock was set back.
        before = None
    verdict = trouble.verdict if isinstance(trouble, TokenRefused) else "passing"
    unauthorized_at = None if before is None else before.unauthorized_at
    if verdict == "unauthorized" and unauthorized_at is None:
        unauthorized_at = now
    lasts = (
        verdict == "unauthorized"
        and unauthorized_at is not None
        and now - unauthorized_at >= UNAUTHORIZED_SECONDS
    )
    # RegistrationRefused: there is no key or secret to authenticate with, so nothing was sent.
    is_answered = isinstance(trouble, ServerError | RedirectRefused | AnswerTooLarge)
    is_answered = is_answered and not isinstance(trouble, RegistrationRefused)
    in_phase = before.in_phase if before is not None and before.was_alive == is_alive else 0
    return RefreshFailure(
        first_at=now if before is None else before.first_at,
        last_at=now,
        failures=1 if before is None else before.failures + 1,
        in_phase=in_phase + is_answered,
        was_alive=is_alive,
        is_final=verdict == "final" or lasts,
        message=str(trouble),
        advice=trouble.advice,
        kind=trouble.code,
        error=trouble.error if isinstance(trouble, TokenRefused) else None,
        server_words=trouble.server_words,
        unauthorized_at=unauthorized_at,
        is_answered=is_answered,
    )
