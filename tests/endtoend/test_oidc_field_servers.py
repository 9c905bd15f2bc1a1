"""Deviations of servers in the field (docs/quirks.md), at a certified authorization server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.errors import (
    AuthorizationDenied,
    AuthorizationRequired,
    ClientIdRequired,
    DiscoveryFailed,
    PasteRefused,
    TokenError,
)
from hermes_mcp_auth_remote.login import Connection, Login
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Flow, Origin, Secret, Server, ServerOptions
from tests.demo.manual_client import ManualClock
from tests.parts.browser_user import approve_oidc
from tests.parts.oidc_provider import FEATURES, OidcOptions, OidcProvider, run_oidc_provider
from tests.parts.protected_resource import ProtectedResource, serve_protected_resource
from tests.requirements import covers

pytestmark = [pytest.mark.node, pytest.mark.xdist_group("oidc-field-servers")]

TERMINAL = Origin("terminal")
SCOPES = frozenset({"mcp:tools"})
MANUAL_REDIRECT_URI = "http://127.0.0.1:52765/callback"
MANUAL_SECRET = "the-secret-of-a-client-made-by-hand"
MANUAL_CLIENT = {
    "client_id": "made-by-hand",
    "client_secret": MANUAL_SECRET,
    "token_endpoint_auth_method": "client_secret_post",
    "redirect_uris": [MANUAL_REDIRECT_URI],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "application_type": "native",
}
WITHOUT_REGISTRATION = OidcOptions(
    features=FEATURES - {"registration"}, clients=(MANUAL_CLIENT,), rotate_refresh_token=False
)


@pytest.fixture(scope="module")
def op() -> Iterator[OidcProvider]:
    with run_oidc_provider() as provider:
        yield provider


@pytest.fixture(scope="module")
def closed_op() -> Iterator[OidcProvider]:
    """A provider that registers no client and does not rotate refresh tokens."""
    with run_oidc_provider(WITHOUT_REGISTRATION) as provider:
        yield provider


@pytest.fixture(scope="module")
def module_resource(op: OidcProvider) -> Iterator[ProtectedResource]:
    with serve_protected_resource(op) as resource:
        yield resource


@pytest.fixture
def resource(module_resource: ProtectedResource) -> ProtectedResource:
    module_resource.required_scope = SCOPES
    module_resource.check_audience = True
    module_resource.metadata_overrides.clear()
    return module_resource


class User:
    """A user of one machine: each call is another process."""

    def __init__(self, home: Path, resource: ProtectedResource, clock: ManualClock) -> None:
        self.home, self.resource, self.clock = home, resource, clock
        self.options = ServerOptions()

    @property
    def server(self) -> Server:
        return Server("notes", self.resource.url, self.options)

    @property
    def service(self) -> AuthService:
        return AuthService(self.home, clock=self.clock)

    @property
    def connection(self) -> Connection:
        connection = self.service.blocking.connection(self.server)
        assert connection is not None
        return connection

    def start_login(self, flow: Flow | None = None) -> Login:
        return asyncio.run(self.service.start_login(self.server, TERMINAL, flow=flow))

    def complete_login(self, login: Login, text: str | None = None) -> Connection:
        answer = approve_oidc(login.authorization_url) if text is None else text
        return asyncio.run(self.service.complete_login(login.id, answer, TERMINAL))

    def log_in(self) -> Connection:
        return self.complete_login(self.start_login())

    def client_id(self) -> str:
        client = self.service.blocking.read_credentials(self.server).client
        assert client is not None
        return client.client_id

    def refresh_token(self) -> str:
        tokens = self.service.blocking.read_credentials(self.server).tokens
        assert tokens is not None
        assert tokens.refresh_token is not None
        return tokens.refresh_token.reveal()

    def call(self) -> int:
        """Call the server; return the status."""

        async def send() -> int:
            auth = McpAuth(self.service.session(self.server))
            async with httpx.AsyncClient(auth=auth, trust_env=False) as client:
                return (await client.post(self.resource.url)).status_code

        return asyncio.run(send())


@pytest.fixture
def user(tmp_path: Path, resource: ProtectedResource) -> User:
    return User(tmp_path, resource, ManualClock())


@covers("step-up", "more-access")
def test_a_step_up_ends_with_a_login_for_the_union_from_another_process(user: User) -> None:
    user.log_in()
    assert user.call() == 200
    user.resource.required_scope = frozenset({"mcp:tools", "mcp:read"})
    with pytest.raises(AuthorizationRequired):
        user.call()
    assert user.connection.needed_scope == frozenset({"mcp:read"})
    login = user.start_login()
    assert login.request.scope == frozenset({"mcp:tools", "mcp:read", "offline_access"})
    user.complete_login(login)
    assert user.connection.needed_scope is None
    assert user.call() == 200


@covers("stale-client")
def test_a_forgotten_client_is_replaced_before_and_after_the_sign_in(user: User, op: OidcProvider) -> None:
    user.log_in()
    first_id = user.client_id()
    op.forget_clients()
    # A refresh says that a login is needed, and that login registers another client at once.
    user.clock.now += 3601
    with pytest.raises(AuthorizationRequired):
        user.call()
    user.log_in()
    second_id = user.client_id()
    assert second_id != first_id
    # The provider forgets the client while the user reads the link: its page shows the error.
    login = user.start_login()
    assert login.request.client.client_id == second_id
    op.forget_clients()
    page = httpx.get(login.authorization_url, trust_env=False)
    assert (page.status_code, "invalid_client" in page.text) == (400, True)
    with pytest.raises(PasteRefused) as refused:
        user.complete_login(login, login.authorization_url)
    assert "begin another one" in refused.value.advice
    asyncio.run(user.service.cancel(login.id))
    user.log_in()
    assert user.client_id() not in {first_id, second_id}
    assert user.call() == 200


@covers("server-words")
def test_openid_names_the_account_and_a_refused_scope_is_the_providers_answer(user: User) -> None:
    user.options = ServerOptions(scope=frozenset({"openid", "mcp:tools"}))
    login = user.start_login()
    assert "nonce" in httpx.URL(login.authorization_url).params
    assert user.complete_login(login).account == "ada"
    user.options = ServerOptions(authorize_params={"prompt": "none"})
    login = user.start_login()
    redirect = approve_oidc(login.authorization_url)
    with pytest.raises(AuthorizationDenied) as denied:
        user.complete_login(login, redirect)
    assert denied.value.error == "login_required"
    assert denied.value.server_message != ""
    assert user.connection.account == "ada"


@covers("client-id-needed")
def test_a_client_made_by_hand_as_the_advice_says_works_with_its_one_redirect_uri(
    user: User, closed_op: OidcProvider
) -> None:
    user.resource.metadata_overrides["authorization_servers"] = [closed_op.issuer]
    user.resource.check_audience = False
    with pytest.raises(ClientIdRequired) as needed:
        user.start_login()
    assert MANUAL_REDIRECT_URI in needed.value.advice
    # The method is not configured: Basic is refused, and post is tried once (quirk 51).
    user.options = ServerOptions(client_id="made-by-hand", client_secret=Secret(MANUAL_SECRET))
    user.log_in()
    refresh_token = user.refresh_token()
    for _ in range(2):
        user.clock.now += 3601
        asyncio.run(user.service.session(user.server).header())
    # Without rotation the old refresh token stays.
    assert user.refresh_token() == refresh_token


@covers("as-several")
def test_of_several_authorization_servers_the_one_that_registers_clients_is_used(
    user: User, op: OidcProvider, closed_op: OidcProvider
) -> None:
    user.resource.metadata_overrides["authorization_servers"] = [closed_op.issuer, op.issuer]
    assert user.log_in().issuer == op.issuer
    assert user.call() == 200


@covers("resource-choice")
def test_a_resource_that_is_no_url_works_with_the_option_that_the_error_names(user: User) -> None:
    identifier = "urn:example:notes"
    user.resource.metadata_overrides["resource"] = identifier
    with pytest.raises(DiscoveryFailed) as refused:
        user.start_login()
    assert "`oauth.resource`" in refused.value.advice
    user.options = ServerOptions(resource=refused.value.server_message)
    user.log_in()
    user.clock.now += 3601
    asyncio.run(user.service.session(user.server).header())
    credentials = user.service.blocking.read_credentials(user.server)
    assert credentials.tokens is not None
    user.resource.check_audience = False
    claims = user.resource.token_claims(credentials.tokens.access_token.reveal())
    assert claims is not None
    assert claims["aud"] == identifier


@covers("resource-choice", "pushed")
@pytest.mark.parametrize("is_push_required", [True, False])
def test_a_refused_resource_names_the_option_that_helps(tmp_path: Path, *, is_push_required: bool) -> None:
    options = OidcOptions(
        resources=("https://another.example/mcp",),
        require_pushed_authorization_requests=is_push_required,
        features=FEATURES if is_push_required else FEATURES - {"pushedAuthorizationRequests"},
    )
    with run_oidc_provider(options) as op, serve_protected_resource(op) as resource:
        user = User(tmp_path, resource, ManualClock())
        with pytest.raises(TokenError if is_push_required else AuthorizationDenied) as refused:
            user.log_in()
        assert getattr(refused.value, "error", "") == "invalid_target"
        assert "oauth.resource" in refused.value.advice
        user.options = ServerOptions(resource=False)
        user.log_in()
        assert user.connection.can_refresh


@covers("device-grant")
def test_a_device_login_switches_to_pasting(user: User) -> None:
    login = user.start_login("device")
    assert login.poll_state is not None
    user.complete_login(asyncio.run(user.service.switch_flow(login.id, "paste")))
    assert user.call() == 200
