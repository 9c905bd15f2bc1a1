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
from tests.oauth.parties import ISSUER, PRM, RFC8414, TOKEN, URL, metadata, prm
from tests.playbook import answer

T = TypeVar("T")

LIFE_SECONDS = 3600.0
CLIENT_ID = "a-client"


@dataclass(slots=True)
class Session:
    """The tokens of one login. They are revoked together."""

    revoked: bool = False


@dataclass(slots=True)
class Access:
    """An access token. `is_replaced` is set after a refresh has replaced it."""

    session: Session
    expires_at: float
    revoked: bool = False
    renewed: bool = False


@dataclass(slots=True)
class Refresh:
    """A refresh token, and the access token that was issued with it."""

    session: Session
    access: Access
    used: bool = False


@dataclass(slots=True)
class Model:
    """Rotates every refresh token, and revokes the tokens of a login on reuse (RFC 9700 §4.14.2).

    `response_counts` counts the delivered responses by process and refresh token. `refused_first` holds
    the pairs whose first response was a refusal. `last_issued` is the latest refresh token of each process.
    `early_refreshes` holds the remaining seconds of each access token that was replaced too early.
    """

    clock: Clock
    down: bool = False
    lose_next: bool = False
    access: dict[str, Access] = field(default_factory=dict[str, Access])
    refreshes: dict[str, Refresh] = field(default_factory=dict[str, Refresh])
    requests: Counter[str] = field(default_factory=Counter[str])
    answered: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    refused_at_once: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    given: dict[str, str] = field(default_factory=dict[str, str])
    trouble_at: dict[str, float] = field(default_factory=dict[str, float])
    untimely: list[float] = field(default_factory=list[float])
    numbers: int = 0

    def log_in(self) -> Credentials:
        """Return the credentials that a login stores."""
        tokens = self._issued(Session())
        return Credentials(
            tokens,
            Client(CLIENT_ID, None, "none", (), is_registered=True),
            authorization_server_from_document(metadata()),
            Binding("notes", URL, ISSUER, CLIENT_ID, URL, connected_at=self.clock()),
        )

    def runner(self, process: str) -> Runner:
        """Return the exchange runner of one process."""
        return Runner(self, process)

    def live(self, authorization: str) -> bool:
        """Return whether the protected resource accepts this header now."""
        token = self.access[authorization.removeprefix("Bearer ")]
        return not (token.revoked or token.session.revoked) and self.clock() < token.expires_at

    def can_refresh(self, tokens: Tokens | None) -> bool:
        """Return whether the refresh token of these tokens is usable."""
        if tokens is None or tokens.refresh_token is None:
            return False
        token = self.refreshes[tokens.refresh_token.reveal()]
        return not token.used and not token.session.revoked

    def rotated(self, text: str) -> Tokens | None:
        """Exchange a refresh token for new tokens. None if it is refused."""
        token = self.refreshes[text]
        if token.used:
            token.session.revoked = True
        if token.session.revoked:
            return None
        remaining = token.access.expires_at - self.clock()
        if remaining > 60 and not token.access.revoked:
            self.untimely.append(remaining)
        token.used = token.access.renewed = True
        return self._issued(token.session)

    def _issued(self, session: Session) -> Tokens:
        self.numbers += 1
        now, access_token, refresh_token = self.clock(), f"at-{self.numbers}", f"rt-{self.numbers}"
        self.access[access_token] = access = Access(session, now + LIFE_SECONDS)
        self.refreshes[refresh_token] = Refresh(session, access)
        return Tokens(
            Secret(access_token),
            Secret(refresh_token),
            frozenset({"read"}),
            expires_at=now + LIFE_SECONDS,
            obtained_at=now,
        )


class Runner:
    """Runs the exchanges of one process."""

    def __init__(self, model: Model, process: str) -> None:
        self._model = model
        self._process = process

    async def __call__(self, exchange: Exchange[T], server: Server) -> T:
        try:
            request = next(exchange)
            while True:
                met = self._met(request)
                request = exchange.throw(met) if isinstance(met, NetworkError) else exchange.send(met)
        except StopIteration as end:
            result: T = end.value
            return result

    def _met(self, request: Request) -> Response | NetworkError:
        model, form = self._model, dict(parse_qsl(request.body.decode()))
        line = f"{request.method} {request.url}"
        if line in _DISCOVERY:
            return _DISCOVERY[line]
        assert line == TOKEN
        assert form["resource"] == URL
        model.requests[self._process] += 1
        if model.down:
            model.trouble_at[self._process] = model.clock()
            return Unreachable("The server is down.")
        if form["grant_type"] == "client_credentials":
            return _granted(model._issued(Session()), refresh=False)
        assert form["client_id"] == CLIENT_ID
        fresh = model.rotated(form["refresh_token"])
        if model.lose_next:
            model.lose_next = False
            model.trouble_at[self._process] = model.clock()
            return TimedOut("No answer.")
        sent = self._process, form["refresh_token"]
        model.answered[sent] += 1
        if fresh is None or fresh.refresh_token is None:
            if model.answered[sent] == 1:
                model.refused_at_once.add(sent)
            return answer(400, {"error": "invalid_grant"})
        model.given[self._process] = fresh.refresh_token.reveal()
        return _granted(fresh)


_DISCOVERY = {
    f"POST {URL}": answer(401, None, {"www-authenticate": "Bearer"}),
    f"{PRM}/mcp": answer(200, prm(ISSUER)),
    f"GET {ISSUER}{RFC8414}": answer(200, metadata(ISSUER)),
}


def _granted(tokens: Tokens, *, refresh: bool = True) -> Response:
    document: dict[str, object] = {
        "access_token": tokens.access_token.reveal(),
        "token_type": "Bearer",
        "expires_in": LIFE_SECONDS,
    }
    if refresh and tokens.refresh_token is not None:
        document["refresh_token"] = tokens.refresh_token.reveal()
    return answer(200, document)


@contextmanager
def full_disk() -> Iterator[None]:
    """Limit every file that this process writes to ten bytes, as on a full disk."""
    before, writes_none = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    # Otherwise Python would write truncated bytecode of the modules that it imports meanwhile.
    sys.dont_write_bytecode = True
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        sys.dont_write_bytecode = writes_none
