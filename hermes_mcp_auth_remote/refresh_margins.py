"""When an access token is refreshed, and until when it is sent. All refresh margins are in this file.

The service and the fast path of the `token` command use these functions. This module imports only `math`,
because the fast path must load quickly.
"""

from __future__ import annotations

import math

# Refresh a token this many seconds before it expires: it must not expire while a request is in flight.
REFRESH_MARGIN_SECONDS = 60.0
# A short-lived token has a smaller margin: this fraction of its lifetime.
REFRESH_MARGIN_FRACTION = 0.1
# Stop sending a token this fraction of its refresh margin before it expires: a request needs time to arrive.
SEND_MARGIN_FRACTION = 0.1


def refresh_margin_seconds(lifetime_seconds: float | None) -> float:
    """Return how many seconds before its expiry a token is refreshed; None means an unknown lifetime."""
    if lifetime_seconds is None:
        return REFRESH_MARGIN_SECONDS
    return min(REFRESH_MARGIN_SECONDS, max(lifetime_seconds, 0.0) * REFRESH_MARGIN_FRACTION)


def refresh_time(expires_at: float | None, lifetime_seconds: float | None) -> float:
    """Return when a token must be refreshed, in epoch seconds; infinity if it does not expire."""
    return math.inf if expires_at is None else expires_at - refresh_margin_seconds(lifetime_seconds)


def last_send_time(expires_at: float | None, lifetime_seconds: float | None) -> float:
    """Return until when a token may be sent, in epoch seconds; infinity if it does not expire."""
    if expires_at is None:
        return math.inf
    return expires_at - refresh_margin_seconds(lifetime_seconds) * SEND_MARGIN_FRACTION
