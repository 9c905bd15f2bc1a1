"""A service with stored credentials, and an authorization server that is a function."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from hermes_mcp_auth_remote import exit_delay
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.store.credentials import Credentials
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.timeouts import TIME_LIMITS, TimeLimits
from hermes_mcp_auth_remote.values import Secret, Server
from tests.exchange_script import form_of, make_response
from tests.store.builders import KEY, NOW, build_credentials

T = TypeVar("T")

SERVER = Server("notes", "https://notes.example/mcp")
# Times at which the stored access token is due for a refresh, and at which it has expired.
DUE_AT, EXPIRED_AT = NOW + 3590, NOW + 3601
OLD_HEADER = "Bearer access-0"


def grant_tokens(request: Request, **members: object) -> Response:
    """Return a successful token response."""
    fresh = {"access_token": "new", "refresh_token": "rotated", "token_type": "Bearer", "expires_in": 3600}
    return make_response(200, {**fresh, **members})


class FakeServer:
    """Answers each token request with `respond`, and other requests with an empty object.

    Each response waits until `gate` is set.
    """

    def __init__(self, respond: Callable[[Request], Response] = grant_tokens) -> None:
        self.respond = respond
        self.requests: list[Request] = []
        self.gate = threading.Event()
        self.gate.set()

    async def run_exchange(self, exchange: Exchange[T], server: Server) -> T:
        """Run an exchange as `http.client.run` does."""
        try:
            request = next(exchange)
            while True:
                self.requests.append(request)
                if request.is_token_request:
                    exit_delay.hold_exit_for_response("as0.example", 90.0)
                await asyncio.to_thread(self.gate.wait, 10)
                is_token_request = request.url.endswith("/token")
                request = exchange.send(self.respond(request) if is_token_request else make_response(200, {}))
        except StopIteration as end:
            result: T = end.value
            return result

    def form_values(self, path: str, member: str) -> list[str]:
        """Return one form field of each request to `path`."""
        return [form_of(request)[member] for request in self.requests if request.url.endswith(path)]


def make_service(home: Path, server: FakeServer, now: float, limits: TimeLimits = TIME_LIMITS) -> AuthService:
    return AuthService(home, run_exchange=server.run_exchange, clock=lambda: now, limits=limits)


def get_header(service: AuthService, server: Server = SERVER) -> str:
    return asyncio.run(service.session(server).header())


def make_store(home: Path, *, credentials: Credentials | None = None) -> FileStore:
    """Return a store with credentials in it."""
    store = FileStore(home)
    store.save_login(KEY, build_credentials(0) if credentials is None else credentials)
    return store


def read_refresh_token(home: Path) -> Secret | None:
    tokens = FileStore(home).read(KEY).credentials.tokens
    return None if tokens is None else tokens.refresh_token


def with_refresh_token(credentials: Credentials, refresh_token: str) -> Credentials:
    assert credentials.tokens is not None
    return replace(credentials, tokens=replace(credentials.tokens, refresh_token=Secret(refresh_token)))
