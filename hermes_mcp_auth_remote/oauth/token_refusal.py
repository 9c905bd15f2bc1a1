"""Decide when to refresh again if a server refuses tokens that were just issued. No I/O.

After a 401, this program refreshes once and tries again (RFC 6750 section 3.1). If the new token is refused
too, another refresh does not help either, so the pause before the next refresh doubles.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# The first and the longest pause between two refreshes because of a 401.
FIRST_PAUSE_SECONDS = 15.0
MAX_PAUSE_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class TokenRefusal:
    """How often and when this program refreshed because of a 401 since the server last accepted a token.

    The object belongs to the tokens that the last of these refreshes obtained. `is_refused` is True if the
    server also refused these tokens. Times are in epoch seconds.
    """

    refreshes: int
    first_at: float
    last_at: float
    is_refused: bool = False

    @property
    def pause_seconds(self) -> float:
        """The wait after the last refresh, in seconds."""
        return min(FIRST_PAUSE_SECONDS * 2.0 ** min(self.refreshes - 1, 16), MAX_PAUSE_SECONDS)

    @property
    def retry_at(self) -> float:
        """The earliest time of the next refresh because of a 401, in epoch seconds."""
        return self.last_at + self.pause_seconds

    def can_retry(self, now: float) -> bool:
        """True if a 401 may cause another refresh at `now` (epoch seconds)."""
        # `now` is before `last_at` if the clock was set back.
        return not self.last_at <= now < self.retry_at

    def is_current(self, now: float) -> bool:
        """True if the 401 at `now` continues this series.

        A token that was in use for longer than twice the pause has probably been accepted in between.
        """
        return self.is_refused or now - self.last_at < 2 * self.pause_seconds


def next_refusal(previous: TokenRefusal | None, now: float) -> TokenRefusal:
    """Return the TokenRefusal of new tokens: a refresh because of a 401 obtained them at `now`."""
    if previous is None or not previous.is_current(now):
        return TokenRefusal(1, now, now)
    return replace(previous, refreshes=previous.refreshes + 1, last_at=now, is_refused=False)
