"""The number of requests until the first 200, and of logins, in each case of docs/performance.md."""

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
from tests.browserless import approve
from tests.demo.player import MovedClock
from tests.parts.authorization_server import Demo
from tests.requirements import covers
from tests.service.given import TERMINAL, log_in

pytestmark = pytest.mark.slow

DOCUMENT = "https://hermes.example/client.json"
# Requests of the user's browser are not counted.
PERSON = {"authorization", "consent"}


def call(service: AuthService, server: Server) -> None:
    with httpx.Client(auth=McpAuth(service.session(server)), timeout=20) as client:
        assert client.get(server.url).status_code == 200


def steps(demo: Demo) -> list[str]:
    return [request.step for request in demo.authorization_server.requests if request.step not in PERSON]


def cold(service: AuthService, server: Server) -> None:
    with pytest.raises(AuthorizationRequired):
        call(service, server)
    asyncio.run(log_in(service, server))
    call(service, server)


@covers("request-counts")
def test_cold_six_requests_and_one_person(service: AuthService, server: Server, demo: Demo) -> None:
    cold(service, server)
    assert steps(demo) == [
        "ping",
        "protected_resource_metadata",
        "authorization_server_metadata",
        "registration",
        "token",
        "ping",
    ]
    assert demo.authorization_server.count_requests("consent") == 1


@covers("request-counts")
def test_cold_five_with_a_client_id_metadata_document(
    service: AuthService, server: Server, demo: Demo
) -> None:
    uri = "https://hermes.example/callback"
    demo.authorization_server.change_behaviour(cimd_supported=True)
    demo.authorization_server.client_documents[DOCUMENT] = {
        "client_id": DOCUMENT,
        "client_name": "Hermes",
        "redirect_uris": [uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
    }
    cold(service, replace(server, options=ServerOptions(client_metadata_url=DOCUMENT, redirect_uri=uri)))
    assert len(steps(demo)) == 5
    assert "registration" not in steps(demo)


@covers("request-counts")
def test_cold_five_with_a_client_that_was_registered_by_hand(
    service: AuthService, server: Server, demo: Demo
) -> None:
    uri = "http://127.0.0.1:8765/callback"
    client = demo.authorization_server.add_client(uri)
    cold(service, replace(server, options=ServerOptions(client_id=client.client_id, redirect_port=8765)))
    assert len(steps(demo)) == 5
    assert "registration" not in steps(demo)


@covers("request-counts")
def test_a_valid_token_one_request_in_the_same_process_and_after_a_restart(
    session_kept: AuthService, server: Server, demo: Demo, tmp_path: Path, clock: MovedClock
) -> None:
    for service in (session_kept, AuthService(tmp_path, clock=clock)):
        demo.authorization_server.requests.clear()
        call(service, server)
        assert steps(demo) == ["ping"]


@covers("request-counts")
@pytest.mark.parametrize("restarted", [False, True], ids=["same process", "after a restart"])
def test_an_expired_token_two_requests_and_nobody(
    session_kept: AuthService,
    server: Server,
    demo: Demo,
    tmp_path: Path,
    clock: MovedClock,
    *,
    restarted: bool,
) -> None:
    clock.now += 3600
    call(AuthService(tmp_path, clock=clock) if restarted else session_kept, server)
    assert steps(demo) == ["refresh", "ping"]


@covers("request-counts")
@pytest.mark.parametrize("restarted", [False, True], ids=["same process", "after a restart"])
def test_a_revoked_token_three_requests_and_nobody(
    session_kept: AuthService,
    server: Server,
    demo: Demo,
    tmp_path: Path,
    clock: MovedClock,
    *,
    restarted: bool,
) -> None:
    demo.authorization_server.ledger.revoke_access_tokens()
    call(AuthService(tmp_path, clock=clock) if restarted else session_kept, server)
    assert steps(demo) == ["ping", "refresh", "ping"]


def test_both_revoked_one_person_once(session_kept: AuthService, server: Server, demo: Demo) -> None:
    demo.authorization_server.ledger.revoke_everything()
    with pytest.raises(AuthorizationRequired):
        call(session_kept, server)
    # The caller passes the challenge of the 401, so that the discovery does not send the request again.
    prm = demo.ping_url.replace("/api", "/.well-known/oauth-protected-resource/api")
    challenge = read_challenge([f'Bearer resource_metadata="{prm}"'])

    async def main() -> None:
        login = await session_kept.start_login(server, TERMINAL, challenge=challenge)
        answer = await asyncio.to_thread(approve, login.authorization_url)
        await session_kept.complete_login(login.id, answer, TERMINAL)

    asyncio.run(main())
    call(session_kept, server)
    assert steps(demo) == [
        "ping",
        "refresh",
        "protected_resource_metadata",
        "authorization_server_metadata",
        "token",
        "ping",
    ]
    # One request by the user's browser, and one check that the server still knows the client.
    assert (
        demo.authorization_server.count_requests("authorization"),
        demo.authorization_server.count_requests("consent"),
    ) == (2, 1)
