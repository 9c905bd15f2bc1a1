"""Codes and tokens are valid for the client, the resource and the time that the standards require."""

from __future__ import annotations

import httpx
import pytest

from tests.demo.player import MovedClock, Player, refusal
from tests.parts.authorization_server import Demo


def test_a_code_is_good_once_and_its_reuse_revokes_what_it_bought(player: Player) -> None:
    code = player.code()
    tokens = player.exchange(code).json()
    assert player.call(tokens["access_token"]).status_code == 200
    assert refusal(player.exchange(code)) == (400, "invalid_grant")
    assert player.call(tokens["access_token"]).status_code == 401
    assert refusal(player.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


def test_a_code_is_good_for_a_minute(clock: MovedClock, player: Player) -> None:
    in_time, late = player.code(), player.code()
    clock.now += 59
    assert player.exchange(in_time).status_code == 200
    clock.now += 1
    assert refusal(player.exchange(late)) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_verifier": "another-verifier-that-is-long-enough-for-RFC-7636"}, "invalid_grant"),
        ({"code_verifier": None}, "invalid_grant"),
        ({"code_verifier": "short"}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:33418/other"}, "invalid_grant"),
        ({"redirect_uri": None}, "invalid_request"),
        ({"resource": "https://elsewhere.example/mcp"}, "invalid_target"),
        ({"resource": None}, "invalid_target"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": None}, "unsupported_grant_type"),
        ({"code": None}, "invalid_request"),
        ({"code": "made-up"}, "invalid_grant"),
    ],
)
def test_a_faulty_token_request_is_refused(
    player: Player, changes: dict[str, str | None], error: str
) -> None:
    assert refusal(player.exchange(player.code(), **changes)) == (400, error)


def test_a_code_of_another_client_is_refused_and_stays_good(demo: Demo, player: Player) -> None:
    code = player.code()
    assert refusal(Player(demo).exchange(code)) == (400, "invalid_grant")
    assert player.exchange(code).status_code == 200


def test_reuse_of_a_rotated_refresh_token_revokes_its_family(player: Player) -> None:
    tokens = player.tokens()
    rotated = player.refresh(tokens["refresh_token"]).json()
    assert player.call(rotated["access_token"]).status_code == 200
    assert refusal(player.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
    assert refusal(player.refresh(rotated["refresh_token"])) == (400, "invalid_grant")
    assert player.call(rotated["access_token"]).status_code == 401


def test_reuse_within_the_grace_period_is_forgiven(clock: MovedClock, player: Player) -> None:
    player.demo.authorization_server.change_behaviour(reuse_grace_seconds=30)
    tokens = player.tokens()
    assert player.refresh(tokens["refresh_token"]).status_code == 200
    clock.now += 29
    assert player.refresh(tokens["refresh_token"]).status_code == 200
    clock.now += 1
    assert refusal(player.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


def test_without_rotation_the_refresh_token_stays_and_is_not_repeated(player: Player) -> None:
    player.demo.authorization_server.change_behaviour(rotate=False)
    tokens = player.tokens()
    for _ in range(2):
        answer = player.refresh(tokens["refresh_token"])
        assert (answer.status_code, "refresh_token" in answer.json()) == (200, False)


def test_a_refresh_may_narrow_the_scope_but_not_widen_it(player: Player) -> None:
    tokens = player.tokens(scope="mcp:tools mcp:write")
    assert tokens["scope"] == "mcp:tools mcp:write"
    narrowed = player.refresh(tokens["refresh_token"], scope="mcp:tools").json()
    assert narrowed["scope"] == "mcp:tools"
    widened = player.refresh(narrowed["refresh_token"], scope="mcp:tools offline_access")
    assert refusal(widened) == (400, "invalid_scope")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_confidential_client_authenticates_in_its_own_way_only(demo: Demo, method: str) -> None:
    player = Player(demo, token_endpoint_auth_method=method)
    secret = player.client["client_secret"]
    assert secret in demo.authorization_server.minted_secrets
    by_post: dict[str, str | None] = {"client_secret": secret}
    right, wrong = player.code(), player.code()
    if method == "client_secret_basic":
        assert refusal(player.exchange(wrong, **by_post)) == (401, "invalid_client")
        assert refusal(player.exchange_basic(wrong, "guess")) == (401, "invalid_client")
        assert player.exchange_basic(right, secret).status_code == 200
    else:
        assert refusal(player.exchange_basic(wrong, secret)) == (401, "invalid_client")
        assert refusal(player.exchange(wrong, client_secret="guess")) == (401, "invalid_client")
        assert player.exchange(right, **by_post).status_code == 200
    assert refusal(player.exchange(wrong)) == (401, "invalid_client")
    both = player.exchange_basic(wrong, secret, **by_post)
    assert refusal(both) == (400, "invalid_request")


def test_a_public_client_that_sends_a_secret_is_refused(player: Player) -> None:
    assert refusal(player.exchange(player.code(), client_secret="guess")) == (401, "invalid_client")


def test_a_client_that_the_server_forgot_is_invalid(player: Player) -> None:
    code = player.code()
    player.demo.authorization_server.ledger.forget_clients()
    assert refusal(player.exchange(code)) == (401, "invalid_client")


def test_revoking_a_refresh_token_ends_the_session_an_access_token_only_itself(player: Player) -> None:
    tokens = player.tokens()
    assert player.ask("/revoke", {"token": tokens["access_token"]}).status_code == 200
    assert player.call(tokens["access_token"]).status_code == 401
    rotated = player.refresh(tokens["refresh_token"]).json()
    other = refusal(Player(player.demo).ask("/revoke", {"token": rotated["refresh_token"]}))
    assert other == (400, "unauthorized_client")
    assert player.ask("/revoke", {"token": rotated["refresh_token"]}).status_code == 200
    assert player.call(rotated["access_token"]).status_code == 401
    assert refusal(player.refresh(rotated["refresh_token"])) == (400, "invalid_grant")
    assert player.ask("/revoke", {"token": "made-up"}).status_code == 200


def test_a_form_that_is_none_or_repeats_itself_is_refused(demo: Demo) -> None:
    url = f"{demo.authorization_server.origin}/token"
    assert refusal(httpx.post(url, json={"grant_type": "refresh_token"})) == (400, "invalid_request")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert refusal(httpx.post(url, content="code=a&code=b", headers=form)) == (400, "invalid_request")
    assert refusal(httpx.post(url, content=b"code=\xff", headers=form)) == (400, "invalid_request")
    assert httpx.get(url).status_code == 405
