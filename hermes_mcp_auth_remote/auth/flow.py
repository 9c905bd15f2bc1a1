"""What a request goes through: the token on, and after a 401 another one, once. RFC 6750 §2.1, §3, RFC 9449.

One flow serves both libraries: the two Protocols are all that it knows of a request and a response.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Generator, MutableMapping
from typing import Protocol, TypeVar

_log = logging.getLogger(__name__)


class Url(Protocol):
    """A request's URL, its default port left out."""

    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int | None: ...


class ResponseHeaders(Protocol):
    """A response's headers."""

    def get_list(self, key: str, /) -> list[str]: ...


class AuthRequest(Protocol):
    """What the flow needs of a request."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> Url: ...
    @property
    def headers(self) -> MutableMapping[str, str]: ...


class AuthResponse(Protocol):
    """What the flow needs of a response."""

    @property
    def url(self) -> Url: ...
    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> ResponseHeaders: ...
    def read(self) -> bytes: ...
    async def aread(self) -> bytes: ...


Q = TypeVar("Q", bound=AuthRequest)


class SessionServer(Protocol):
    """The server that a session is of."""

    @property
    def url(self) -> str: ...


class Prover(Protocol):
    """What proves the key that a token is bound to: `oauth.dpop.Prover`."""

    def proof(self, method: str, url: str, access_token: str | None = None, /) -> str: ...
    def heed(self, url: str, nonce: str | None, /) -> bool: ...


class Session(Protocol):
    """Where the token comes from: `service.sessions.Session`, which costs more to import than this."""

    @property
    def server(self) -> SessionServer: ...
    @property
    def prover(self) -> Prover | None: ...
    def header_now(self) -> str | None: ...
    async def header(self) -> str: ...
    def header_blocking(self) -> str: ...
    async def challenged(self, refused: str, status: int, www_authenticate: list[str], /) -> str | None: ...
    def challenged_blocking(
        self, refused: str, status: int, www_authenticate: list[str], /
    ) -> str | None: ...


def session_of(server: str | Session) -> Session:
    """Return a session as it is, or the operator's session of a server's name or URL."""
    if not isinstance(server, str):
        return server
    # Later than at import: it loads the protocol, the store and the way out.
    from hermes_mcp_auth_remote.service.default import open_session  # noqa: PLC0415

    return open_session(server)


Place = tuple[str, str, int | None]
"""Scheme, host and port of a URL."""


def place(url: Url) -> Place:
    """Return where a URL leads, for comparing."""
    return url.scheme, url.host, url.port


def _speaks_of_the_token(response: AuthResponse, where: Place) -> bool:
    # After a redirect to elsewhere, what answered never saw the token.
    return response.status_code in {401, 403} and place(response.url) == where


def _put(session: Session, request: AuthRequest, header: str) -> Prover | None:
    """Put the token on a request, and where it is bound to a key, a proof for this request alone."""
    prover = session.prover
    if header:
        request.headers["Authorization"] = header
        if prover is not None:
            _, _, access_token = header.partition(" ")
            request.headers["DPoP"] = prover.proof(request.method, str(request.url), access_token)
    return prover


def _wants_nonce(prover: Prover, response: AuthResponse) -> bool:
    """Remember the nonce that the server wants in proofs; True where it refused for the lack of it alone.

    RFC 9449 section 9: it says so with a 401, and may send another nonce with any answer (section 8.2).
    """
    nonces = response.headers.get_list("dpop-nonce")
    is_new = prover.heed(str(response.url), nonces[0] if nonces else None)
    lines = response.headers.get_list("www-authenticate")
    return is_new and response.status_code == 401 and any("use_dpop_nonce" in line for line in lines)


async def bearer_flow(session: Session, where: Place, request: Q) -> AsyncGenerator[Q, AuthResponse]:
    """Send a request with the session's token, and after a 401 once more with another one.

    A request that leads anywhere but to `where` goes without: the token is that server's alone. So does one
    for which the session has an empty header: it waits for the server's challenge. Raises
    AuthorizationRequired where only a person can help, a NetworkError or StoreError.
    """
    if place(request.url) != where:
        yield request
        return
    header = session.header_now() or await session.header()
    prover = _put(session, request, header)
    response = yield request
    if prover is not None and _wants_nonce(prover, response):
        await response.aread()
        _put(session, request, header)
        response = yield request
        _wants_nonce(prover, response)
    if not _speaks_of_the_token(response, where):
        return
    # An unread body holds its connection, and a pool of one would starve while a person is waited for.
    await response.aread()
    lines = response.headers.get_list("www-authenticate")
    renewed = await session.challenged(header, response.status_code, lines)
    if renewed is not None:
        prover = _put(session, request, renewed)
        response = yield request
        if prover is not None and _wants_nonce(prover, response):
            await response.aread()
            _put(session, request, renewed)
            response = yield request
        _note(response, where)


def blocking_bearer_flow(session: Session, where: Place, request: Q) -> Generator[Q, AuthResponse]:
    """Do what `bearer_flow` does, for a synchronous client: the inherited one would send no token."""
    if place(request.url) != where:
        yield request
        return
    header = session.header_now() or session.header_blocking()
    prover = _put(session, request, header)
    response = yield request
    if prover is not None and _wants_nonce(prover, response):
        response.read()
        _put(session, request, header)
        response = yield request
        _wants_nonce(prover, response)
    if not _speaks_of_the_token(response, where):
        return
    response.read()
    lines = response.headers.get_list("www-authenticate")
    renewed = session.challenged_blocking(header, response.status_code, lines)
    if renewed is not None:
        prover = _put(session, request, renewed)
        response = yield request
        if prover is not None and _wants_nonce(prover, response):
            response.read()
            _put(session, request, renewed)
            response = yield request
        _note(response, where)


def _note(response: AuthResponse, where: Place) -> None:
    # Twice is enough: what a fresh token cannot open, a third one will not.
    if response.status_code == 401:
        _log.warning("%s refuses a token that was renewed just now; its operator has to look.", where[1])
