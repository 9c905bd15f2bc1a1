"""Count the requests and logins that a call needs until its first 200, as in docs/performance.md."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from hermes_mcp_auth_remote.auth.httpx import McpAuth
from hermes_mcp_auth_remote.errors import AuthorizationRequired
from hermes_mcp_auth_remote.oauth.challenge import read_challenge
from hermes_mcp_auth_remote.service import AuthService
from hermes_mcp_auth_remote.values import Server, ServerOptions
from tests.consent_form import approve
from tests.demo.manual_client import ManualClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.helpers import TERMINAL, log_in

pytestmark = pytest.mark.slow

CLIENT_ID_URL = "https://hermes.example/client.json"
# Requests of the user's browser are not counted.
USER_STEPS = {"authorization", "consent"}


def send_request(service: AuthService, server: Server) -> None:
    with httpx.Client(auth=McpAuth(service.session(server)), timeout=20) as client:
        assert client.get(server.url).status_code == 200


def counted_steps(demo: Demo) -> list[str]:
    return [request.step for request in demo.authorization_server.requests if request.step not in USER_STEPS]


def connect_from_scratch(service: AuthService, server: Server) -> None:
    with pytest.raises(AuthorizationRequired):
        send_request(service, server)
    asyncio.run(log_in(service, server))
    send_request(service, server)


@covers("request-counts")
def test_a_first_connection_needs_six_requests_and_one_login(
    service: AuthService, server: Server, demo: Demo
) -> None:
    connect_from_scratch(service, server)
    assert counted_steps(demo) == [
        "ping",
        "protected_resource_metadata",
        "authorization_server_metadata",
        "registration",
        "token",
        "ping",
    ]
    assert demo.authorization_server.count_requests("consent") == 1


@covers("request-counts")
def test_a_first_connection_with_a_client_id_metadata_document_needs_five(
    service: AuthService, server: Server, demo: Demo
) -> None:
    uri = "https://hermes.example/callback"
    demo.authorization_server.change_behaviour(cimd_supported=True)
    demo.authorization_server.client_documents[CLIENT_ID_URL] = {
        "client_id": CLIENT_ID_URL,
        "client_name": "Hermes",
        "redirect_uris": [uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
    }
    connect_from_scratch(
        service, replace(server, options=ServerOptions(client_metadata_url=CLIENT_ID_URL, redirect_uri=uri))
    )
    assert len(counted_steps(demo)) == 5
    assert "registration" not in counted_steps(demo)


@covers("request-counts")
def test_a_first_connection_with_a_configured_client_needs_five(
    service: AuthService, server: Server, demo: Demo
) -> None:
    uri = "http://127.0.0.1:8765/callback"
    client = demo.authorization_server.add_client(uri)
    connect_from_scratch(
        service, replace(server, options=ServerOptions(client_id=client.client_id, redirect_port=8765))
    )
    assert len(counted_steps(demo)) == 5
    assert "registration" not in counted_steps(demo)


@covers("request-counts")
def test_a_valid_token_needs_one_request_also_after_a_restart(
    logged_in_service: AuthService, server: Server, demo: Demo, tmp_path: Path, clock: ManualClock
) -> None:
    for service in (logged_in_service, AuthService(tmp_path, clock=clock)):
        demo.authorization_server.requests.clear()
        send_request(service, server)
        assert counted_steps(demo) == ["ping"]


@covers("request-counts")
@pytest.mark.parametrize("restarted", [False, True], ids=["same process", "after a restart"])
def test_an_expired_token_needs_two_requests_and_no_login(
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    tmp_path: Path,
    clock: ManualClock,
    *,
    restarted: bool,
) -> None:
    clock.now += 3600
    send_request(AuthService(tmp_path, clock=clock) if restarted else logged_in_service, server)
    assert counted_steps(demo) == ["refresh", "ping"]


@covers("request-counts")
@pytest.mark.parametrize("restarted", [False, True], ids=["same process", "after a restart"])
def test_a_revoked_access_token_needs_three_requests_and_no_login(
    logged_in_service: AuthService,
    server: Server,
    demo: Demo,
    tmp_path: Path,
    clock: ManualClock,
    *,
    restarted: bool,
) -> None:
    demo.authorization_server.ledger.revoke_access_tokens()
    send_request(AuthService(tmp_path, clock=clock) if restarted else logged_in_service, server)
    assert counted_steps(demo) == ["ping", "refresh", "ping"]


def test_two_revoked_tokens_need_one_login(
    logged_in_service: AuthService, server: Server, demo: Demo
) -> None:
    demo.authorization_server.ledger.revoke_everything()
    with pytest.raises(AuthorizationRequired):
        send_request(logged_in_service, server)
    # The caller passes the challenge of the 401, so that the discovery does not send the request again.
    prm = demo.ping_url.replace("/api", "/.well-known/oauth-protected-resource/api")
    challenge = read_challenge([f'Bearer resource_metadata="{prm}"'])

    async def main() -> None:
        login = await logged_in_service.start_login(server, TERMINAL, challenge=challenge)
        answer = await asyncio.to_thread(approve, login.authorization_url)
        await logged_in_service.complete_login(login.id, answer, TERMINAL)

    asyncio.run(main())
    send_request(logged_in_service, server)
    assert counted_steps(demo) == [
        "ping",
        "refresh",
        "protected_resource_metadata",
        "authorization_server_metadata",
        "token",
        "ping",
    ]
    # There is one request by the user's browser, and one check that the server still knows the client.
    assert (
        demo.authorization_server.count_requests("authorization"),
        demo.authorization_server.count_requests("consent"),
    ) == (2, 1)
