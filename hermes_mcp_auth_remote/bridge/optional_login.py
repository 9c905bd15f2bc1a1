"""Send requests without a token as long as the server demands none.

Some servers need no login at all, others only for some tools. So the bridge asks for a login only after the
server has refused a request without a token. The login then requests the scope that the server has named.

A server that is overloaded, is restarting or cannot be reached does not tell whether it demands a token. The
client's request is then sent without one, and the transport sends it again or reports what is wrong. Each
further request starts another probe, until one tells.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from hermes_mcp_auth_remote.errors import McpAuthError, ResponseTooLarge, TimedOut, Unreachable
from hermes_mcp_auth_remote.oauth.dpop import Prover
from hermes_mcp_auth_remote.service.sessions import Session
from hermes_mcp_auth_remote.values import Secret, Server

_log = logging.getLogger(__name__)


class OptionalLogin:
    """A session (`auth.flow.Session`) with an empty header until the server demands a token.

    `probe` sends the server a request without a token. It returns whether the server demands one, None if the
    server did not tell.
    """

    def __init__(self, session: Session, probe: Callable[[], Awaitable[bool | None]]) -> None:
        self._session = session
        self._probe = probe
        # None until a probe tells.
        self._needs_token: bool | None = None
        # Calls at the same time share one probe, also if it fails: a server may let each probe wait.
        self._probe_task: asyncio.Task[McpAuthError | None] | None = None
        # A server that is down fails many probes in the same way.
        self._logged_text = ""

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
        """Return the header of the session, "" if there is no login and the server may demand none.

        Raises as `Session.header` does. Raises a NetworkError or ConfigError if no request can be sent.
        """
        if await self._session.has_tokens():
            return await self._session.header()
        if self._needs_token is None:
            if self._probe_task is None or self._probe_task.done():
                self._probe_task = asyncio.create_task(self._run_probe())
            # The other calls need the probe if this one is cancelled.
            error = await asyncio.shield(self._probe_task)
            if error is not None:
                raise error
        return await self._session.header() if self._needs_token else ""

    async def _run_probe(self) -> McpAuthError | None:
        """Probe the server; return the error that each request would have, None if there is none."""
        try:
            self._needs_token = await self._probe()
        except (ResponseTooLarge, TimedOut, Unreachable) as error:
            if error.advice != type(error).advice:
                # It advises more than to try again: a certificate, a proxy or a TLS setting is wrong.
                return error
            # The transport sends the request again, and reports if the server cannot be reached.
            if str(error) != self._logged_text:
                self._logged_text = str(error)
                _log.warning("%s: %s", self._session.server.name, error)
        except McpAuthError as error:
            return error
        return None

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
