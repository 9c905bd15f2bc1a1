"""The options, faults and counters of the demo work."""

from __future__ import annotations

import threading
from urllib.parse import parse_qsl

import httpx
import pytest

from hermes_mcp_auth_remote.oauth.token import account_from_id_token
from tests.consent_form import approve
from tests.demo.manual_client import ManualClient, error_of, parameters_of
from tests.parts.authorization_server import Behaviour, Demo, serve_demo


def test_every_request_is_recorded_with_its_step(demo: Demo) -> None:
    client = ManualClient(demo)
    tokens = client.obtain_tokens()
    client.refresh(tokens["refresh_token"])
    client.call_mcp(tokens["access_token"])
    recorded = [
        (request.step, request.method, request.status) for request in demo.authorization_server.requests
    ]
    assert recorded == [
        ("registration", "POST", 201),
        ("authorization", "GET", 200),
        ("consent", "POST", 303),
        ("token", "POST", 200),
        ("refresh", "POST", 200),
        ("mcp", "POST", 200),
    ]
    assert demo.authorization_server.requests[3].form["grant_type"] == "authorization_code"
    assert demo.authorization_server.requests[1].query["client_id"] == client.registration["client_id"]
    assert demo.authorization_server.count_requests("refresh") == 1
    assert not any(
        secret in repr(demo.authorization_server.requests)
        for secret in demo.authorization_server.minted_secrets
    )


