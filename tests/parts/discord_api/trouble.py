"""Fault injection for the local Discord."""

from __future__ import annotations

import asyncio

from .handle import Handle
from .ratelimits import too_many
from .state import Instead
from .world import Json


class Trouble(Handle):
    """The methods of DiscordApi that inject faults."""

    def drop(self) -> None:
        """Abort every gateway connection without a close frame. Clients can resume their sessions."""
        self._in_loop(self.gateway.drop)

    def refuse_connections(self, attempts: int) -> None:
        """Respond with 503 to the next attempts to open a gateway connection."""
        self._in_loop(lambda: setattr(self.gateway, "refuse", attempts))

    def ask_reconnect(self) -> None:
        """Send RECONNECT (op 7)."""
        self._in_loop(self.gateway.reconnect)

    def invalidate_session(self, *, resumable: bool = False) -> None:
        """Send INVALID_SESSION (op 9)."""
        self._in_loop(lambda: self.gateway.invalidate(resumable=resumable))

    def close_gateway(self, code: int) -> None:
        """Close every gateway connection with a code."""
        asyncio.run_coroutine_threadsafe(self.gateway.close(code), self._loop).result(30)

    def limit_next(
        self, method: str, part: str, retry_after: float = 0.05, *, times: int = 1, everywhere: bool = False
    ) -> None:
        """Respond with 429 to the next requests of a method ("*": any) whose path contains `path_part`."""
        error = too_many(retry_after, everywhere=everywhere)
        instead = Instead(method, part, error.status, error.body, error.headers, times)
        self._in_loop(lambda: self._rest.knobs.append(instead))

    def fail_next(
        self, method: str, part: str, status: int, body: Json | None = None, *, times: int = 1
    ) -> None:
        """Respond with this status to the next requests that match as in `rate_limit_next`."""
        instead = Instead(method, part, status, body or {"message": f"{status}", "code": 0}, {}, times)
        self._in_loop(lambda: self._rest.knobs.append(instead))

    def enforce_rate_limits(self, *, enforced: bool = True, scale: float = 1) -> None:
        """Count requests and refuse those above the limits, as Discord does.

        Every period lasts `scale` times its seconds, because discord.py waits in real time.
        """

        def act() -> None:
            self._rest.limits.enforced, self._rest.limits.scale = enforced, scale

        self._in_loop(act)

    @property
    def refused_by_rate_limit(self) -> int:
        return self._rest.limits.refusals
