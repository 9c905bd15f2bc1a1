"""Token refresh and revocation, and which parts of them may be shown."""

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
from tests.oauth.parties import (
    CODE,
    GRANTED,
    ISSUER,
    NOW,
    OLD,
    TOKEN,
    VERIFIER,
    client,
    exchanging,
    refreshing,
    server,
)
from tests.playbook import form_of, play
from tests.requirements import covers


@covers("keep-refresh")
def test_quirk_33_what_a_refresh_answer_leaves_out_stays() -> None:
    tokens = (
        refreshing().expects(TOKEN, form={"refresh_token": "old-refresh"}).answers(200, GRANTED).returns()
    )
    assert tokens == Tokens(
        Secret("fresh-access"),
        OLD.refresh_token,
        OLD.scope,
        expires_at=NOW + 3600,
        refresh_expires_at=OLD.refresh_expires_at,
        obtained_at=NOW,
        account=OLD.account,
    )


@covers("keep-refresh")
def test_quirk_33_a_rotated_refresh_token_replaces_the_old_one_and_its_end() -> None:
    body = {**GRANTED, "refresh_token": "next", "scope": "read write", "refresh_expires_in": 60}
    tokens = refreshing().expects(TOKEN).answers(200, body).returns()
    assert (tokens.refresh_token, tokens.refresh_expires_at) == (Secret("next"), NOW + 60)
    assert tokens.scope == frozenset({"read", "write"})
    body.pop("refresh_expires_in")
    assert refreshing().expects(TOKEN).answers(200, body).returns().refresh_expires_at is None


def test_without_a_refresh_token_nothing_is_sent() -> None:
    script = play(refresh_tokens(server(), client(), Tokens(Secret("x")), NOW))
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
def test_quirk_34_a_refresh_that_fails_for_now_does_not_look_like_a_dead_session(
    status: int, body: dict[str, object] | str | None
) -> None:
    refreshing().expects(TOKEN).answers(status, body).raises(MalformedResponse)


@covers("refresh-failures")
def test_quirk_34_invalid_grant_keeps_its_code() -> None:
    script = refreshing().expects(TOKEN).answers(400, {"error": "invalid_grant", "error_description": "gone"})
    error = script.raises(TokenError, "new login")
    assert error.error == "invalid_grant"
    assert str(error) == "as.example refused the refresh: invalid_grant."
    assert error.server_message == "gone"


@covers("no-secret")
def test_a_server_that_echoes_our_secrets_does_not_bring_them_before_anybody_s_eyes() -> None:
    who = client(client_secret=Secret("s3cret+/="), auth_method="client_secret_post")
    echo = f"{CODE} and {VERIFIER} and s3cret+/= and s3cret%2B%2F%3D"
    body: dict[str, object] = {"error": CODE, "error_description": echo}
    error = exchanging(client=who).expects(TOKEN).answers(400, body).raises(TokenError)
    for secret in (CODE, VERIFIER, "s3cret"):
        assert secret not in f"{error} {error.advice} {error.error} {error!r}"


@covers("no-secret")
def test_an_assertion_that_is_echoed_is_not_shown() -> None:
    who = client(auth_method="private_key_jwt")
    script = play(refresh_tokens(server(), who, OLD, NOW, sign=lambda *_: Secret("s1gned.assertion")))
    script.expects(TOKEN, form={"client_assertion": "s1gned.assertion"})
    error = script.answers(400, {"error": "invalid_client", "error_description": "s1gned.assertion"}).raises(
        TokenError
    )
    assert "s1gned" not in str(error)


@covers("no-secret")
def test_tokens_and_requests_mask_themselves() -> None:
    script = refreshing(client_secret=Secret("s3cret"), auth_method="client_secret_basic")
    tokens = script.expects(TOKEN).answers(200, {**GRANTED, "refresh_token": "next-refresh"}).returns()
    shown = f"{tokens!r} {script.requests!r}"
    for secret in ("fresh-access", "next-refresh", "old-refresh", "s3cret"):
        assert secret not in shown
        assert base64.b64encode(f"client-1:{secret}".encode()).decode() not in shown


def id_token(payload: bytes) -> str:
    return f"e30.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.x"


@pytest.mark.parametrize(
    ("token", "account"),
    [
        (id_token(json.dumps({"sub": "7", "email": "ada@example"}).encode()), "ada@example"),
        (id_token(json.dumps({"sub": "7", "email": "", "name": "Ada\x1b[31m\nL."}).encode()), "Ada [31m L."),
        (id_token(b'{"sub": 7}'), None),
        (id_token(b"[]"), None),
        (id_token(b"[" * 100_000), None),
        (id_token(b"\xff"), None),
        ("a.b", None),
        ("a.b.c", None),
        ("a.\u0439.c", None),
        (7, None),
        (None, None),
    ],
)
def test_who_logged_in_is_read_from_any_id_token_or_not_at_all(token: object, account: str | None) -> None:
    assert account_from_id_token(token) == account


@covers("revocation")
def test_revocation_goes_to_the_advertised_endpoint_with_the_client_s_authentication_or_nowhere() -> None:
    assert revocation_request(server(), client(), Secret("t"), "refresh_token") is None
    party = server(revocation_endpoint=f"{ISSUER}/revoke")
    made = revocation_request(party, client(), Secret("t"), "refresh_token")
    assert made is not None
    assert made.url == f"{ISSUER}/revoke"
    assert form_of(made) == {"token": "t", "token_type_hint": "refresh_token", "client_id": "client-1"}
