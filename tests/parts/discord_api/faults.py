"""Fault injection for the local Discord."""

from __future__ import annotations

import asyncio

from .api_handle import ApiHandle
from .entities import Json
from .ratelimits import rate_limit_error
from .state import ResponseOverride


class FaultInjection(ApiHandle):
    """The methods of DiscordApi that inject faults."""

    def abort_gateway(self) -> None:
        """Abort every gateway connection without a close frame. Clients can resume their sessions."""
        self._run_in_loop(self.gateway.abort_connections)

    def refuse_connections(self, attempts: int) -> None:
        """Respond with 503 to the next attempts to open a gateway connection."""
        self._run_in_loop(lambda: setattr(self.gateway, "connections_to_refuse", attempts))

    def request_reconnect(self) -> None:
        """Send RECONNECT (op 7)."""
        self._run_in_loop(self.gateway.request_reconnects)

    def invalidate_session(self, *, resumable: bool = False) -> None:
        """Send INVALID_SESSION (op 9)."""
        self._run_in_loop(lambda: self.gateway.invalidate_sessions(resumable=resumable))

    def close_gateway(self, code: int) -> None:
        """Close every gateway connection with a code."""
        asyncio.run_coroutine_threadsafe(self.gateway.close_connections(code), self._loop).result(30)

    def rate_limit_next(
        self,
        method: str,
        path_part: str,
        retry_after: float = 0.05,
        *,
        times: int = 1,
        is_global: bool = False,
    ) -> None:
        """Respond with 429 to the next requests of a method ("*": any) whose path contains `path_part`."""
        error = rate_limit_error(retry_after, is_global=is_global)
        override = ResponseOverride(method, path_part, error.status, error.body, error.headers, times)
        self._run_in_loop(lambda: self._rest.overrides.append(override))

    def fail_next(
        self,
        method: str,
        path_part: str,
        status: int,
        body: Json | None = None,
        *,
        headers: dict[str, str] | None = None,
        times: int = 1,
    ) -> None:
        """Respond with this status to the next requests; select them as `rate_limit_next` does."""
        override = ResponseOverride(
            method, path_part, status, body or {"message": f"{status}", "code": 0}, headers or {}, times
        )
        self._run_in_loop(lambda: self._rest.overrides.append(override))

    def enforce_rate_limits(self, *, enforced: bool = True, scale: float = 1) -> None:
        """Count requests and refuse those above the limits, as Discord does.

        Every period is multiplied by `scale`, because discord.py waits in real time.
        """

        def act() -> None:
            self._rest.limits.enforced, self._rest.limits.scale = enforced, scale

        self._run_in_loop(act)

    @property
    def rate_limit_refusals(self) -> int:
        return self._rest.limits.refusal_count
