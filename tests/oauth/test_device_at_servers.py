"""Registration, device authorization, approval and polls at a certified server and at the demo server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

import pytest

from hermes_mcp_auth_remote.errors import (
    AuthorizationDenied,
    DeviceAuthorizationError,
    TokenError,
)
from hermes_mcp_auth_remote.http.client import run_exchange
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client, register_client
from hermes_mcp_auth_remote.oauth.device import (
    can_use_device_flow,
    find_device_endpoint,
    obtain_device_authorization,
)
from hermes_mcp_auth_remote.oauth.device_polling import (
    PollFailure,
    PollState,
    advance_poll,
    poll_request,
    start_polling,
)
from hermes_mcp_auth_remote.oauth.metadata import (
    AuthorizationServer,
    discover_authorization_server,
    discover_metadata,
)
from hermes_mcp_auth_remote.oauth.token import Tokens
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request, Response, format_scope
from hermes_mcp_auth_remote.values import Server
from tests.consent_form import approve_device as approve_at_demo
from tests.consent_form import deny_device as deny_at_demo
from tests.leak_check import watch_secrets
from tests.oauth.builders import (
    HTML,
    NOW,
    REDIRECT_URI,
    RFC8414,
    server,
)
from tests.parts.authorization_server import Behaviour, serve_demo
from tests.parts.browser_user import approve_device as approve_at_oidc
from tests.parts.oidc_provider import OidcOptions, OidcProvider, run_oidc_provider
from tests.requirements import covers

pytestmark = pytest.mark.slow

T = TypeVar("T")


def send_request(request: Request) -> Exchange[Response]:
    return (yield request)


class DeviceLoginRunner:
    """Runs a device login as the service does, with the package's HTTP client and a simulated clock."""

    def __init__(self, url: str) -> None:
        self.server = Server("real", url)
        self.now = NOW

    def run_exchange(self, exchange: Exchange[T]) -> T:
        return asyncio.run(run_exchange(exchange, self.server, environ={}))

    def start_device_login(
        self, authorization_server: AuthorizationServer, oauth_client: Client, scope: str, resource: str
    ) -> PollState:
        scopes = frozenset(scope.split())
        device = self.run_exchange(
            obtain_device_authorization(authorization_server, oauth_client, scope=scopes, resource=resource)
        )
        return start_polling(
            authorization_server, oauth_client, device, self.now, scope=scopes, resource=resource
        )

    def poll(self, poll_state: PollState) -> PollState | Tokens | PollFailure:
        self.now = poll_state.next_action_at
        return advance_poll(poll_state, self.run_exchange(send_request(poll_request(poll_state))), self.now)


@pytest.mark.node
@covers("device-poll", "device-grant")
@pytest.mark.parametrize("complete", [True, False], ids=["link", "typed code"])
def test_a_device_login_at_a_certified_server_obtains_tokens(complete: bool) -> None:  # noqa: FBT001
    resource = "http://127.0.0.1:9/mcp"
    with run_oidc_provider() as op:
        runner, authorization_server = DeviceLoginRunner(op.issuer), discover_provider(op)
        oauth_client = runner.run_exchange(
            register_client(authorization_server, REDIRECT_URI, client_name="Hermes")
        )
        assert can_use_device_flow(oauth_client)
        poll_state = runner.start_device_login(
            authorization_server, oauth_client, "mcp:tools offline_access", resource
        )
        device_authorization = poll_state.parameters.authorization
        assert poll_state.next_at == NOW + 5, "the server sends no interval"
        next_state = runner.poll(poll_state)
        assert isinstance(next_state, PollState)
        assert next_state.next_at == NOW + 10
        if complete:
            assert device_authorization.verification_uri_complete is not None
            approve_at_oidc(device_authorization.verification_uri_complete)
        else:
            approve_at_oidc(device_authorization.verification_uri, device_authorization.user_code)
        tokens = runner.poll(next_state)
        assert isinstance(tokens, Tokens), tokens
        assert tokens.refresh_token is not None
        assert "mcp:tools" in (tokens.scope or ())
        replayed = runner.poll(next_state)
        assert isinstance(replayed, PollFailure)
        assert isinstance(replayed.error, TokenError)


