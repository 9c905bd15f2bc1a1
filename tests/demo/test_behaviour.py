"""The options, faults and counters of the demo work."""

from __future__ import annotations

import threading
from urllib.parse import parse_qsl

import httpx
import pytest

from hermes_mcp_auth_remote.oauth.token import account_from_id_token
from tests.browserless import approve
from tests.demo.player import Player, parameters_of, refusal
from tests.parts.authorization_server import Behaviour, Demo, serve_demo


def test_every_request_is_recorded_with_its_step(demo: Demo) -> None:
    player = Player(demo)
    tokens = player.tokens()
    player.refresh(tokens["refresh_token"])
    player.call(tokens["access_token"])
    seen = [(request.step, request.method, request.status) for request in demo.authorization_server.requests]
    assert seen == [
        ("registration", "POST", 201),
        ("authorization", "GET", 200),
        ("consent", "POST", 303),
        ("token", "POST", 200),
        ("refresh", "POST", 200),
        ("mcp", "POST", 200),
    ]
    assert demo.authorization_server.requests[3].form["grant_type"] == "authorization_code"
    assert demo.authorization_server.requests[1].query["client_id"] == player.client["client_id"]
    assert demo.authorization_server.count_requests("refresh") == 1
    assert not any(
        secret in repr(demo.authorization_server.requests)
        for secret in demo.authorization_server.minted_secrets
    )


def test_overrides_change_and_remove_members_of_every_document(demo: Demo) -> None:
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
    player = Player(demo)
    assert player.client["client_secret"] == "given-anyway"
    answer = player.exchange(player.code()).json()
    assert (answer["expires_in"], answer["token_type"]) == ("3600", "bearer")
    assert "refresh_token" not in answer


