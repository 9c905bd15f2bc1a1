"""The part of `McpAuth` that does not depend on the HTTP library (httpx or httpx2)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

from hermes_mcp_auth_remote.auth.flow import (
    AuthResponse,
    RequestT,
    Session,
    Url,
    bearer_flow,
    bearer_flow_blocking,
    resolve_session,
    url_origin,
)
from hermes_mcp_auth_remote.traceback_redaction import with_hidden_locals


class LibraryAuth:
    """Puts the token of a server on each request; a subclass is also the `Auth` of an HTTP library.

    `server` is a server's name in config.yaml, its URL, or a session. `owner` is the owner of the tokens,
    such as "telegram:42"; None for the operator's shared tokens. A session already has an owner.

    An object that was made from a name or URL can be copied and pickled, because frameworks do this with
    their settings. The copy uses the same session.
    """

    @with_hidden_locals
    def __init__(self, server: str | Session, owner: str | None = None) -> None:
        self._server = server
        self._owner = owner
        self._session = resolve_session(server, owner)
        self._server_origin = url_origin(self._parse_url(self._session.server.url))

    @staticmethod
    def _parse_url(url: str) -> Url:
        """Parse a URL as the library does, so that it can be compared with the URLs of requests."""
        raise NotImplementedError

    @with_hidden_locals
    def headers(self) -> dict[str, str]:
        """Return the headers of a request to the server, for a client that takes no auth object; blocks.

        Reads the store or refreshes the token first if needed. Call it for each request: the token changes.
        Raises AuthorizationRequired if a user must log in, a NetworkError or a StoreError. Raises TypeError
        if the token is bound to a key: each request then needs its own proof (RFC 9449).
        """
        return self._as_headers(self._session.header_blocking())

    @with_hidden_locals
    async def async_headers(self) -> dict[str, str]:
        """Do what `headers` does, without blocking the event loop."""
        return self._as_headers(await self._session.header())

    def _as_headers(self, header: str) -> dict[str, str]:
        if self._session.prover is not None:
            message = (
                f"The token of {self._session.server.name} is bound to a key: each request needs a proof. "
                "Pass the McpAuth object itself to the HTTP client."
            )
            raise TypeError(message)
        return {"Authorization": header} if header else {}

    def auth_flow(self, request: RequestT) -> Generator[RequestT, AuthResponse]:
        """Do what `sync_auth_flow` does."""
        return self.sync_auth_flow(request)

    def async_auth_flow(self, request: RequestT) -> AsyncGenerator[RequestT, AuthResponse]:
        """Send a request with the token; the library calls this for each request."""
        return bearer_flow(self._session, self._server_origin, request)

    def sync_auth_flow(self, request: RequestT) -> Generator[RequestT, AuthResponse]:
        """Send a request with the token; synchronous clients call this for each request."""
        return bearer_flow_blocking(self._session, self._server_origin, request)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._session.server.name!r})"

    def __reduce__(self) -> tuple[type[LibraryAuth], tuple[str, str | None]]:
        # `copy.deepcopy` calls this too.
        if not isinstance(self._server, str):
            message = (
                "An McpAuth that was made from a Session cannot be copied or pickled. "
                "Make it from the server's name or URL: McpAuth(name, owner)."
            )
            raise TypeError(message)
        return type(self), (self._server, self._owner)