@pytest.mark.node
@covers("device-grant")
def test_a_certified_server_without_the_device_flow_registers_no_device_grant() -> None:
    features = OidcOptions().features - {"deviceFlow"}
    with run_oidc_provider(OidcOptions(features=features)) as op:
        authorization_server = discover_provider(op)
        oauth_client = DeviceLoginRunner(op.issuer).run_exchange(
            register_client(authorization_server, REDIRECT_URI, client_name="Hermes")
        )
        assert not can_use_device_flow(oauth_client)
        assert "POST /reg 400" not in op.log()


@pytest.mark.node
@covers("device-grant")
def test_a_certified_server_refuses_a_client_without_the_device_grant() -> None:
    with run_oidc_provider() as op:
        runner, authorization_server = DeviceLoginRunner(op.issuer), discover_provider(op)
        plain = server(issuer=op.issuer, registration_endpoint=authorization_server.registration_endpoint)
        oauth_client = runner.run_exchange(register_client(plain, REDIRECT_URI, client_name="Hermes"))
        assert not can_use_device_flow(oauth_client)
        with pytest.raises(DeviceAuthorizationError) as caught:
            runner.start_device_login(
                authorization_server, oauth_client, "mcp:tools", "http://127.0.0.1:9/mcp"
            )
        # RFC 6749 section 5.2 asks for unauthorized_client, but this server sends invalid_request. So
        # callers check `can_use_device_flow` first.
        assert caught.value.error == "invalid_request"


def discover_provider(op: OidcProvider) -> AuthorizationServer:
    authorization_server = DeviceLoginRunner(op.issuer).run_exchange(discover_authorization_server(op.issuer))
    assert authorization_server is not None
    return authorization_server


@covers("device-poll", "device-endpoint", "no-secret")
@pytest.mark.parametrize(
    ("decide", "granted"), [(approve_at_demo, True), (deny_at_demo, False)], ids=["approved", "denied"]
)
def test_a_device_login_at_the_demo_survives_slow_down_and_an_outage(
    decide: Callable[[str], str],
    granted: bool,  # noqa: FBT001
) -> None:
    behaviour = Behaviour(
        with_device=True, device_only_in_openid=True, metadata_locations=("rfc8414", "openid_appended")
    )
    now = NOW
    with serve_demo(behaviour, clock=lambda: now) as demo:
        watch_secrets(demo.authorization_server.minted_secrets)
        runner = DeviceLoginRunner(demo.mcp_url)
        first_server = runner.run_exchange(discover_metadata(demo.mcp_url, Challenge())).authorization_server
        assert first_server.device_authorization_endpoint is None
        authorization_server = runner.run_exchange(find_device_endpoint(demo.issuer, first_server))
        oauth_client = runner.run_exchange(
            register_client(authorization_server, REDIRECT_URI, client_name="Hermes")
        )
        poll_state: PollState | Tokens | PollFailure = runner.start_device_login(
            authorization_server, oauth_client, "mcp:tools", demo.mcp_url
        )
        assert isinstance(poll_state, PollState)
        waits: list[tuple[float, float]] = []
        for hurry in (0.0, 2.0, 0.0, 0.0):
            before, now = now, poll_state.next_at - hurry
            if len(waits) == 2:
                demo.authorization_server.fail_next("device_poll", status=502, body=HTML)
            poll_state = advance_poll(
                poll_state, runner.run_exchange(send_request(poll_request(poll_state))), now
            )
            assert isinstance(poll_state, PollState), poll_state
            waits.append((now - before, poll_state.next_at - now))
        # The polls get: pending (5 s); too early (5 s more); a gateway's failure (twice as long); then the
        # interval applies again.
        assert [wait for _, wait in waits] == [5, 10, 20, 10]
        assert poll_state.parameters.authorization.verification_uri_complete is not None
        decide(poll_state.parameters.authorization.verification_uri_complete)
        now = poll_state.next_at
        end = advance_poll(poll_state, runner.run_exchange(send_request(poll_request(poll_state))), now)
        if granted:
            assert isinstance(end, Tokens), end
            assert format_scope(end.scope or ()) == "mcp:tools"
        else:
            assert isinstance(end, PollFailure)
            assert isinstance(end.error, AuthorizationDenied)
        assert demo.authorization_server.count_requests("authorization_server_metadata") == 2
        assert f"{RFC8414}" in [request.path for request in demo.authorization_server.requests]
