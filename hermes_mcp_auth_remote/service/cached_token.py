"""A cached Authorization header, and when its token must be refreshed."""

from __future__ import annotations

from dataclasses import dataclass, field

from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.refresh_margins import last_send_time, refresh_time
from hermes_mcp_auth_remote.store.protocol import Version


@dataclass(frozen=True, slots=True)
class CachedToken:
    """A cached Authorization header. Times are in epoch seconds.

    Refresh it in the background from `refresh_at`; do not send it after `usable_until`. `version` is the
    version of the stored credentials that held the token. `prover` is set if each request needs a DPoP proof.
    """

    authorization_header: str = field(repr=False)
    refresh_at: float
    usable_until: float
    version: Version | None
    prover: Prover | None = None


def refresh_at(tokens: Tokens) -> float:
    """Return when tokens must be refreshed, in epoch seconds; infinity if they do not expire."""
    return refresh_time(tokens.expires_at, _lifetime_seconds(tokens))


def make_cached_token(tokens: Tokens, version: Version | None, prover: Prover | None = None) -> CachedToken:
    """Return the cached header of tokens that the store holds in this version."""
    usable_until = last_send_time(tokens.expires_at, _lifetime_seconds(tokens))
    return CachedToken(tokens.authorization_header, refresh_at(tokens), usable_until, version, prover)


def _lifetime_seconds(tokens: Tokens) -> float | None:
    if tokens.expires_at is None or tokens.obtained_at is None:
        return None
    return tokens.expires_at - tokens.obtained_at
