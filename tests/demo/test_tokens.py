"""Codes and tokens are valid for the client, the resource and the time that the standards require."""

from __future__ import annotations

import httpx
import pytest

from tests.demo.manual_client import ManualClient, ManualClock, error_of
from tests.parts.authorization_server import Demo


def test_a_code_is_valid_once_and_its_reuse_revokes_the_tokens(client: ManualClient) -> None:
    code = client.obtain_code()
    tokens = client.exchange(code).json()
    assert client.call_mcp(tokens["access_token"]).status_code == 200
    assert error_of(client.exchange(code)) == (400, "invalid_grant")
    assert client.call_mcp(tokens["access_token"]).status_code == 401
    assert error_of(client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


def test_a_code_is_valid_for_a_minute(clock: ManualClock, client: ManualClient) -> None:
    punctual_code, late_code = client.obtain_code(), client.obtain_code()
    clock.now += 59
    assert client.exchange(punctual_code).status_code == 200
    clock.now += 1
    assert error_of(client.exchange(late_code)) == (400, "invalid_grant")


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
def test_an_invalid_token_request_is_refused(
    client: ManualClient, changes: dict[str, str | None], error: str
) -> None:
    assert error_of(client.exchange(client.obtain_code(), **changes)) == (400, error)


def test_a_code_of_another_client_is_refused_and_stays_valid(demo: Demo, client: ManualClient) -> None:
    code = client.obtain_code()
    assert error_of(ManualClient(demo).exchange(code)) == (400, "invalid_grant")
    assert client.exchange(code).status_code == 200


def test_reuse_of_a_rotated_refresh_token_revokes_its_family(client: ManualClient) -> None:
    tokens = client.obtain_tokens()
    rotated = client.refresh(tokens["refresh_token"]).json()
    assert client.call_mcp(rotated["access_token"]).status_code == 200
    assert error_of(client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
    assert error_of(client.refresh(rotated["refresh_token"])) == (400, "invalid_grant")
    assert client.call_mcp(rotated["access_token"]).status_code == 401


def test_reuse_within_the_grace_period_is_accepted(clock: ManualClock, client: ManualClient) -> None:
    client.demo.authorization_server.change_behaviour(reuse_grace_seconds=30)
    tokens = client.obtain_tokens()
    assert client.refresh(tokens["refresh_token"]).status_code == 200
    clock.now += 29
    assert client.refresh(tokens["refresh_token"]).status_code == 200
    clock.now += 1
    assert error_of(client.refresh(tokens["refresh_token"])) == (400, "invalid_grant")


def test_without_rotation_the_response_has_no_refresh_token(client: ManualClient) -> None:
    client.demo.authorization_server.change_behaviour(rotates_refresh_tokens=False)
    tokens = client.obtain_tokens()
    for _ in range(2):
        response = client.refresh(tokens["refresh_token"])
        assert (response.status_code, "refresh_token" in response.json()) == (200, False)


def test_a_refresh_may_narrow_the_scope_but_not_widen_it(client: ManualClient) -> None:
    tokens = client.obtain_tokens(scope="mcp:tools mcp:write")
    assert tokens["scope"] == "mcp:tools mcp:write"
    narrowed = client.refresh(tokens["refresh_token"], scope="mcp:tools").json()
    assert narrowed["scope"] == "mcp:tools"
    widened = client.refresh(narrowed["refresh_token"], scope="mcp:tools offline_access")
    assert error_of(widened) == (400, "invalid_scope")


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
def test_a_confidential_client_authenticates_only_with_its_method(demo: Demo, method: str) -> None:
    client = ManualClient(demo, token_endpoint_auth_method=method)
    secret = client.registration["client_secret"]
    assert secret in demo.authorization_server.minted_secrets
    by_post: dict[str, str | None] = {"client_secret": secret}
    right, wrong = client.obtain_code(), client.obtain_code()
    if method == "client_secret_basic":
        assert error_of(client.exchange(wrong, **by_post)) == (401, "invalid_client")
        assert error_of(client.exchange_basic(wrong, "guess")) == (401, "invalid_client")
        assert client.exchange_basic(right, secret).status_code == 200
    else:
        assert error_of(client.exchange_basic(wrong, secret)) == (401, "invalid_client")
        assert error_of(client.exchange(wrong, client_secret="guess")) == (401, "invalid_client")
        assert client.exchange(right, **by_post).status_code == 200
    assert error_of(client.exchange(wrong)) == (401, "invalid_client")
    response = client.exchange_basic(wrong, secret, **by_post)
    assert error_of(response) == (400, "invalid_request")


def test_a_public_client_that_sends_a_secret_is_refused(client: ManualClient) -> None:
    assert error_of(client.exchange(client.obtain_code(), client_secret="guess")) == (401, "invalid_client")


def test_a_deleted_client_is_invalid(client: ManualClient) -> None:
    code = client.obtain_code()
    client.demo.authorization_server.ledger.forget_clients()
    assert error_of(client.exchange(code)) == (401, "invalid_client")


def test_revoking_a_refresh_token_ends_the_session(client: ManualClient) -> None:
    tokens = client.obtain_tokens()
    assert client.post_form("/revoke", {"token": tokens["access_token"]}).status_code == 200
    assert client.call_mcp(tokens["access_token"]).status_code == 401
    rotated = client.refresh(tokens["refresh_token"]).json()
    refused = error_of(ManualClient(client.demo).post_form("/revoke", {"token": rotated["refresh_token"]}))
    assert refused == (400, "unauthorized_client")
    assert client.post_form("/revoke", {"token": rotated["refresh_token"]}).status_code == 200
    assert client.call_mcp(rotated["access_token"]).status_code == 401
    assert error_of(client.refresh(rotated["refresh_token"])) == (400, "invalid_grant")
    assert client.post_form("/revoke", {"token": "made-up"}).status_code == 200


def test_a_malformed_form_is_refused(demo: Demo) -> None:
    url = f"{demo.authorization_server.origin}/token"
    assert error_of(httpx.post(url, json={"grant_type": "refresh_token"})) == (400, "invalid_request")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert error_of(httpx.post(url, content="code=a&code=b", headers=form)) == (400, "invalid_request")
    assert error_of(httpx.post(url, content=b"code=\xff", headers=form)) == (400, "invalid_request")
    assert httpx.get(url).status_code == 405
