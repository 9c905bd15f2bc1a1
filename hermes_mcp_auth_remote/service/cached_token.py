"""When a token is fresh, due and over."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store.files.credential_files import Version

# A request on its way must not outlive its token; a tenth of a short life is enough.
REFRESH_AHEAD_SECONDS = 60.0
REFRESH_AHEAD_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Ready:
    """A header to send: fresh until then, good until then (epoch seconds), from that version of the file.

    `prover` is set where the token needs a proof with every request.
    Between `fresh_until` and `good_until` a refresh is due while the old token still works.
    """

    authorization: str = field(repr=False)
    fresh_until: float
    good_until: float
    version: Version | None
    prover: Prover | None = None


def _ahead_seconds(tokens: Tokens) -> float:
    if tokens.expires_at is None or tokens.obtained_at is None:
        return REFRESH_AHEAD_SECONDS
    life = max(tokens.expires_at - tokens.obtained_at, 0.0)
    return min(REFRESH_AHEAD_SECONDS, life * REFRESH_AHEAD_SHARE)


def fresh_until(tokens: Tokens) -> float:
    """Return until when tokens need no refresh, in epoch seconds; infinite where they say no end."""
    return math.inf if tokens.expires_at is None else tokens.expires_at - _ahead_seconds(tokens)


def ready(tokens: Tokens, version: Version | None, prover: Prover | None = None) -> Ready:
    """Make a header of tokens that the store holds in that version."""
    good_until = math.inf if tokens.expires_at is None else tokens.expires_at - _ahead_seconds(tokens) / 10
    return Ready(tokens.authorization, fresh_until(tokens), good_until, version, prover)