def test_auto_approve_redirects_at_once(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(auto_approve=True)
    player = Player(demo)
    answer = player.authorize()
    assert answer.status_code == 303
    assert "code" in parameters_of(answer.headers["location"])
    assert parameters_of(approve(player.url()))["state"]


def test_iss_can_be_left_out_or_be_anothers(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(auto_approve=True, iss_supported=False)
    player = Player(demo)
    assert "iss" not in parameters_of(player.authorize().headers["location"])
    demo.authorization_server.change_behaviour(iss_value="https://attacker.example")
    assert parameters_of(player.authorize().headers["location"])["iss"] == "https://attacker.example"


def test_less_scope_can_be_granted_than_was_asked_for(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(grant_scopes=frozenset({"mcp:tools"}))
    assert Player(demo).tokens(scope="mcp:tools mcp:write")["scope"] == "mcp:tools"


def test_a_token_answer_can_be_a_form(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(form_encoded_tokens=True)
    player = Player(demo)
    answer = player.exchange(player.code())
    assert answer.headers["content-type"].startswith("application/x-www-form-urlencoded")
    assert dict(parse_qsl(answer.text))["access_token"] in demo.authorization_server.minted_secrets


def test_the_id_token_says_who(demo: Demo) -> None:
    assert account_from_id_token(Player(demo).tokens()["id_token"]) == "ada@example.com"
    demo.authorization_server.change_behaviour(with_id_token=False)
    assert "id_token" not in Player(demo).tokens()


def test_endpoints_can_be_absent(demo: Demo) -> None:
    player = Player(demo)
    demo.authorization_server.change_behaviour(with_registration=False, with_revocation=False)
    metadata = demo.authorization_server.metadata()
    assert not {"registration_endpoint", "revocation_endpoint"} & set(metadata)
    assert player.register().status_code == 404
    assert player.ask("/revoke", {"token": "x"}).status_code == 404
    assert player.ask("/par", {}).status_code == 404


def test_resource_can_be_refused_altogether(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(accepts_resource=False)
    player = Player(demo)
    refused = parameters_of(player.authorize().headers["location"])
    assert refused["error"] == "invalid_target"
    tokens = player.exchange(player.code(resource=None), resource=None).json()
    assert player.call(tokens["access_token"]).status_code == 200


def test_a_refresh_can_end_older_access_tokens(demo: Demo) -> None:
    demo.authorization_server.change_behaviour(refresh_revokes_access=True)
    player = Player(demo)
    tokens = player.tokens()
    newer = player.refresh(tokens["refresh_token"]).json()
    assert player.call(tokens["access_token"]).status_code == 401
    assert player.call(newer["access_token"]).status_code == 200


def test_access_tokens_or_whole_sessions_can_be_ended_from_outside(demo: Demo) -> None:
    player = Player(demo)
    tokens = player.tokens()
    demo.authorization_server.ledger.revoke_access_tokens()
    assert player.call(tokens["access_token"]).status_code == 401
    newer = player.refresh(tokens["refresh_token"]).json()
    demo.authorization_server.ledger.revoke_everything()
    assert player.call(newer["access_token"]).status_code == 401
    assert refusal(player.refresh(newer["refresh_token"])) == (400, "invalid_grant")


def test_a_fault_answers_instead_as_often_as_it_was_asked_to(demo: Demo) -> None:
    player = Player(demo)
    tokens = player.tokens()
    demo.authorization_server.fail_next("refresh", status=503, body="<h1>Sorry</h1>", times=2)
    for _ in range(2):
        assert player.refresh(tokens["refresh_token"]).status_code == 503
    assert player.refresh(tokens["refresh_token"]).status_code == 200
    demo.authorization_server.fail_next("refresh", status=500, times=None)
    assert {player.refresh("x").status_code for _ in range(3)} == {500}
    demo.authorization_server.clear_faults()
    assert player.refresh("x").status_code == 400


def test_a_fault_can_hang_up_without_an_answer(demo: Demo) -> None:
    player = Player(demo)
    code = player.code()
    demo.authorization_server.fail_next("token", hang_up=True)
    with pytest.raises(httpx.TransportError):
        player.exchange(code)
    assert demo.authorization_server.requests[-1].status is None
    assert player.exchange(code).status_code == 200


def test_a_fault_can_lose_the_answer_after_the_work_was_done(demo: Demo) -> None:
    player = Player(demo)
    tokens = player.tokens()
    demo.authorization_server.fail_next("refresh", hang_up=True, after_processing=True)
    with pytest.raises(httpx.TransportError):
        player.refresh(tokens["refresh_token"])
    assert refusal(player.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


def test_a_gate_holds_requests_until_it_is_opened(demo: Demo) -> None:
    player = Player(demo)
    tokens = player.tokens()
    gate = demo.authorization_server.hold("refresh")
    answers: list[int] = []
    thread = threading.Thread(
        target=lambda: answers.append(player.refresh(tokens["refresh_token"]).status_code)
    )
    thread.start()
    assert gate.arrived.wait(20)
    assert answers == []
    assert player.call(tokens["access_token"]).status_code == 200
    gate.open()
    thread.join(20)
    assert answers == [200]


def test_a_server_with_a_closed_gate_still_shuts_down() -> None:
    with serve_demo() as demo:
        player = Player(demo)
        gate = demo.authorization_server.hold("token")
        trouble: list[Exception] = []

        def ask() -> None:
            try:
                player.exchange("made-up")
            except httpx.TransportError as error:
                trouble.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        assert gate.arrived.wait(20)
    thread.join(20)
    assert not thread.is_alive()


def test_a_server_can_share_its_origin_with_its_resource_and_publish_no_resource_metadata() -> None:
    with serve_demo(Behaviour(resource_metadata_locations=()), separate_origins=False) as demo:
        assert demo.mcp_url == f"{demo.issuer}/mcp"
        for path in ("/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"):
            assert httpx.get(demo.issuer + path).status_code == 404
        assert httpx.get(f"{demo.issuer}/.well-known/oauth-authorization-server").status_code == 200
        player = Player(demo)
        assert player.call(player.tokens()["access_token"]).status_code == 200
