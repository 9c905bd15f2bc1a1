"""Send requests without a token as long as the server demands none.

Some servers need no login at all, others only for some tools. So the bridge asks for a login only after the
server has refused a request without a token. The login then requests the scope that the server has named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from hermes_mcp_auth_remote.errors import McpAuthError
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.values import Secret, Server


class OptionalLogin:
    """A session (`auth.flow.Session`) with an empty header until the server demands a token.

    `probe` sends the server a request without a token and returns its challenge, or None.
    """

    def __init__(self, session: Session, probe: Callable[[], Awaitable[Challenge | None]]) -> None:
        self._session = session
        self._probe = probe
        # None until a probe has succeeded.
        self._is_open: bool | None = None
        # Calls at the same time share one probe, also if it fails: a server may let each probe wait.
        self._probe_task: asyncio.Task[None] | None = None

    @property
    def server(self) -> Server:
        """The server."""
        return self._session.server

    @property
    def prover(self) -> Prover | None:
        """The prover of the session."""
        return self._session.prover

    def header_now(self) -> str | None:
        """Return the header of the session if a fresh token is in memory."""
        return self._session.header_now()

    async def header(self) -> str:
        """Return the header of the session, "" if there is no login and the server demands none.

        Raises as `Session.header` does.
        """
        if self._session.has_tokens():
            return await self._session.header()
        if self._is_open is None:
            if self._probe_task is None or self._probe_task.done():
                self._probe_task = asyncio.create_task(self._run_probe())
            # The other calls need the probe if this one is cancelled.
            await asyncio.shield(self._probe_task)
        return "" if self._is_open else await self._session.header()

    async def _run_probe(self) -> None:
        # If the probe fails, the login reports what is wrong.
        with suppress(McpAuthError):
            self._is_open = await self._probe() is None

    def header_blocking(self) -> str:
        """Do what `Session.header_blocking` does. The bridge has an event loop and never calls it."""
        return self._session.header_blocking()

    def report_retry(self, header: str, *, is_accepted: bool) -> None:
        """Do what `Session.report_retry` does."""
        self._session.report_retry(header, is_accepted=is_accepted)

    async def handle_challenge(
        self, refused_header: str | Secret, status: int, www_authenticate: Sequence[str]
    ) -> str | None:
        """Do what `Session.handle_challenge` does."""
        return await self._session.handle_challenge(refused_header, status, www_authenticate)

    def handle_challenge_blocking(
        self, refused_header: str | Secret, status: int, www_authenticate: Sequence[str]
    ) -> str | None:
        """Do what `Session.handle_challenge_blocking` does."""
        return self._session.handle_challenge_blocking(refused_header, status, www_authenticate)
