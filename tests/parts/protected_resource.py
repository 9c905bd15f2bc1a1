"""A protected resource whose authorization server is the real oidc-provider. RFC 9728, RFC 6750, RFC 7662.

    with run_oidc_provider() as op, serve_protected_resource(op) as resource:
        resource.url     # responds 401 if the request has no token of `op` with this audience

The resource can protect any ASGI application, for example a real MCP server. Without an application, it
responds with the claims of the token.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

import httpx
import jwt
import uvicorn
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.parts.oidc_provider import OidcProvider

START_SECONDS = 20.0
STOP_SECONDS = 10.0
Claims = dict[str, object]


@dataclass(slots=True)
class ProtectedResource:
    """An ASGI application that checks tokens. Change `required_scope` at run time to require a step-up.

    `statuses` lists, in order, the status of each response at `url` and at URLs below it.
    """

    op: OidcProvider
    origin: str
    path: str
    required_scope: frozenset[str]
    scopes_supported: tuple[str, ...] | None
    check_audience: bool
    client: httpx.Client
    app: ASGIApp | None = None
    statuses: list[int] = field(default_factory=list[int])
    keys: jwt.PyJWKSet | None = None
    # Members of the metadata that differ from the right ones.
    metadata_overrides: Claims = field(default_factory=dict[str, object])

    @property
    def url(self) -> str:
        return self.origin + self.path

    @property
    def metadata_url(self) -> str:
        """RFC 9728 section 3.1: the well-known part goes between host and path."""
        return f"{self.origin}/.well-known/oauth-protected-resource{self.path}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await (self.app or _no_lifespan)(scope, receive, send)
        elif self.origin + scope["path"] == self.metadata_url:
            await JSONResponse(self.metadata())(scope, receive, send)
        elif not (scope["path"] + "/").startswith(self.path + "/"):
            await Response(status_code=404)(scope, receive, send)
        else:
            await self._check_token(scope, receive, self._record_status(send))

    def metadata(self) -> Claims:
        """Build the protected resource metadata (RFC 9728 section 2)."""
        document: Claims = {
            "resource": self.url,
            "authorization_servers": [self.op.issuer],
            "bearer_methods_supported": ["header"],
        }
        if self.scopes_supported is not None:
            document["scopes_supported"] = list(self.scopes_supported)
        return {**document, **self.metadata_overrides}

    async def _check_token(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = _bearer_token(scope)
        if token is None:
            return await self._challenge(401)(scope, receive, send)
        # In a thread: introspection is a blocking HTTP request.
        claims = await asyncio.to_thread(self.token_claims, token)
        if claims is None:
            return await self._challenge(401, "invalid_token")(scope, receive, send)
        if not self.required_scope <= set(str(claims.get("scope", "")).split()):
            return await self._challenge(403, "insufficient_scope")(scope, receive, send)
        return await (self.app or JSONResponse(claims))(scope, receive, send)

    def _challenge(self, status: int, error: str | None = None) -> Response:
        parts = [f'error="{error}"'] if error else []
        parts.append(f'resource_metadata="{self.metadata_url}"')
        if self.required_scope:
            parts.append(f'scope="{" ".join(sorted(self.required_scope))}"')
        return Response(status_code=status, headers={"WWW-Authenticate": "Bearer " + ", ".join(parts)})

    def token_claims(self, token: str) -> Claims | None:
        """Return the claims of an introspected or verified token; None if it is not valid here."""
        uses_jwt = self.op.options.access_token_format == "jwt"
        claims = self._verify(token) if uses_jwt else self._introspect(token)
        audience = (claims or {}).get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        return claims if not self.check_audience or self.url in audiences else None

    def _introspect(self, token: str) -> Claims | None:
        introspector = self.op.introspector
        response = self.client.post(
            f"{self.op.issuer}/token/introspection",
            data={"token": token},
            auth=(introspector.client_id, introspector.client_secret),
        )
        claims = cast("Claims", response.raise_for_status().json())
        return claims if claims["active"] is True else None

    def _verify(self, token: str) -> Claims | None:
        if self.keys is None:
            document = self.client.get(f"{self.op.issuer}/jwks").raise_for_status().json()
            self.keys = jwt.PyJWKSet.from_dict(document)
        try:
            key = self.keys[jwt.get_unverified_header(token)["kid"]]
            claims: Claims = jwt.decode(
                token, key, algorithms=["RS256"], issuer=self.op.issuer, options={"verify_aud": False}
            )
        except (jwt.PyJWTError, KeyError):
            return None
        return claims

    def _record_status(self, send: Send) -> Send:
        async def send_recorded(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                self.statuses.append(cast("int", message["status"]))
            await send(message)

        return cast("Send", send_recorded)


def _bearer_token(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.decode("latin-1").partition(" ")
            return token.strip() if scheme.lower() == "bearer" else None
    return None


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # An idle TLS connection would wait for the peer's close_notify and stay open.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


async def _no_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    for event in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{event}.complete"})


@contextmanager
def serve_protected_resource(
    op: OidcProvider,
    app: ASGIApp | None = None,
    *,
    path: str = "/mcp",
    required_scope: frozenset[str] = frozenset({"mcp:tools"}),
    scopes_supported: tuple[str, ...] | None = ("mcp:tools",),
    check_audience: bool = True,
) -> Iterator[ProtectedResource]:
    """Serve a protected resource on a free loopback port. If `op` has a certificate, use it.

    `app` gets only requests with a valid token; their path is unchanged. If the authorization server supports
    no resource indicators, set `check_audience=False`.
    """
    certificates = op.certificates
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    origin = f"{'https' if certificates else 'http'}://{op.options.host}:{sock.getsockname()[1]}"
    with (
        sock,
        httpx.Client(
            verify=certificates.client_context() if certificates else True, trust_env=False, timeout=30
        ) as client,
    ):
        resource = ProtectedResource(
            op, origin, path, required_scope, scopes_supported, check_audience, client, app
        )
        config = uvicorn.Config(
            resource,
            log_level="warning",
            lifespan="on",
            ws="none",
            ssl_certfile=str(certificates.cert_file) if certificates else None,
            ssl_keyfile=str(certificates.key_file) if certificates else None,
            # Do not wait for open event streams.
            timeout_graceful_shutdown=1,
        )
        server = _Server(config)
        thread = threading.Thread(target=server.run, args=([sock],), name="protected-resource", daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread)
            yield resource
        finally:
            server.should_exit = True
            thread.join(STOP_SECONDS)
            if thread.is_alive():
                raise AssertionError(f"The protected resource did not stop in {STOP_SECONDS} s.")


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise AssertionError("The protected resource did not start.")
        time.sleep(0.01)
