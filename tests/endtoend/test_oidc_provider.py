"""A certified authorization server over http, and over https with the test's own CA."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.errors import AuthorizationDenied, AuthorizationRequired, LoginAlreadyUsed
from hermes_mcp_auth_remote.login import Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Origin, Server, ServerOptions
from tests.parts.browser_user import approve_oidc, deny_oidc
from tests.parts.oidc_provider import OidcOptions, OidcProvider, run_oidc_provider
from tests.parts.protected_resource import ProtectedResource, serve_protected_resource

pytestmark = pytest.mark.node

TERMINAL = Origin("terminal")


@dataclass(frozen=True, slots=True)
class RealServers:
    op: OidcProvider
    resource: ProtectedResource

    @property
    def ca_file(self) -> str | None:
        return None if self.op.ca_file is None else str(self.op.ca_file)

    @property
    def server(self) -> Server:
        return Server("real", self.resource.url, ServerOptions(ca_file=self.ca_file))

    def approve(self, login: Login) -> str:
        return approve_oidc(login.authorization_url, ca_file=self.op.ca_file)

    def client(self, service: AuthService, server: Server | None = None) -> httpx.AsyncClient:
        auth = McpAuth(service.session(server or self.server))
        return httpx.AsyncClient(
            auth=auth, verify=ssl.create_default_context(cafile=self.ca_file), trust_env=False
        )


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(OidcOptions(), id="http"),
        pytest.param(OidcOptions(https=True), id="https"),
        pytest.param(OidcOptions(require_pushed_authorization_requests=True), id="pushed requests required"),
        pytest.param(OidcOptions(access_token_format="jwt", access_token_seconds=2), id="short-lived JWTs"),
        pytest.param(
            OidcOptions(absent_paths=("/.well-known/oauth-authorization-server",)), id="OIDC metadata only"
        ),
    ],
)
def servers(request: pytest.FixtureRequest) -> Iterator[RealServers]:
    with run_oidc_provider(request.param) as op, serve_protected_resource(op) as resource:
        yield RealServers(op, resource)


def test_a_login_a_request_a_refresh_and_a_logout(servers: RealServers, tmp_path: Path) -> None:
    async def run_story() -> None:
        now = 0.0
        service = AuthService(tmp_path)
        login = await service.start_login(servers.server, TERMINAL)
        assert login.request.scope == frozenset({"mcp:tools", "offline_access"})
        pushed = servers.op.options.require_pushed_authorization_requests
        assert ("request_uri=" in login.authorization_url) is pushed
        redirect = await asyncio.to_thread(servers.approve, login)
        connection = await service.complete_login(login.id, redirect, TERMINAL)
        assert connection.scope is not None
        assert "mcp:tools" in connection.scope
        assert connection.can_refresh
        async with servers.client(service) as client:
            assert (await client.post(servers.resource.url)).status_code == 200
        with pytest.raises(LoginAlreadyUsed):
            await service.complete_login(login.id, redirect, TERMINAL)

        # This is a new service, hours later: the access token has expired, so the service refreshes once.
        assert connection.expires_at is not None
        now = connection.expires_at + 1
        later_service = AuthService(tmp_path, clock=lambda: now)
        before = later_service.blocking.connection(servers.server)
        assert before is not None
        header = await later_service.session(servers.server).header()
        assert header.startswith("Bearer ")
        after = later_service.blocking.connection(servers.server)
        assert after is not None
        assert after.expires_at is not None
        assert after.expires_at > now

        # The store holds the rotated refresh token. With the old one, the server would end the session.
        now = after.expires_at + 1
        header_after_rotation = (
            await AuthService(tmp_path, clock=lambda: now).session(servers.server).header()
        )
        assert header_after_rotation != header
        async with servers.client(AuthService(tmp_path)) as client:
            assert (await client.post(servers.resource.url)).status_code == 200

        assert await service.logout(servers.server)
        assert service.blocking.connection(servers.server) is None
        with pytest.raises(AuthorizationRequired):
            await AuthService(tmp_path).session(servers.server).header()
        context = ssl.create_default_context(cafile=servers.ca_file)
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            response = await client.post(
                servers.resource.url, headers={"Authorization": header_after_rotation}
            )
            if servers.op.options.access_token_format == "opaque":
                assert response.status_code == 401

    asyncio.run(run_story())


def test_a_denial_fails_the_login_and_keeps_the_credentials(servers: RealServers, tmp_path: Path) -> None:
    async def run_story() -> None:
        service = AuthService(tmp_path)
        first = await service.start_login(servers.server, TERMINAL)
        await service.complete_login(first.id, await asyncio.to_thread(servers.approve, first), TERMINAL)
        files_before = {path.name: path.read_bytes() for path in (tmp_path / "mcp-tokens").glob("*.json")}
        second = await service.start_login(servers.server, TERMINAL)
        redirect = await asyncio.to_thread(deny_oidc, second.authorization_url, ca_file=servers.op.ca_file)
        with pytest.raises(AuthorizationDenied):
            await service.complete_login(second.id, redirect, TERMINAL)
        assert service.blocking.login(second.id).status == "failed"
        assert files_before == {
            path.name: path.read_bytes() for path in (tmp_path / "mcp-tokens").glob("*.json")
        }

    asyncio.run(run_story())


def test_a_second_login_reuses_the_registered_client(servers: RealServers, tmp_path: Path) -> None:
    async def run_story() -> None:
        service = AuthService(tmp_path)
        first = await service.start_login(servers.server, TERMINAL)
        await service.complete_login(first.id, await asyncio.to_thread(servers.approve, first), TERMINAL)
        second = await service.start_login(servers.server, TERMINAL)
        assert second.request.client.client_id == first.request.client.client_id
        await service.complete_login(second.id, await asyncio.to_thread(servers.approve, second), TERMINAL)

    asyncio.run(run_story())


def test_a_certificate_of_an_unknown_authority_is_refused_with_advice(tmp_path: Path) -> None:
    with run_oidc_provider(OidcOptions(https=True)) as op, serve_protected_resource(op) as resource:
        server = replace(RealServers(op, resource).server, options=ServerOptions())
        with pytest.raises(Exception, match="certificate") as raised:
            asyncio.run(AuthService(tmp_path).start_login(server, TERMINAL))
        assert "SSL_CERT_FILE" in getattr(raised.value, "advice", "")