def test_overrides_change_and_remove_fields_of_every_document(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(
        metadata_overrides={"token_endpoint": None, "extra": 1},
        metadata_issuer="https://elsewhere.example/",
        pkce_advertised=False,
        with_par=True,
        resource_overrides={"authorization_servers": []},
        registration_overrides={"client_secret": "given-anyway"},
        token_overrides={"expires_in": "3600", "token_type": "bearer", "refresh_token": None},
    )
    metadata = httpx.get(f"{demo.issuer}/.well-known/oauth-authorization-server").json()
    assert (metadata["issuer"], metadata["extra"]) == ("https://elsewhere.example/", 1)
    assert not {"token_endpoint", "code_challenge_methods_supported"} & set(metadata)
    assert "pushed_authorization_request_endpoint" in metadata
    resource = httpx.get(f"{demo.resources.origin}/.well-known/oauth-protected-resource/mcp").json()
    assert resource["authorization_servers"] == []
    client = ManualClient(demo)
    assert client.registration["client_secret"] == "given-anyway"
    token_response = client.exchange(client.obtain_code()).json()
    assert (token_response["expires_in"], token_response["token_type"]) == ("3600", "bearer")
    assert "refresh_token" not in token_response


def test_auto_approve_redirects_at_once(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(auto_approve=True)
    client = ManualClient(demo)
    response = client.authorize()
    assert response.status_code == 303
    assert "code" in parameters_of(response.headers["location"])
    assert parameters_of(approve(client.authorization_url()))["state"]


def test_iss_can_be_absent_or_wrong(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(auto_approve=True, iss_supported=False)
    client = ManualClient(demo)
    assert "iss" not in parameters_of(client.authorize().headers["location"])
    demo.authorization_server.change_behaviour(iss_value="https://attacker.example")
    assert parameters_of(client.authorize().headers["location"])["iss"] == "https://attacker.example"


def test_less_scope_than_requested_can_be_granted(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(grant_scopes=frozenset({"mcp:tools"}))
    assert ManualClient(demo).obtain_tokens(scope="mcp:tools mcp:write")["scope"] == "mcp:tools"


def test_a_token_response_can_be_a_form(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(form_encoded_tokens=True)
    client = ManualClient(demo)
    response = client.exchange(client.obtain_code())
    assert response.headers["content-type"].startswith("application/x-www-form-urlencoded")
    assert dict(parse_qsl(response.text))["access_token"] in demo.authorization_server.minted_secrets


def test_the_id_token_names_the_account(demo: Demo) -> None:
    assert account_from_id_token(ManualClient(demo).obtain_tokens()["id_token"]) == "ada@example.com"
    demo.authorization_server.change_behaviour(with_id_token=False)
    assert "id_token" not in ManualClient(demo).obtain_tokens()


def test_endpoints_can_be_absent(demo: Demo) -> None:
    client = ManualClient(demo)
    demo.authorization_server.change_behaviour(with_registration=False, with_revocation=False)
    metadata = demo.authorization_server.metadata()
    assert not {"registration_endpoint", "revocation_endpoint"} & set(metadata)
    assert client.register().status_code == 404
    assert client.post_form("/revoke", {"token": "x"}).status_code == 404
    assert client.post_form("/par", {}).status_code == 404


def test_the_resource_parameter_can_be_refused(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(accepts_resource=False)
    client = ManualClient(demo)
    parameters = parameters_of(client.authorize().headers["location"])
    assert parameters["error"] == "invalid_target"
    tokens = client.exchange(client.obtain_code(resource=None), resource=None).json()
    assert client.call_mcp(tokens["access_token"]).status_code == 200


def test_a_refresh_can_end_older_access_tokens(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(refresh_revokes_access=True)
    client = ManualClient(demo)
    tokens = client.obtain_tokens()
    newer = client.refresh(tokens["refresh_token"]).json()
    assert client.call_mcp(tokens["access_token"]).status_code == 401
    assert client.call_mcp(newer["access_token"]).status_code == 200


def test_a_test_can_revoke_access_tokens_or_whole_sessions(demo: Demo) -> None:
    client = ManualClient(demo)
    tokens = client.obtain_tokens()
    demo.authorization_server.ledger.revoke_access_tokens()
    assert client.call_mcp(tokens["access_token"]).status_code == 401
    newer = client.refresh(tokens["refresh_token"]).json()
    demo.authorization_server.ledger.revoke_everything()
    assert client.call_mcp(newer["access_token"]).status_code == 401
    assert error_of(client.refresh(newer["refresh_token"])) == (400, "invalid_grant")


def test_a_fault_replaces_the_requested_number_of_responses(demo: Demo) -> None:
    client = ManualClient(demo)
    tokens = client.obtain_tokens()
    demo.authorization_server.fail_next("refresh", status=503, body="<h1>Sorry</h1>", times=2)
    for _ in range(2):
        assert client.refresh(tokens["refresh_token"]).status_code == 503
    assert client.refresh(tokens["refresh_token"]).status_code == 200
    demo.authorization_server.fail_next("refresh", status=500, times=None)
    assert {client.refresh("x").status_code for _ in range(3)} == {500}
    demo.authorization_server.clear_faults()
    assert client.refresh("x").status_code == 400


def test_a_fault_can_close_the_connection_without_a_response(demo: Demo) -> None:
    client = ManualClient(demo)
    code = client.obtain_code()
    demo.authorization_server.fail_next("token", hang_up=True)
    with pytest.raises(httpx.TransportError):
        client.exchange(code)
    assert demo.authorization_server.requests[-1].status is None
    assert client.exchange(code).status_code == 200


def test_a_fault_can_lose_the_response_after_processing(demo: Demo) -> None:
    client = ManualClient(demo)
    tokens = client.obtain_tokens()
    demo.authorization_server.fail_next("refresh", hang_up=True, after_processing=True)
    with pytest.raises(httpx.TransportError):
        client.refresh(tokens["refresh_token"])
    assert error_of(client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


def test_a_gate_holds_requests_until_it_is_opened(demo: Demo) -> None:
    client = ManualClient(demo)
    tokens = client.obtain_tokens()
    gate = demo.authorization_server.hold("refresh")
    statuses: list[int] = []
    thread = threading.Thread(
        target=lambda: statuses.append(client.refresh(tokens["refresh_token"]).status_code)
    )
    thread.start()
    assert gate.arrived.wait(20)
    assert statuses == []
    assert client.call_mcp(tokens["access_token"]).status_code == 200
    gate.open()
    thread.join(20)
    assert statuses == [200]


def test_a_server_with_a_closed_gate_still_shuts_down() -> None:
    with serve_demo() as demo:
        client = ManualClient(demo)
        gate = demo.authorization_server.hold("token")
        errors: list[Exception] = []

        def exchange_code() -> None:
            try:
                client.exchange("made-up")
            except httpx.TransportError as error:
                errors.append(error)

        thread = threading.Thread(target=exchange_code)
        thread.start()
        assert gate.arrived.wait(20)
    thread.join(20)
    assert not thread.is_alive()


def test_one_origin_can_serve_both_without_resource_metadata() -> None:
    with serve_demo(Behaviour(resource_metadata_locations=()), separate_origins=False) as demo:
        assert demo.mcp_url == f"{demo.issuer}/mcp"
        for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
            assert httpx.get(demo.issuer + path).status_code == 404
        assert httpx.get(f"{demo.issuer}/.well-known/oauth-authorization-server").status_code == 200
        client = ManualClient(demo)
        assert client.call_mcp(client.obtain_tokens()["access_token"]).status_code == 200
