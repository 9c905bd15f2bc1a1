"""Start, paste, deny, cancel, expire, kill: in any order, a login follows the state table in `login`."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from hermes_mcp_auth_remote.errors import LoginError, McpAuthError, NetworkError, PasteRefused, TimedOut
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.service.complete_login import CLAIM_SECONDS
from hermes_mcp_auth_remote.store.files.credential_files import FileStore
from hermes_mcp_auth_remote.values import CredentialKey, Origin, Secret, Server
from tests.demo.manual_client import ManualClock
from tests.exchange_script import make_response
from tests.oauth.builders import ISSUER, metadata

pytestmark = pytest.mark.slow

T = TypeVar("T")
URL = "https://mcp.example/mcp"
ORIGIN = Origin("telegram", "7", "", "42")


class FakeServers:
    """An authorization server and a protected resource. `outcome` decides the next token response."""

    def __init__(self) -> None:
        self.outcome = "granted"
        self.code_counts: Counter[str] = Counter()

    async def run_exchange(self, exchange: Exchange[T], server: Server) -> T:
        try:
            request = next(exchange)
            while True:
                outcome = self.respond(request)
                request = (
                    exchange.throw(outcome) if isinstance(outcome, NetworkError) else exchange.send(outcome)
                )
        except StopIteration as end:
            result: T = end.value
            return result

    def respond(self, request: Request) -> Response | NetworkError:
        if request.url.endswith("/token"):
            code = dict(parse_qsl(request.body.decode()))["code"]
            self.code_counts[code] += 1
            if self.outcome == "lost":
                return TimedOut("No answer.")
            if self.outcome == "refused":
                return make_response(400, {"error": "invalid_grant"})
            return make_response(
                200, {"access_token": f"for-{code}", "token_type": "Bearer", "expires_in": 60}
            )
        if "oauth-protected-resource" in request.url:
            return make_response(200, {"resource": URL, "authorization_servers": [ISSUER]})
        if "oauth-authorization-server" in request.url:
            return make_response(200, metadata())
        return (
            make_response(201, {"client_id": "new"})
            if request.url.endswith("/register")
            else make_response(401)
        )


class LoginStateMachine(RuleBasedStateMachine):
    logins = Bundle("logins")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.servers, self.clock = FakeServers(), ManualClock()
        self.service = AuthService(
            Path(self.folder.name), run_exchange=self.servers.run_exchange, clock=self.clock
        )
        self.began = self.clock.now
        self.status: dict[str, str] = {}
        self.deadlines: dict[str, float] = {}
        self.pastes: Counter[str] = Counter()
        self.stored_token: str | None = None

    def teardown(self) -> None:
        self.folder.cleanup()

    def build_address(self, login: Login, **members: str) -> str:
        state = dict(parse_qsl(urlsplit(login.request.url).query))["state"]
        return f"{login.request.redirect_uri}?{urlencode({'state': state, **members})}"

    def complete_login(self, login: Login, text: str) -> McpAuthError | None:
        try:
            asyncio.run(self.service.complete_login(login.id, text, ORIGIN))
        except McpAuthError as error:
            return error
        return None

    @rule(target=logins)
    def start_login(self) -> Login:
        login = asyncio.run(self.service.start_login(Server("notes", URL), ORIGIN))
        self.status[login.id], self.deadlines[login.id] = "waiting", login.expires_at
        return login

    @rule(login=logins, outcome=st.sampled_from(["granted", "lost", "refused"]))
    def paste(self, login: Login, outcome: str) -> None:
        self.servers.outcome = outcome
        code = f"code-of-{login.id}"
        error = self.complete_login(login, self.build_address(login, code=code))
        if self.status[login.id] != "waiting":
            assert isinstance(error, LoginError)
            assert not isinstance(error, PasteRefused)
        elif outcome == "granted":
            assert error is None
            self.status[login.id], self.stored_token = "done", f"for-{code}"
        else:
            assert error is not None
            self.status[login.id] = "failed"

    @rule(login=logins, text=st.sampled_from(["", "hello", "http://127.0.0.1:1/callback?code=x&state=y"]))
    def paste_wrong_text(self, login: Login, text: str) -> None:
        error = self.complete_login(login, text)
        assert isinstance(error, LoginError)
        if self.status[login.id] == "waiting":
            self.pastes[login.id] += 1
            if self.pastes[login.id] == 5:
                self.status[login.id] = "failed"
        assert isinstance(error, PasteRefused) == (self.status[login.id] == "waiting")

    @rule(login=logins)
    def deny(self, login: Login) -> None:
        assert isinstance(
            self.complete_login(login, self.build_address(login, error="access_denied")), LoginError
        )
        if self.status[login.id] == "waiting":
            self.status[login.id] = "failed"

    @rule(login=logins)
    def cancel(self, login: Login) -> None:
        asyncio.run(self.service.cancel(login.id))
        if self.status[login.id] == "waiting":
            self.status[login.id] = "cancelled"

    @rule(login=logins)
    def kill_while_exchanging(self, login: Login) -> None:
        if self.status[login.id] == "waiting":
            address = self.build_address(login, code="a-code-of-the-dead")
            self.service._logins._parse_and_claim(login.id, Secret(address), ORIGIN)
            self.status[login.id] = "exchanging"
            self.deadlines[login.id] = self.clock() + CLAIM_SECONDS

    # The service removes a login an hour after its end.
    @precondition(lambda self: self.clock.now - self.began < 3000)
    @rule(seconds=st.sampled_from([1, 119, 300, 600]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds
        for login_id, status in self.status.items():
            if self.clock() >= self.deadlines[login_id]:
                self.status[login_id] = {"waiting": "expired", "exchanging": "failed"}.get(status, status)

    @invariant()
    def every_status_follows_the_table(self) -> None:
        for login_id, status in self.status.items():
            assert self.service.blocking.login(login_id).status == status
            # A login that is over has no secret on the disk.
            record = FileStore(Path(self.folder.name)).logins.get(login_id)
            assert bool(record.request.state) == bool(record.request.code_verifier) == (not record.is_over)

    @invariant()
    def no_code_is_sent_twice_and_only_a_grant_is_stored(self) -> None:
        assert set(self.servers.code_counts.values()) <= {1}
        tokens = FileStore(Path(self.folder.name)).read(CredentialKey("notes")).credentials.tokens
        assert (tokens.access_token.reveal() if tokens else None) == self.stored_token


LoginStateMachine.TestCase.settings = settings(
    max_examples=settings().max_examples // 2,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

TestLoginStateMachine = LoginStateMachine.TestCase
