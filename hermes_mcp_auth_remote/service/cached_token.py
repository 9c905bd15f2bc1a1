"""A cached Authorization header, and when its token must be refreshed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.store.files.credential_files import Version

# A token must not expire while a request is in flight. For a short-lived token, a tenth is enough.
REFRESH_MARGIN_SECONDS = 60.0
REFRESH_MARGIN_FRACTION = 0.1


@dataclass(frozen=True, slots=True)
class CachedToken:
    """A cached Authorization header. Times are in epoch seconds.

    Refresh it in the background from `refresh_at`; do not send it after `usable_until`. `version` is the
    version of the credential file that held the token. `prover` is set if each request needs a DPoP proof.
    """

    authorization_header: str = field(repr=False)
    refresh_at: float
    usable_until: float
    version: Version | None
    prover: Prover | None = None


def _margin_seconds(tokens: Tokens) -> float:
    if tokens.expires_at is None or tokens.obtained_at is None:
        return REFRESH_MARGIN_SECONDS
    lifetime_seconds = max(tokens.expires_at - tokens.obtained_at, 0.0)
    return min(REFRESH_MARGIN_SECONDS, lifetime_seconds * REFRESH_MARGIN_FRACTION)


def refresh_at(tokens: Tokens) -> float:
    """Return when tokens must be refreshed, in epoch seconds; infinity if they do not expire."""
    return math.inf if tokens.expires_at is None else tokens.expires_at - _margin_seconds(tokens)


def make_cached_token(tokens: Tokens, version: Version | None, prover: Prover | None = None) -> CachedToken:
    """Return the cached header of tokens that the store holds in this version."""
    usable_until = math.inf if tokens.expires_at is None else tokens.expires_at - _margin_seconds(tokens) / 10
    return CachedToken(tokens.authorization_header, refresh_at(tokens), usable_until, version, prover)
