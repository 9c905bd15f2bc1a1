"""When a token is fresh, due and over."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store.files.credential_files import Version

# A request on its way must not outlive its token; a tenth of a short life is enough.
REFRESH_MARGIN_SECONDS = 60.0
REFRESH_MARGIN_FRACTION = 0.1


@dataclass(frozen=True, slots=True)
class CachedToken:
    """A header to send: fresh until then, good until then (epoch seconds), from that version of the file.

    `prover` is set where the token needs a proof with every request.
    Between `fresh_until` and `good_until` a refresh is due while the old token still works.
    """

    authorization_header: str = field(repr=False)
    refresh_at: float
    usable_until: float
    version: Version | None
    prover: Prover | None = None


def _margin_seconds(tokens: Tokens) -> float:
    if tokens.expires_at is None or tokens.obtained_at is None:
        return REFRESH_MARGIN_SECONDS
    life = max(tokens.expires_at - tokens.obtained_at, 0.0)
    return min(REFRESH_MARGIN_SECONDS, life * REFRESH_MARGIN_FRACTION)


def refresh_at(tokens: Tokens) -> float:
    """Return until when tokens need no refresh, in epoch seconds; infinite where they say no end."""
    return math.inf if tokens.expires_at is None else tokens.expires_at - _margin_seconds(tokens)


def make_cached_token(tokens: Tokens, version: Version | None, prover: Prover | None = None) -> CachedToken:
    """Make a header of tokens that the store holds in that version."""
    good_until = math.inf if tokens.expires_at is None else tokens.expires_at - _margin_seconds(tokens) / 10
    return CachedToken(tokens.authorization_header, refresh_at(tokens), good_until, version, prover)
