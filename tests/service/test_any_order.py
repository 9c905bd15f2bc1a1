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
from tests.demo.player import MovedClock
from tests.oauth.parties import ISSUER, metadata
from tests.playbook import answer

pytestmark = pytest.mark.slow

T = TypeVar("T")
URL = "https://mcp.example/mcp"
HERE = Origin("telegram", "7", "", "42")


class World:
    """An authorization server and a protected resource. `outcome` decides the next token response."""

    def __init__(self) -> None:
        self.outcome = "granted"
        self.codes: Counter[str] = Counter()

    async def run(self, exchange: Exchange[T], server: Server) -> T:
        try:
            request = next(exchange)
            while True:
                met = self.answer(request)
                request = exchange.throw(met) if isinstance(met, NetworkError) else exchange.send(met)
        except StopIteration as end:
            result: T = end.value
            return result

    def answer(self, request: Request) -> Response | NetworkError:
        if request.url.endswith("/token"):
            code = dict(parse_qsl(request.body.decode()))["code"]
            self.codes[code] += 1
            if self.outcome == "lost":
                return TimedOut("No answer.")
            if self.outcome == "refused":
                return answer(400, {"error": "invalid_grant"})
            return answer(200, {"access_token": f"for-{code}", "token_type": "Bearer", "expires_in": 60})
        if "oauth-protected-resource" in request.url:
            return answer(200, {"resource": URL, "authorization_servers": [ISSUER]})
        if "oauth-authorization-server" in request.url:
            return answer(200, metadata())
        return answer(201, {"client_id": "new"}) if request.url.endswith("/register") else answer(401)


class AnyOrder(RuleBasedStateMachine):
    logins = Bundle("logins")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world, self.clock = World(), MovedClock()
        self.service = AuthService(Path(self.folder.name), run_exchange=self.world.run, clock=self.clock)
        self.began = self.clock.now
        self.status: dict[str, str] = {}
        self.ends: dict[str, float] = {}
        self.pastes: Counter[str] = Counter()
        self.stored: str | None = None

    def teardown(self) -> None:
        self.folder.cleanup()

    def address(self, login: Login, **members: str) -> str:
        state = dict(parse_qsl(urlsplit(login.request.url).query))["state"]
        return f"{login.request.redirect_uri}?{urlencode({'state': state, **members})}"

    def finish(self, login: Login, text: str) -> McpAuthError | None:
        try:
            asyncio.run(self.service.complete_login(login.id, text, HERE))
        except McpAuthError as error:
            return error
        return None

    @rule(target=logins)
    def begin(self) -> Login:
        login = asyncio.run(self.service.start_login(Server("notes", URL), HERE))
        self.status[login.id], self.ends[login.id] = "waiting", login.expires_at
        return login

    @rule(login=logins, outcome=st.sampled_from(["granted", "lost", "refused"]))
    def paste(self, login: Login, outcome: str) -> None:
        self.world.outcome = outcome
        code = f"code-of-{login.id}"
        error = self.finish(login, self.address(login, code=code))
        if self.status[login.id] != "waiting":
            assert isinstance(error, LoginError)
            assert not isinstance(error, PasteRefused)
        elif outcome == "granted":
            assert error is None
            self.status[login.id], self.stored = "done", f"for-{code}"
        else:
            assert error is not None
            self.status[login.id] = "failed"

    @rule(login=logins, text=st.sampled_from(["", "hello", "http://127.0.0.1:1/callback?code=x&state=y"]))
    def paste_what_is_wrong(self, login: Login, text: str) -> None:
        error = self.finish(login, text)
        assert isinstance(error, LoginError)
        if self.status[login.id] == "waiting":
            self.pastes[login.id] += 1
            if self.pastes[login.id] == 5:
                self.status[login.id] = "failed"
        assert isinstance(error, PasteRefused) == (self.status[login.id] == "waiting")

    @rule(login=logins)
    def deny(self, login: Login) -> None:
        assert isinstance(self.finish(login, self.address(login, error="access_denied")), LoginError)
        if self.status[login.id] == "waiting":
            self.status[login.id] = "failed"

    @rule(login=logins)
    def cancel(self, login: Login) -> None:
        asyncio.run(self.service.cancel(login.id))
        if self.status[login.id] == "waiting":
            self.status[login.id] = "cancelled"

    @rule(login=logins)
    def be_killed_while_exchanging(self, login: Login) -> None:
        if self.status[login.id] == "waiting":
            address = self.address(login, code="a-code-of-the-dead")
            self.service._logins._parse_and_claim(login.id, Secret(address), HERE)
            self.status[login.id] = "exchanging"
            self.ends[login.id] = self.clock() + CLAIM_SECONDS

    # The service removes a login an hour after its end.
    @precondition(lambda self: self.clock.now - self.began < 3000)
    @rule(seconds=st.sampled_from([1, 119, 300, 600]))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds
        for login_id, status in self.status.items():
            if self.clock() >= self.ends[login_id]:
                self.status[login_id] = {"waiting": "expired", "exchanging": "failed"}.get(status, status)

    @invariant()
    def everything_is_as_the_table_says(self) -> None:
        for login_id, status in self.status.items():
            assert self.service.login(login_id).status == status
            # A login that is over has no secret on the disk.
            kept = FileStore(Path(self.folder.name)).logins.get(login_id)
            assert bool(kept.request.state) == bool(kept.request.code_verifier) == (not kept.is_over)

    @invariant()
    def no_code_is_sent_twice_and_only_a_grant_is_stored(self) -> None:
        assert set(self.world.codes.values()) <= {1}
        tokens = FileStore(Path(self.folder.name)).read(CredentialKey("notes")).tokens
        assert (tokens.access_token.reveal() if tokens else None) == self.stored


AnyOrder.TestCase.settings = settings(
    max_examples=settings().max_examples // 2,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

TestAnyOrder = AnyOrder.TestCase
