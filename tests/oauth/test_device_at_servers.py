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
from tests.browserless import approve_device as approve_at_demo
from tests.browserless import deny_device as deny_at_demo
from tests.oauth.parties import (
    HTML,
    NOW,
    REDIRECT_URI,
    RFC8414,
    server,
)
from tests.parts.authorization_server import Behaviour, serve_demo
from tests.parts.oidc_provider import OidcOptions, OidcProvider, oidc_provider
from tests.parts.person import approve_device as approve_at_oidc
from tests.requirements import covers
from tests.tripwire import guard

pytestmark = pytest.mark.slow

T = TypeVar("T")


def once(request: Request) -> Exchange[Response]:
    return (yield request)


class Desk:
    """Runs a device login as the service does, with the package's HTTP client and a simulated clock."""

    def __init__(self, url: str) -> None:
        self.server = Server("real", url)
        self.now = NOW

    def run(self, exchange: Exchange[T]) -> T:
        return asyncio.run(run_exchange(exchange, self.server, environ={}))

    def begin(self, found: AuthorizationServer, who: Client, scope: str, resource: str) -> PollState:
        wanted = frozenset(scope.split())
        device = self.run(obtain_device_authorization(found, who, scope=wanted, resource=resource))
        return start_polling(found, who, device, self.now, scope=wanted, resource=resource)

    def poll(self, pending: PollState) -> PollState | Tokens | PollFailure:
        self.now = pending.next_action_at
        return advance_poll(pending, self.run(once(poll_request(pending))), self.now)


@pytest.mark.node
@covers("device-poll", "device-grant")
@pytest.mark.parametrize("complete", [True, False], ids=["link", "typed code"])
def test_a_certified_server_registers_approves_and_grants(complete: bool) -> None:  # noqa: FBT001
    resource = "http://127.0.0.1:9/mcp"
    with oidc_provider() as op:
        desk, found = Desk(op.issuer), _discovered(op)
        who = desk.run(register_client(found, REDIRECT_URI, client_name="Hermes"))
        assert can_use_device_flow(who)
        pending = desk.begin(found, who, "mcp:tools offline_access", resource)
        shown = pending.parameters.authorization
        assert pending.next_at == NOW + 5, "the server sends no interval"
        waiting = desk.poll(pending)
        assert isinstance(waiting, PollState)
        assert waiting.next_at == NOW + 10
        if complete:
            assert shown.verification_uri_complete is not None
            approve_at_oidc(shown.verification_uri_complete)
        else:
            approve_at_oidc(shown.verification_uri, shown.user_code)
        tokens = desk.poll(waiting)
        assert isinstance(tokens, Tokens), tokens
        assert tokens.refresh_token is not None
        assert "mcp:tools" in (tokens.scope or ())
        again = desk.poll(waiting)
        assert isinstance(again, PollFailure)
        assert isinstance(again.error, TokenError)


@pytest.mark.node
@covers("device-grant")
def test_a_certified_server_without_devices_registers_us_without_the_grant() -> None:
    features = OidcOptions().features - {"deviceFlow"}
    with oidc_provider(OidcOptions(features=features)) as op:
        found = _discovered(op)
        who = Desk(op.issuer).run(register_client(found, REDIRECT_URI, client_name="Hermes"))
        assert not can_use_device_flow(who)
        assert "POST /reg 400" not in op.log()


@pytest.mark.node
@covers("device-grant")
def test_a_certified_server_tells_an_older_client_that_it_may_not() -> None:
    with oidc_provider() as op:
        desk, found = Desk(op.issuer), _discovered(op)
        plain = server(issuer=op.issuer, registration_endpoint=found.registration_endpoint)
        who = desk.run(register_client(plain, REDIRECT_URI, client_name="Hermes"))
        assert not can_use_device_flow(who)
        with pytest.raises(DeviceAuthorizationError) as caught:
            desk.begin(found, who, "mcp:tools", "http://127.0.0.1:9/mcp")
        # Not the unauthorized_client of RFC 6749 section 5.2, so callers check `can_use_device_flow` first.
        assert caught.value.error == "invalid_request"


def _discovered(op: OidcProvider) -> AuthorizationServer:
    found = Desk(op.issuer).run(discover_authorization_server(op.issuer))
    assert found is not None
    return found


@covers("device-poll", "device-endpoint", "no-secret")
@pytest.mark.parametrize(
    ("decide", "granted"), [(approve_at_demo, True), (deny_at_demo, False)], ids=["approved", "denied"]
)
def test_the_demo_from_an_openid_document_through_slow_down_and_outage_to_the_decision(
    decide: Callable[[str], str],
    granted: bool,  # noqa: FBT001
) -> None:
    behaviour = Behaviour(
        with_device=True, device_only_in_openid=True, metadata_locations=("rfc8414", "openid_appended")
    )
    now = NOW
    with serve_demo(behaviour, clock=lambda: now) as demo:
        guard(demo.authorization_server.minted_secrets)
        desk = Desk(demo.mcp_url)
        first = desk.run(discover_metadata(demo.mcp_url, Challenge())).authorization_server
        assert first.device_authorization_endpoint is None
        found = desk.run(find_device_endpoint(demo.issuer, first))
        who = desk.run(register_client(found, REDIRECT_URI, client_name="Hermes"))
        pending: PollState | Tokens | PollFailure = desk.begin(found, who, "mcp:tools", demo.mcp_url)
        assert isinstance(pending, PollState)
        waits: list[tuple[float, float]] = []
        for hurry in (0.0, 2.0, 0.0, 0.0):
            before, now = now, pending.next_at - hurry
            if len(waits) == 2:
                demo.authorization_server.fail_next("device_poll", status=502, body=HTML)
            pending = advance_poll(pending, desk.run(once(poll_request(pending))), now)
            assert isinstance(pending, PollState), pending
            waits.append((now - before, pending.next_at - now))
        # Pending; too early, so 5 s more; a gateway's failure, so twice as long; then the interval again.
        assert [wait for _, wait in waits] == [5, 10, 20, 10]
        assert pending.parameters.authorization.verification_uri_complete is not None
        decide(pending.parameters.authorization.verification_uri_complete)
        now = pending.next_at
        end = advance_poll(pending, desk.run(once(poll_request(pending))), now)
        if granted:
            assert isinstance(end, Tokens), end
            assert format_scope(end.scope or ()) == "mcp:tools"
        else:
            assert isinstance(end, PollFailure)
            assert isinstance(end.error, AuthorizationDenied)
        assert demo.authorization_server.count_requests("authorization_server_metadata") == 2
        assert f"{RFC8414}" in [request.path for request in demo.authorization_server.requests]
