"""Machine tokens: a session gets one token for all callers, without a login; on expiry, it gets another."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest

from hermes_mcp_auth_remote.config import find_server
from hermes_mcp_auth_remote.errors import ConfigError, MalformedResponse, TokenError
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import IdentityProvider, Origin, Secret, Server, ServerOptions
from tests.exchange_script import make_response
from tests.oauth.builders import ISSUER, NOW, PRM, RFC8414, TOKEN_REQUEST, URL, metadata, prm
from tests.requirements import covers

T = TypeVar("T")

OPTIONS = ServerOptions(client_id="job-7", client_secret=Secret("s3cret"), grant="client_credentials")
SERVER = Server("job", URL, OPTIONS)


@dataclass
class FakeNetwork:
    """The protected resource and the authorization server, in memory. Records each request."""

    now: float = NOW
    grant_count: int = 0
    refusal: str | None = None
    request_lines: list[str] = field(default_factory=list[str])

    async def __call__(self, exchange: Exchange[T], server: Server) -> T:
        try:
            request = next(exchange)
            while True:
                await asyncio.sleep(0)
                request = exchange.send(self.respond(request))
        except StopIteration as end:
            result: T = end.value
            return result

    def respond(self, request: Request) -> Response:
        line = f"{request.method} {request.url}"
        self.request_lines.append(line)
        if line == f"POST {URL}":
            return make_response(401, None, {"www-authenticate": 'Bearer scope="a"'})
        if line in {f"{PRM}/mcp", PRM}:
            return make_response(200, prm(ISSUER))
        if line == f"GET {ISSUER}{RFC8414}":
            return make_response(200, metadata(ISSUER))
        assert line == TOKEN_REQUEST, line
        if self.refusal is not None:
            return make_response(400, {"error": self.refusal})
        self.grant_count += 1
        return make_response(
            200, {"access_token": f"t{self.grant_count}", "token_type": "Bearer", "expires_in": 100}
        )

    def service(self, home: Path) -> AuthService:
        return AuthService(home, run_exchange=self, clock=lambda: self.now)


@covers("no-person", "client-credentials")
def test_a_token_is_fetched_stored_and_fetched_again(tmp_path: Path) -> None:
    async def story() -> None:
        network = FakeNetwork()
        session = network.service(tmp_path).session(SERVER)
        assert set(await asyncio.gather(*(session.header() for _ in range(20)))) == {"Bearer t1"}
        assert network.request_lines.count(TOKEN_REQUEST) == 1
        # Another process uses the stored token.
        assert await network.service(tmp_path).session(SERVER).header() == "Bearer t1"
        network.now += 101
        assert await session.header() == "Bearer t2"
        assert await session.handle_challenge("Bearer t2", 401, []) == "Bearer t3"
        challenge_lines = ['Bearer error="insufficient_scope", scope="b"']
        assert await session.handle_challenge("Bearer t3", 403, challenge_lines) == "Bearer t4"
        stored = network.service(tmp_path).blocking.connection(SERVER)
        assert stored is not None
        assert stored.scope == frozenset({"a", "b"})

    asyncio.run(story())


@covers("no-person")
def test_a_refusal_is_reported_unchanged_and_not_repeated_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        network = FakeNetwork(refusal="unauthorized_client")
        session = network.service(tmp_path).session(SERVER)
        for _ in range(3):
            with pytest.raises(TokenError, match="unauthorized_client"):
                await session.header()
        assert network.request_lines.count(TOKEN_REQUEST) == 1
        network.refusal, network.now = None, network.now + 6
        assert await session.header() == "Bearer t1"

    asyncio.run(story())


@covers("no-person")
def test_an_old_token_is_used_until_it_expires(tmp_path: Path) -> None:
    async def story() -> None:
        network = FakeNetwork()
        session = network.service(tmp_path).session(SERVER)
        await session.header()
        network.refusal, network.now = "temporarily_unavailable", network.now + 95
        assert await network.service(tmp_path).session(SERVER).header() == "Bearer t1"
        network.now += 10
        with pytest.raises(TokenError):
            await network.service(tmp_path).session(SERVER).header()

    asyncio.run(story())


@covers("jwt-bearer", "enterprise")
def test_missing_inputs_of_a_grant_are_reported_before_any_request(tmp_path: Path) -> None:
    async def story() -> None:
        network, missing = FakeNetwork(), str(tmp_path / "missing")
        provider = IdentityProvider("https://idp.example/token", missing, "c")
        for options in (
            replace(OPTIONS, grant="jwt_bearer"),
            replace(OPTIONS, grant="jwt_bearer", assertion_file=missing),
            replace(OPTIONS, grant="enterprise"),
            replace(OPTIONS, grant="enterprise", identity_provider=provider),
            replace(OPTIONS, private_key_file=missing),
        ):
            with pytest.raises(ConfigError):
                await network.service(tmp_path).session(Server("job", URL, options)).header()
        assert network.request_lines == []

    asyncio.run(story())


CONFIG = """
mcp_servers:
  job:
    url: https://mcp.example/mcp
    auth: oauth
    oauth: {OAUTH}
"""


@covers("client-credentials", "jwt-bearer", "enterprise")
@pytest.mark.parametrize(
    ("oauth", "missing"),
    [
        ("{grant: client_credentials}", "client_id"),
        ("{grant: jwt_bearer, client_id: c}", "assertion_file"),
        ("{grant: enterprise, client_id: c}", "identity_provider"),
        ("{grant: enterprise, client_id: c, identity_provider: {client_id: c}}", "token_endpoint"),
        ("{grant: password}", "grant"),
        ("{dpop: maybe}", "dpop"),
    ],
)
def test_a_grant_that_cannot_work_is_reported_with_its_config_key(
    tmp_path: Path, oauth: str, missing: str
) -> None:
    (tmp_path / "config.yaml").write_text(CONFIG.replace("{OAUTH}", oauth))
    with pytest.raises(ConfigError, match=missing):
        find_server("job", tmp_path, {})


@covers("enterprise", "dpop-choice")
def test_the_whole_configuration_of_the_enterprise_grant_is_read(tmp_path: Path) -> None:
    provider = (
        "{token_endpoint: https://idp.example/token, token_file: /run/id, client_id: c, client_secret: s}"
    )
    oauth = f"{{grant: enterprise, client_id: job-7, dpop: true, identity_provider: {provider}}}"
    (tmp_path / "config.yaml").write_text(CONFIG.replace("{OAUTH}", oauth))
    options = find_server("job", tmp_path, {}).options
    expected = IdentityProvider("https://idp.example/token", "/run/id", "c", Secret("s"))
    assert (options.grant, options.identity_provider, options.dpop) == ("enterprise", expected, True)


@covers("no-person")
def test_a_server_with_a_machine_grant_refuses_to_start_a_login(tmp_path: Path) -> None:
    network = FakeNetwork()
    login_start = network.service(tmp_path).start_login(SERVER, Origin("terminal"))
    with pytest.raises(ConfigError, match="job needs no login") as refused:
        asyncio.run(login_start)
    assert refused.value.advice == "Use it as it is; `hermes-mcp-auth token job` fetches a token."
    assert network.request_lines == []


@covers("dpop-choice", "no-person")
def test_a_bearer_token_is_refused_if_the_operator_requires_dpop(tmp_path: Path) -> None:
    network = FakeNetwork()
    dpop_server = replace(SERVER, options=replace(OPTIONS, dpop=True))
    service = network.service(tmp_path)
    with pytest.raises(MalformedResponse, match="bound to no key"):
        asyncio.run(service.session(dpop_server).header())
    assert service.blocking.connection(dpop_server) is None
