"""Token refresh and revocation, and which parts of their requests and responses may be shown."""

from __future__ import annotations

import base64
import json

import pytest

from hermes_mcp_auth_remote.errors import MalformedResponse, TokenError
from hermes_mcp_auth_remote.oauth.token import (
    Tokens,
    account_from_id_token,
    refresh_tokens,
    revocation_request,
)
from hermes_mcp_auth_remote.values import Secret
from tests.exchange_script import form_of, script_exchange
from tests.oauth.builders import (
    CODE,
    ISSUER,
    NOW,
    OLD_TOKENS,
    TOKEN_REQUEST,
    TOKEN_RESPONSE,
    VERIFIER,
    client,
    script_code_exchange,
    script_refresh,
    server,
)
from tests.requirements import covers


@covers("keep-refresh")
def test_quirk_33_members_missing_from_a_refresh_response_are_kept() -> None:
    tokens = (
        script_refresh()
        .expects(TOKEN_REQUEST, form={"refresh_token": "old-refresh"})
        .responds(200, TOKEN_RESPONSE)
        .returns()
    )
    assert tokens == Tokens(
        Secret("fresh-access"),
        OLD_TOKENS.refresh_token,
        OLD_TOKENS.scope,
        expires_at=NOW + 3600,
        refresh_expires_at=OLD_TOKENS.refresh_expires_at,
        obtained_at=NOW,
        account=OLD_TOKENS.account,
    )


@covers("keep-refresh")
def test_quirk_33_a_rotated_refresh_token_replaces_the_old_one_and_its_expiry() -> None:
    body = {**TOKEN_RESPONSE, "refresh_token": "next", "scope": "read write", "refresh_expires_in": 60}
    tokens = script_refresh().expects(TOKEN_REQUEST).responds(200, body).returns()
    assert (tokens.refresh_token, tokens.refresh_expires_at) == (Secret("next"), NOW + 60)
    assert tokens.scope == frozenset({"read", "write"})
    body.pop("refresh_expires_in")
    assert script_refresh().expects(TOKEN_REQUEST).responds(200, body).returns().refresh_expires_at is None


def test_without_a_refresh_token_nothing_is_sent() -> None:
    script = script_exchange(refresh_tokens(server(), client(), Tokens(Secret("x")), NOW))
    assert script.raises(TokenError).error == "invalid_grant"


@covers("refresh-failures")
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, {"error": "invalid_grant"}),
        (502, "<html>"),
        (503, None),
        (403, "<html>"),
        (429, "wait"),
        (400, None),
    ],
)
def test_quirk_34_a_temporary_refresh_failure_does_not_end_the_session(
    status: int, body: dict[str, object] | str | None
) -> None:
    script_refresh().expects(TOKEN_REQUEST).responds(status, body).raises(MalformedResponse)


@covers("refresh-failures")
def test_quirk_34_invalid_grant_keeps_its_code() -> None:
    script = (
        script_refresh()
        .expects(TOKEN_REQUEST)
        .responds(400, {"error": "invalid_grant", "error_description": "gone"})
    )
    error = script.raises(TokenError, "new login")
    assert error.error == "invalid_grant"
    assert str(error) == "as.example refused the refresh: invalid_grant."
    assert error.server_message == "gone"


@covers("no-secret")
def test_echoed_secrets_are_not_in_the_error() -> None:
    oauth_client = client(client_secret=Secret("s3cret+/="), auth_method="client_secret_post")
    echo = f"{CODE} and {VERIFIER} and s3cret+/= and s3cret%2B%2F%3D"
    body: dict[str, object] = {"error": CODE, "error_description": echo}
    error = (
        script_code_exchange(client=oauth_client)
        .expects(TOKEN_REQUEST)
        .responds(400, body)
        .raises(TokenError)
    )
    for secret in (CODE, VERIFIER, "s3cret"):
        assert secret not in f"{error} {error.advice} {error.error} {error!r}"


@covers("no-secret")
def test_an_echoed_assertion_is_not_in_the_error() -> None:
    oauth_client = client(auth_method="private_key_jwt")
    script = script_exchange(
        refresh_tokens(server(), oauth_client, OLD_TOKENS, NOW, sign=lambda *_: Secret("s1gned.assertion"))
    )
    script.expects(TOKEN_REQUEST, form={"client_assertion": "s1gned.assertion"})
    error = script.responds(400, {"error": "invalid_client", "error_description": "s1gned.assertion"}).raises(
        TokenError
    )
    assert "s1gned" not in str(error)


@covers("no-secret")
def test_the_repr_of_tokens_and_requests_contains_no_secret() -> None:
    script = script_refresh(client_secret=Secret("s3cret"), auth_method="client_secret_basic")
    tokens = (
        script.expects(TOKEN_REQUEST)
        .responds(200, {**TOKEN_RESPONSE, "refresh_token": "next-refresh"})
        .returns()
    )
    text = f"{tokens!r} {script.requests!r}"
    for secret in ("fresh-access", "next-refresh", "old-refresh", "s3cret"):
        assert secret not in text
        assert base64.b64encode(f"client-1:{secret}".encode()).decode() not in text


def make_id_token(payload: bytes) -> str:
    return f"e30.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.x"


@pytest.mark.parametrize(
    ("token", "account"),
    [
        (make_id_token(json.dumps({"sub": "7", "email": "ada@example"}).encode()), "ada@example"),
        (
            make_id_token(json.dumps({"sub": "7", "email": "", "name": "Ada\x1b[31m\nL."}).encode()),
            "Ada [31m L.",
        ),
        (make_id_token(b'{"sub": 7}'), None),
        (make_id_token(b"[]"), None),
        (make_id_token(b"[" * 100_000), None),
        (make_id_token(b"\xff"), None),
        ("a.b", None),
        ("a.b.c", None),
        ("a.\u0439.c", None),
        (7, None),
        (None, None),
    ],
)
def test_the_account_is_read_from_a_valid_id_token(token: object, account: str | None) -> None:
    assert account_from_id_token(token) == account


@covers("revocation")
def test_a_revocation_request_needs_an_advertised_endpoint() -> None:
    assert revocation_request(server(), client(), Secret("t"), "refresh_token") is None
    authorization_server = server(revocation_endpoint=f"{ISSUER}/revoke")
    revocation = revocation_request(authorization_server, client(), Secret("t"), "refresh_token")
    assert revocation is not None
    assert revocation.url == f"{ISSUER}/revoke"
    assert form_of(revocation) == {"token": "t", "token_type_hint": "refresh_token", "client_id": "client-1"}
