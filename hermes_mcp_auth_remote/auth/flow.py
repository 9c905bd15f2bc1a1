"""Send a request with a token; after a 401 or 403, try once with another token. RFC 6750 §2.1, §3, RFC 9449.

The flow serves httpx and httpx2: it uses requests and responses only through two Protocols.
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
    """A request's URL; `port` is None for the scheme's default port."""

    @property
    def scheme(self) -> str: ...
    @property
    def host(self) -> str: ...
    @property
    def port(self) -> int | None: ...


class AuthRequest(Protocol):
    """The interface of a request that the flow uses."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> Url: ...
    @property
    def headers(self) -> MutableMapping[str, str]: ...


class AuthResponse(StreamedResponse, Protocol):
    """The interface of a response that the flow uses."""

    @property
    def url(self) -> Url: ...


T = TypeVar("T")
RequestT = TypeVar("RequestT", bound=AuthRequest)


class SessionServer(Protocol):
    """The server of a session."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str: ...


class Prover(Protocol):
    """Creates DPoP proofs with the key that a token is bound to. `oauth.dpop.Prover` implements it."""

    def create_proof(self, method: str, url: str, access_token: str | None = None, /) -> str: ...
    def remember_nonce(self, url: str, nonce: str | None, /) -> bool: ...


class Session(Protocol):
    """The source of the token. `service.sessions.Session` implements it; its import is slow."""

    @property
    def server(self) -> SessionServer: ...
    @property
    def prover(self) -> Prover | None: ...
    def header_now(self) -> str | None: ...
    async def header(self) -> str: ...
    def header_blocking(self) -> str: ...
    def report_retry(self, header: str, /, *, is_accepted: bool) -> None: ...
    async def handle_challenge(
        self, refused_header: str, status: int, www_authenticate: list[str], /
    ) -> str | None: ...
    def handle_challenge_blocking(
        self, refused_header: str, status: int, www_authenticate: list[str], /
    ) -> str | None: ...


def resolve_session(server: str | Session, owner: str | None = None) -> Session:
    """Return a session unchanged, or open the session of an owner for a server's name or URL.

    Raises TypeError for a session with an owner: a session already has one.
    """
    if not isinstance(server, str):
        if owner is not None:
            raise TypeError("A Session already has an owner. Pass the server's name or URL with an owner.")
        return server
    # Import late: this module loads the protocol, the store and the HTTP client.
    from hermes_mcp_auth_remote.service.default import open_session  # noqa: PLC0415

    return open_session(server, owner)


UrlOrigin = tuple[str, str, int | None]
"""Scheme, host and port of a URL."""


def url_origin(url: Url) -> UrlOrigin:
    """Return a URL's origin, for comparison."""
    return url.scheme, url.host, url.port


def _is_token_refusal(response: AuthResponse, server_origin: UrlOrigin) -> bool:
    # After a redirect to another origin, the responding server never got the token.
    return response.status_code in {401, 403} and url_origin(response.url) == server_origin


def _add_authorization(session: Session, request: AuthRequest, header: Secret) -> Prover | None:
    """Put the token on a request, with a DPoP proof for this request if the token is bound to a key."""
    prover = session.prover
    if header:
        request.headers["Authorization"] = header.reveal()
        if prover is not None:
            _, _, access_token = header.reveal().partition(" ")
            request.headers["DPoP"] = prover.create_proof(request.method, str(request.url), access_token)
    return prover


def _should_retry_with_nonce(prover: Prover, response: AuthResponse) -> bool:
    """Remember the nonce for proofs; return True if the server refused only because the nonce was missing.

    The server sends a 401 (RFC 9449 section 9), and may send a new nonce with any response (section 8.2).
    """
    nonces = response.headers.get_list("dpop-nonce")
    is_new = prover.remember_nonce(str(response.url), nonces[0] if nonces else None)
    challenges = response.headers.get_list("www-authenticate")
    return is_new and response.status_code == 401 and any("use_dpop_nonce" in line for line in challenges)


