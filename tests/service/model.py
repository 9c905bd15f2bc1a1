"""A strict authorization server in memory, without a network; and a context in which the disk is full."""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qsl

from hermes_mcp_auth_remote.errors import NetworkError, TimedOut, Unreachable
from hermes_mcp_auth_remote.oauth.client import Client
from hermes_mcp_auth_remote.oauth.metadata import authorization_server_from_document
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.store.credentials import Binding, Credentials
from hermes_mcp_auth_remote.values import Clock, Secret, Server
from tests.exchange_script import make_response
from tests.oauth.builders import ISSUER, PRM, RFC8414, TOKEN_REQUEST, URL, metadata, prm

T = TypeVar("T")

LIFE_SECONDS = 3600.0
CLIENT_ID = "a-client"


@dataclass(slots=True)
class TokenFamily:
    """The tokens of one login. They are revoked together."""

    is_revoked: bool = False


@dataclass(slots=True)
class AccessToken:
    """An access token. `is_replaced` is set after a refresh has replaced it."""

    family: TokenFamily
    expires_at: float
    is_revoked: bool = False
    is_replaced: bool = False


@dataclass(slots=True)
class RefreshToken:
    """A refresh token, and the access token that was issued with it."""

    family: TokenFamily
    access_token: AccessToken
    is_used: bool = False


@dataclass(slots=True)
class ServerModel:
    """Rotates every refresh token. If one is used again, revokes the login's tokens (RFC 9700 §4.14.2).

    `response_counts` counts the delivered responses by process and refresh token. `refused_first` holds
    the pairs whose first response was a refusal. `last_issued` is the latest refresh token of each process.
    `early_refreshes` holds the remaining seconds of each access token that was replaced too early.
    """

    clock: Clock
    is_down: bool = False
    drop_next_response: bool = False
    access_tokens: dict[str, AccessToken] = field(default_factory=dict[str, AccessToken])
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict[str, RefreshToken])
    request_counts: Counter[str] = field(default_factory=Counter[str])
    response_counts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    refused_first: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    last_issued: dict[str, str] = field(default_factory=dict[str, str])
    failed_at: dict[str, float] = field(default_factory=dict[str, float])
    early_refreshes: list[float] = field(default_factory=list[float])
    issued_count: int = 0

    def log_in(self) -> Credentials:
        """Return the credentials that a login stores."""
        tokens = self._issue_tokens(TokenFamily())
        return Credentials(
            tokens,
            Client(CLIENT_ID, None, "none", (), is_registered=True),
            authorization_server_from_document(metadata()),
            Binding("notes", URL, ISSUER, CLIENT_ID, URL, connected_at=self.clock()),
        )

    def runner(self, process: str) -> ProcessRunner:
        """Return the exchange runner of one process."""
        return ProcessRunner(self, process)

    def accepts(self, authorization: str) -> bool:
        """Return whether the protected resource accepts this header now."""
        token = self.access_tokens[authorization.removeprefix("Bearer ")]
        return not (token.is_revoked or token.family.is_revoked) and self.clock() < token.expires_at

    def can_refresh(self, tokens: Tokens | None) -> bool:
        """Return whether the refresh token of these tokens is usable."""
        if tokens is None or tokens.refresh_token is None:
            return False
        token = self.refresh_tokens[tokens.refresh_token.reveal()]
        return not token.is_used and not token.family.is_revoked

    def rotate(self, refresh_token: str) -> Tokens | None:
        """Exchange a refresh token for new tokens. Return None if the refresh token is refused."""
        token = self.refresh_tokens[refresh_token]
        if token.is_used:
            token.family.is_revoked = True
        if token.family.is_revoked:
            return None
        remaining = token.access_token.expires_at - self.clock()
        if remaining > 60 and not token.access_token.is_revoked:
            self.early_refreshes.append(remaining)
        token.is_used = token.access_token.is_replaced = True
        return self._issue_tokens(token.family)

    def _issue_tokens(self, family: TokenFamily) -> Tokens:
        self.issued_count += 1
        now, access_token, refresh_token = self.clock(), f"at-{self.issued_count}", f"rt-{self.issued_count}"
        self.access_tokens[access_token] = access = AccessToken(family, now + LIFE_SECONDS)
        self.refresh_tokens[refresh_token] = RefreshToken(family, access)
        return Tokens(
            Secret(access_token),
            Secret(refresh_token),
            frozenset({"read"}),
            expires_at=now + LIFE_SECONDS,
            obtained_at=now,
        )


class ProcessRunner:
    """Runs the exchanges of one process."""

    def __init__(self, model: ServerModel, process: str) -> None:
        self._model = model
        self._process = process

    async def __call__(self, exchange: Exchange[T], server: Server) -> T:
        try:
            request = next(exchange)
            while True:
                outcome = self._respond(request)
                request = (
                    exchange.throw(outcome) if isinstance(outcome, NetworkError) else exchange.send(outcome)
                )
        except StopIteration as end:
            result: T = end.value
            return result

    def _respond(self, request: Request) -> Response | NetworkError:
        model, form = self._model, dict(parse_qsl(request.body.decode()))
        line = f"{request.method} {request.url}"
        if line in _DISCOVERY:
            return _DISCOVERY[line]
        assert line == TOKEN_REQUEST
        assert form["resource"] == URL
        model.request_counts[self._process] += 1
        if model.is_down:
            model.failed_at[self._process] = model.clock()
            return Unreachable("The server is down.")
        if form["grant_type"] == "client_credentials":
            return _token_response(model._issue_tokens(TokenFamily()), refresh=False)
        assert form["client_id"] == CLIENT_ID
        new_tokens = model.rotate(form["refresh_token"])
        if model.drop_next_response:
            model.drop_next_response = False
            model.failed_at[self._process] = model.clock()
            return TimedOut("No answer.")
        sent_token = self._process, form["refresh_token"]
        model.response_counts[sent_token] += 1
        if new_tokens is None or new_tokens.refresh_token is None:
            if model.response_counts[sent_token] == 1:
                model.refused_first.add(sent_token)
            return make_response(400, {"error": "invalid_grant"})
        model.last_issued[self._process] = new_tokens.refresh_token.reveal()
        return _token_response(new_tokens)


_DISCOVERY = {
    f"POST {URL}": make_response(401, None, {"www-authenticate": "Bearer"}),
    f"{PRM}/mcp": make_response(200, prm(ISSUER)),
    f"GET {ISSUER}{RFC8414}": make_response(200, metadata(ISSUER)),
}


def _token_response(tokens: Tokens, *, refresh: bool = True) -> Response:
    document: dict[str, object] = {
        "access_token": tokens.access_token.reveal(),
        "token_type": "Bearer",
        "expires_in": LIFE_SECONDS,
    }
    if refresh and tokens.refresh_token is not None:
        document["refresh_token"] = tokens.refresh_token.reveal()
    return make_response(200, document)


@contextmanager
def full_disk() -> Iterator[None]:
    """Limit every file that this process writes to ten bytes, as on a full disk."""
    before, writes_none = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    # Without this, Python would write truncated bytecode of the modules that it imports in the block.
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = writes_none
