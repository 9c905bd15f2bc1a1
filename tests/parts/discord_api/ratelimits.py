"""Rate limits: one bucket for each route and major parameter. Headers report it; enforcement is optional."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, field

from .form_errors import ApiError

# (method, template): (requests, seconds). Other routes have DEFAULT_LIMIT.
ROUTE_LIMITS = {
    ("POST", "/channels/{channel_id}/messages"): (5, 5.0),
    ("PATCH", "/channels/{channel_id}/messages/{message_id}"): (5, 5.0),
    ("DELETE", "/channels/{channel_id}/messages/{message_id}"): (5, 1.0),
    ("POST", "/webhooks/{webhook_id}/{webhook_token}"): (5, 2.0),
    ("PATCH", "/webhooks/{webhook_id}/{webhook_token}/messages/{message_id}"): (5, 2.0),
    ("DELETE", "/webhooks/{webhook_id}/{webhook_token}/messages/{message_id}"): (5, 1.0),
    ("POST", "/users/@me/channels"): (10, 10.0),
    ("PUT", "/applications/{application_id}/commands"): (2, 10.0),
    ("POST", "/applications/{application_id}/commands"): (5, 20.0),
}
DEFAULT_LIMIT = (50, 1.0)
# Applies to all requests except interaction responses.
GLOBAL_LIMIT = (50, 1.0)
MAJOR_PARAMETERS = ("channel_id", "guild_id", "webhook_id", "webhook_token")


@dataclass(slots=True)
class Bucket:
    resets_at: float
    used: int = 0


@dataclass(slots=True)
class RateLimits:
    """Counts requests by the real clock, because discord.py also waits by the real clock."""

    enforced: bool = False
    scale: float = 1
    buckets: dict[str, Bucket] = field(default_factory=dict[str, Bucket])
    # The number of refused requests.
    refusal_count: int = 0

    def count_request(self, method: str, template: str, parameters: dict[str, str]) -> dict[str, str]:
        """Count one request and return its headers; raise ApiError (429) if it exceeds the limit."""
        now = time.monotonic()
        limit, seconds = ROUTE_LIMITS.get((method, template), DEFAULT_LIMIT)
        name = hashlib.sha256(f"{method} {template}".encode()).hexdigest()[:20]
        major = "+".join(parameters[parameter] for parameter in MAJOR_PARAMETERS if parameter in parameters)
        used, resets_at = self._count(f"{name}:{major}", limit, seconds, now)
        after = max(0.001, resets_at - now)
        headers = {
            "X-RateLimit-Limit": str(limit),
            "X-RateLimit-Remaining": str(limit - used),
            "X-RateLimit-Reset": f"{time.time() + after:.3f}",
            "X-RateLimit-Reset-After": f"{after:.3f}",
            "X-RateLimit-Bucket": name,
        }
        if used > limit:
            headers["X-RateLimit-Remaining"] = "0"
            raise rate_limit_error(after, headers=headers)
        if "webhook_token" not in parameters:
            used, resets_at = self._count("global", *GLOBAL_LIMIT, now)
            if used > GLOBAL_LIMIT[0]:
                raise rate_limit_error(max(0.001, resets_at - now), is_global=True)
        return headers

    def _count(self, key: str, limit: int, seconds: float, now: float) -> tuple[int, float]:
        seconds *= self.scale
        if not self.enforced:
            # Report one used request, so that discord.py does not wait for a limit that is not enforced.
            return min(1, limit - 1), now + seconds
        bucket = self.buckets.get(key)
        if bucket is None or bucket.resets_at <= now:
            bucket = self.buckets[key] = Bucket(now + seconds)
        bucket.used += 1
        if bucket.used > limit:
            self.refusal_count += 1
        return bucket.used, bucket.resets_at


def rate_limit_error(
    retry_after: float, *, is_global: bool = False, headers: dict[str, str] | None = None
) -> ApiError:
    """Return a 429 like Discord's, for one route or global."""
    body = {"message": "You are being rate limited.", "retry_after": retry_after, "global": is_global}
    response_headers = {"Retry-After": str(int(retry_after) + 1), **(headers or {})}
    response_headers["X-RateLimit-Scope"] = "global" if is_global else "user"
    if is_global:
        response_headers["X-RateLimit-Global"] = "true"
    return ApiError(429, body, response_headers)