@dataclass(frozen=True, slots=True)
class PendingCall(Generic[T]):
    """A call that the flow waits for, in an asynchronous and a blocking variant."""

    asynchronous: Callable[[], Awaitable[T]]
    blocking: Callable[[], T]


def _bearer_steps(
    session: Session,
    server_origin: UrlOrigin,
    request: RequestT,
    first_attempt: tuple[Secret, AuthResponse] | None,
) -> Generator[RequestT | PendingCall[Any], Any]:
    """Yield each request that the caller must send, and each PendingCall that the caller must wait for.

    The caller passes the response or the result back with `send`.

    `first_attempt` is the header of the first attempt and its response, if the request was sent already.
    """
    if url_origin(request.url) != server_origin:
        yield request
        return
    if first_attempt is None:
        # Use a Secret: this frame waits for a server or a user, and a traceback may show its variables.
        header = as_secret(
            session.header_now() or (yield PendingCall(session.header, session.header_blocking))
        )
        response = yield from _send_with_token(session, request, header)
    else:
        header, response = first_attempt
    if not _is_token_refusal(response, server_origin):
        return
    # An unread body holds its connection: a pool with one connection would block while a user logs in.
    yield _limit_body(response)
    status, challenges = response.status_code, response.headers.get_list("www-authenticate")
    new_header = yield PendingCall(
        lambda: session.handle_challenge(header.reveal(), status, challenges),
        lambda: session.handle_challenge_blocking(header.reveal(), status, challenges),
    )
    if new_header is None:
        return
    new_header = as_secret(new_header)
    response = yield from _send_with_token(session, request, new_header)
    if _is_token_refusal(response, server_origin):
        # The caller gets this response, and `client.post` reads its body without a limit.
        yield _limit_body(response)
    if url_origin(response.url) == server_origin:
        session.report_retry(new_header.reveal(), is_accepted=response.status_code != 401)
    _warn_if_refused(response, server_origin)


def _send_with_token(
    session: Session, request: RequestT, header: Secret
) -> Generator[RequestT | PendingCall[Any], Any, AuthResponse]:
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
    """Put a cached token on a request; return the header, or None if the full flow is needed.

    This is the hot path: with a cached token, neither bearer flow creates a second generator.
    """
    if url_origin(request.url) != server_origin:
        return None
    # Read the header before the prover: a thread that stores a bound token sets the prover first.
    header = session.header_now()
    if not header or session.prover is not None:
        return None
    request.headers["Authorization"] = header
    return header


async def bearer_flow(
    session: Session, server_origin: UrlOrigin, request: RequestT
) -> AsyncGenerator[RequestT, AuthResponse]:
    """Send a request with the session's token; after a 401 or 403, try once with another token.

    A request to an origin other than `server_origin` is sent without the token. If the session has
    no token, the request is also sent without one, and the server responds with a challenge. The flow reads
    the body of a 401 or 403 up to 64 KiB and two seconds (`bounded_body`). Raises AuthorizationRequired if a
    user must log in, a NetworkError or a StoreError.
    """
    first_attempt, header = None, _add_cached_authorization(session, server_origin, request)
    if header is not None:
        response = yield request
        if not _is_token_refusal(response, server_origin):
            return
        first_attempt, header = (Secret(header), response), None
    steps = _bearer_steps(session, server_origin, request, first_attempt)
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
    session: Session, server_origin: UrlOrigin, request: RequestT
) -> Generator[RequestT, AuthResponse]:
    """Do what `bearer_flow` does, for a synchronous client; the default flow of httpx would send no token."""
    first_attempt, header = None, _add_cached_authorization(session, server_origin, request)
    if header is not None:
        response = yield request
        if not _is_token_refusal(response, server_origin):
            return
        first_attempt, header = (Secret(header), response), None
    steps = _bearer_steps(session, server_origin, request, first_attempt)
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
    # Do not try again: the server would refuse a third token like the second one.
    if response.status_code == 401:
        _log.warning(
            "%s refuses a token that was refreshed just now; its operator must check the server.",
            server_origin[1],
        )
