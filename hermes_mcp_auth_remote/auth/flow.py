"""What a request goes through: the token on, and after a 401 another one, once. RFC 6750 §2.1, §3, RFC 9449.

One flow serves both libraries: the two Protocols are all that it knows of a request and a response.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from hermes_mcp_auth_remote.auth.bounded_body import StreamedResponse, limit_body, limit_body_blocking
from hermes_mcp_auth_remote.traceback_redaction import hiding_locals
from hermes_mcp_auth_remote.values import Secret, as_secret

_log = logging.getLogger(__name__)


class Url(Protocol):
    """A request's URL, its default port left out."""

    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int | None: ...


class AuthRequest(Protocol):
    """What the flow needs of a request."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> Url: ...
    @property
    def headers(self) -> MutableMapping[str, str]: ...


class AuthResponse(StreamedResponse, Protocol):
    """What the flow needs of a response."""

    @property
    def url(self) -> Url: ...


T = TypeVar("T")
Q = TypeVar("Q", bound=AuthRequest)


class SessionServer(Protocol):
    """The server that a session is of."""

    @property
    def url(self) -> str: ...


class Prover(Protocol):
    """What proves the key that a token is bound to: `oauth.dpop.Prover`."""

    def create_proof(self, method: str, url: str, access_token: str | None = None, /) -> str: ...
    def remember_nonce(self, url: str, nonce: str | None, /) -> bool: ...


class Session(Protocol):
    """Where the token comes from: `service.sessions.Session`, which costs more to import than this."""

    @property
    def server(self) -> SessionServer: ...
    @property
    def prover(self) -> Prover | None: ...
    def header_now(self) -> str | None: ...
    async def header(self) -> str: ...
    def header_blocking(self) -> str: ...
    async def handle_challenge(
        self, refused_header: str, status: int, www_authenticate: list[str], /
    ) -> str | None: ...
    def handle_challenge_blocking(
        self, refused_header: str, status: int, www_authenticate: list[str], /
    ) -> str | None: ...


def resolve_session(server: str | Session) -> Session:
    """Return a session as it is, or the operator's session of a server's name or URL."""
    if not isinstance(server, str):
        return server
    # Later than at import: it loads the protocol, the store and the way out.
    from hermes_mcp_auth_remote.service.default import open_session  # noqa: PLC0415

    return open_session(server)


UrlOrigin = tuple[str, str, int | None]
"""Scheme, host and port of a URL."""


def url_origin(url: Url) -> UrlOrigin:
    """Return where a URL leads, for comparing."""
    return url.scheme, url.host, url.port


def _is_token_refusal(response: AuthResponse, server_origin: UrlOrigin) -> bool:
    # After a redirect to elsewhere, what answered never saw the token.
    return response.status_code in {401, 403} and url_origin(response.url) == server_origin


def _add_authorization(session: Session, request: AuthRequest, header: Secret) -> Prover | None:
    """Put the token on a request, and where it is bound to a key, a proof for this request alone."""
    prover = session.prover
    if header:
        request.headers["Authorization"] = header.reveal()
        if prover is not None:
            _, _, access_token = header.reveal().partition(" ")
            request.headers["DPoP"] = prover.create_proof(request.method, str(request.url), access_token)
    return prover


def _should_retry_with_nonce(prover: Prover, response: AuthResponse) -> bool:
    """Remember the nonce that the server wants in proofs; True where it refused for the lack of it alone.

    RFC 9449 section 9: it says so with a 401, and may send another nonce with any answer (section 8.2).
    """
    nonces = response.headers.get_list("dpop-nonce")
    is_new = prover.remember_nonce(str(response.url), nonces[0] if nonces else None)
    lines = response.headers.get_list("www-authenticate")
    return is_new and response.status_code == 401 and any("use_dpop_nonce" in line for line in lines)


@dataclass(frozen=True, slots=True)
class PendingCall(Generic[T]):
    """Something that the flow waits for, as an asynchronous and as a blocking call."""

    asynchronous: Callable[[], Awaitable[T]]
    blocking: Callable[[], T]


def _bearer_steps(
    session: Session, server_origin: UrlOrigin, request: Q, first_attempt: tuple[Secret, AuthResponse] | None
) -> Generator[Q | PendingCall[Any], Any]:
    """Yield the request each time it is to be sent (and take its response), and a Wait for all else.

    `sent` is the header that the request was sent with, and the response to that, if it was sent already.
    """
    if url_origin(request.url) != server_origin:
        yield request
        return
    if first_attempt is None:
        # A Secret, since these frames wait for servers and people.
        header = as_secret(
            session.header_now() or (yield PendingCall(session.header, session.header_blocking))
        )
        response = yield from _send_with_token(session, request, header)
    else:
        header, response = first_attempt
    if not _is_token_refusal(response, server_origin):
        return
    # An unread body holds its connection, and a pool of one would starve while a person is waited for.
    yield _limit_body(response)
    status, lines = response.status_code, response.headers.get_list("www-authenticate")
    renewed = yield PendingCall(
        lambda: session.handle_challenge(header.reveal(), status, lines),
        lambda: session.handle_challenge_blocking(header.reveal(), status, lines),
    )
    if renewed is None:
        return
    renewed = as_secret(renewed)
    response = yield from _send_with_token(session, request, renewed)
    if _is_token_refusal(response, server_origin):
        # The caller's now; a plain `client.post` reads it without any limit of its own.
        yield _limit_body(response)
    _warn_if_refused(response, server_origin)


def _send_with_token(
    session: Session, request: Q, header: Secret
) -> Generator[Q | PendingCall[Any], Any, AuthResponse]:
    """Send the request with a header, and once more if the server refused only the nonce of its proof."""
    prover = _add_authorization(session, request, header)
    response: AuthResponse = yield request
    if prover is not None and _should_retry_with_nonce(prover, response):
        yield _limit_body(response)
        _add_authorization(session, request, header)
        response = yield request
        _should_retry_with_nonce(prover, response)
    return response


def _limit_body(response: AuthResponse) -> PendingCall[None]:
    return PendingCall(partial(limit_body, response), partial(limit_body_blocking, response))


def _add_cached_authorization(session: Session, server_origin: UrlOrigin, request: AuthRequest) -> str | None:
    """Put a token that is in memory on a request; returns the header, None if more than that has to be done.

    The hot path: with this, both drivers send most requests without a second generator.
    """
    if url_origin(request.url) != server_origin:
        return None
    # In this order: another thread that brings a bound token sets its prover before its header.
    header = session.header_now()
    if not header or session.prover is not None:
        return None
    request.headers["Authorization"] = header
    return header


async def bearer_flow(
    session: Session, server_origin: UrlOrigin, request: Q
) -> AsyncGenerator[Q, AuthResponse]:
    """Send a request with the session's token, and after a 401 once more with another one.

    A request that leads anywhere but to `where` goes without: the token is that server's alone. So does one
    for which the session has an empty header: it waits for the server's challenge. Of the body of a 401 or
    403, 64 KiB are read, in two seconds at most (`body`). Raises AuthorizationRequired where only a person
    can help, a NetworkError or StoreError.
    """
    sent, header = None, _add_cached_authorization(session, server_origin, request)
    if header is not None:
        response = yield request
        if not _is_token_refusal(response, server_origin):
            return
        sent, header = (Secret(header), response), None
    steps = _bearer_steps(session, server_origin, request, sent)
    with hiding_locals():
        try:
            step = next(steps)
            while True:
                step = steps.send(
                    (await step.asynchronous()) if isinstance(step, PendingCall) else (yield step)
                )
        except StopIteration:
            return
        finally:
            steps.close()


def bearer_flow_blocking(
    session: Session, server_origin: UrlOrigin, request: Q
) -> Generator[Q, AuthResponse]:
    """Do what `bearer_flow` does, for a synchronous client: the inherited one would send no token."""
    sent, header = None, _add_cached_authorization(session, server_origin, request)
    if header is not None:
        response = yield request
        if not _is_token_refusal(response, server_origin):
            return
        sent, header = (Secret(header), response), None
    steps = _bearer_steps(session, server_origin, request, sent)
    with hiding_locals():
        try:
            step = next(steps)
            while True:
                step = steps.send(step.blocking() if isinstance(step, PendingCall) else (yield step))
        except StopIteration:
            return
        finally:
            steps.close()


def _warn_if_refused(response: AuthResponse, server_origin: UrlOrigin) -> None:
    # Twice is enough: what a fresh token cannot open, a third one will not.
    if response.status_code == 401:
        _log.warning(
            "%s refuses a token that was renewed just now; its operator has to look.", server_origin[1]
        )
