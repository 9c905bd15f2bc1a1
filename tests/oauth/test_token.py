"""Code exchange: valid, unusual and hostile responses of token endpoints."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import MalformedResponse, TokenError
from hermes_mcp_auth_remote.oauth.token import (
    Tokens,
    read_token_response,
)
from hermes_mcp_auth_remote.oauth.wire import MAX_LIFETIME_SECONDS, get_json, parse_seconds
from hermes_mcp_auth_remote.values import Secret
from tests.exchange_script import form_of, make_response, read_sample
from tests.oauth.builders import (
    CODE,
    NOW,
    REDIRECT_URI,
    TOKEN_REQUEST,
    TOKEN_RESPONSE,
    VERIFIER,
    client,
    script_code_exchange,
    script_refresh,
)
from tests.requirements import covers


@covers("resource-everywhere", "pkce-s256")
def test_quirk_29_the_exchange_sends_verifier_redirect_uri_and_resource() -> None:
    form = {
        "grant_type": "authorization_code",
        "code": CODE,
        "redirect_uri": REDIRECT_URI,
        "code_verifier": VERIFIER,
        "client_id": "client-1",
        "resource": "https://mcp.example",
    }
    script = script_code_exchange(resource="https://mcp.example", scope=frozenset({"a"})).expects(
        TOKEN_REQUEST, form=form
    )
    tokens = script.responds(200, TOKEN_RESPONSE).returns()
    assert tokens == Tokens(
        Secret("fresh-access"), None, frozenset({"a"}), expires_at=NOW + 3600, obtained_at=NOW
    )
    assert form_of(script.requests[0]) == form


@covers("resource-everywhere", "resource-choice")
def test_quirk_28_and_29_a_refresh_sends_the_resource_and_a_given_scope() -> None:
    script = script_refresh().expects(TOKEN_REQUEST, form={"resource": "https://mcp.example", "scope": None})
    script.responds(200, TOKEN_RESPONSE).returns()
    script = script_refresh(scope=frozenset({"b", "a"})).expects(TOKEN_REQUEST, form={"scope": "a b"})
    script.responds(200, TOKEN_RESPONSE).returns()
    script = script_code_exchange().expects(TOKEN_REQUEST, form={"resource": None})
    script.responds(200, TOKEN_RESPONSE).returns()


@covers("auth-method")
def test_quirk_17_basic_refused_as_invalid_client_is_retried_once_with_post() -> None:
    oauth_client = client(client_secret=Secret("s3cret"), auth_method="client_secret_basic")
    refused: dict[str, object] = {"error": "invalid_client"}
    script = script_code_exchange(client=oauth_client)
    script.expects(TOKEN_REQUEST, form={"client_id": None, "client_secret": None}).responds(401, refused)
    script.expects(TOKEN_REQUEST, form={"client_secret": "s3cret"}, headers={"authorization": None})
    script.responds(200, TOKEN_RESPONSE).returns()

    script = script_code_exchange(client=oauth_client).expects(TOKEN_REQUEST).responds(401, refused)
    script.expects(TOKEN_REQUEST).responds(400, {"error": "invalid_request"})
    assert script.raises(TokenError).error == "invalid_client"


@covers("auth-method", "stale-client")
@pytest.mark.parametrize("method", ["none", "client_secret_post"])
def test_quirk_19_a_forgotten_client_gives_invalid_client_without_a_retry(method: str) -> None:
    oauth_client = client(client_secret=Secret("s3cret"), auth_method=method)
    script = (
        script_code_exchange(client=oauth_client)
        .expects(TOKEN_REQUEST)
        .responds(401, {"error": "invalid_client"})
    )
    assert script.raises(TokenError, "begin a new login to register again").error == "invalid_client"


@covers("bearer-case")
@pytest.mark.parametrize("token_type", ["bearer", "Bearer", "BEARER", None])
def test_quirk_21_any_case_of_the_token_type_is_sent_as_bearer(token_type: str | None) -> None:
    script = (
        script_code_exchange()
        .expects(TOKEN_REQUEST)
        .responds(200, {**TOKEN_RESPONSE, "token_type": token_type})
    )
    assert script.returns().authorization_header == "Bearer fresh-access"


@pytest.mark.parametrize("token_type", ["DPoP", "mac", "N_A"])
def test_a_token_of_another_type_is_refused(token_type: str) -> None:
    script = (
        script_code_exchange()
        .expects(TOKEN_REQUEST)
        .responds(200, {**TOKEN_RESPONSE, "token_type": token_type})
    )
    script.raises(MalformedResponse, "not a Bearer token")


@covers("invalid-scope")
@pytest.mark.parametrize(
    ("error", "advice"), [("invalid_scope", "oauth.scope"), ("invalid_target", "oauth.resource")]
)
def test_quirk_25_a_refused_scope_or_resource_names_the_option_to_set(error: str, advice: str) -> None:
    script = script_code_exchange().expects(TOKEN_REQUEST).responds(400, {"error": error})
    assert script.raises(TokenError, advice).error == error


@covers("form-answer")
@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded; charset=utf-8", "text/plain", ""])
def test_quirk_30_a_form_encoded_response_is_read(media_type: str) -> None:
    script = script_code_exchange().expects(TOKEN_REQUEST, headers={"accept": "application/json"})
    tokens = script.responds(200, read_sample("github/token"), {"content-type": media_type}).returns()
    assert tokens.access_token == Secret("gho_made-up-1")
    assert tokens.expires_at == NOW + 28_800
    assert tokens.scope == frozenset({"repo", "gist"})


@covers("form-answer")
@pytest.mark.parametrize(
    "media_type", ["application/x-www-form-urlencoded", "text/html", "", "application/json"]
)
def test_quirk_30_json_is_read_at_any_media_type(media_type: str) -> None:
    body = b'\n {"access_token": "ends-with=="}'
    script = script_code_exchange().expects(TOKEN_REQUEST).responds(200, body, {"content-type": media_type})
    assert script.returns().access_token == Secret("ends-with==")


@covers("error-in-200")
@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"error": "invalid_grant", "access_token": "x"}, TokenError),
        ({"error": {"code": 7}, "access_token": "x"}, TokenError),
        (read_sample("slack/refused"), TokenError),
        (b"error=bad_verification_code&error_description=x", TokenError),
        ({"access_token": ""}, MalformedResponse),
        ({"access_token": None}, MalformedResponse),
        ({"access_token": "two words"}, MalformedResponse),
        ({"access_token": "line\r\nX-Evil: 1"}, MalformedResponse),
        ({"access_token": "\u043f"}, MalformedResponse),
        ({"access_token": ["x"]}, MalformedResponse),
        ({"authed_user": {"access_token": "x"}}, MalformedResponse),
        ({}, MalformedResponse),
        ([], MalformedResponse),
        ("<html>", MalformedResponse),
        (b"", MalformedResponse),
        (b"\xff\xfe=", MalformedResponse),
        (b"a=b&" * 200, MalformedResponse),
        (b"a=" + b"b" * 2_000_000, MalformedResponse),
    ],
)
def test_quirk_31_a_200_without_a_token_is_a_failure(body: object, kind: type[TokenError]) -> None:
    headers = {"content-type": "text/plain"} if isinstance(body, bytes) else None
    script = script_code_exchange().expects(TOKEN_REQUEST).responds(200, body, headers)  # type: ignore[arg-type]
    script.raises(kind)


@covers("error-in-200")
def test_quirk_31_the_nested_token_of_slack_is_read() -> None:
    tokens = script_code_exchange().expects(TOKEN_REQUEST).responds(200, read_sample("slack/token")).returns()
    assert tokens.access_token == Secret("xoxp-made-up-1")
    assert tokens.scope == frozenset({"channels:history", "chat:write"})


@covers("expires-in")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (3600, 3600.0),
        ("3600", 3600.0),
        (1.5, 1.5),
        (0, None),
        ("0", None),
        (-1, None),
        (None, None),
        ("", None),
        ("soon", None),
        (True, None),
        ([3600], None),
        ({}, None),
        (float("nan"), None),
        (float("inf"), None),
        ("1e999", None),
        (10**400, None),
        (1e300, MAX_LIFETIME_SECONDS),
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_quirk_32_an_invalid_expires_in_is_ignored(value: object, seconds: float | None) -> None:
    assert parse_seconds(value) == seconds
    tokens = read_token_response(
        make_response(200, {**TOKEN_RESPONSE, "expires_in": value}), NOW, "as.example"
    )
    assert tokens.expires_at == (None if seconds is None else NOW + seconds)


@covers("expires-in")
def test_quirk_32_without_expires_in_the_expiry_is_unknown() -> None:
    assert (
        script_code_exchange()
        .expects(TOKEN_REQUEST)
        .responds(200, {"access_token": "x"})
        .returns()
        .expires_at
        is None
    )


@covers("no-secret")
def test_an_echoed_basic_header_or_form_reveals_no_secret() -> None:
    oauth_client = client(client_secret=Secret("s3/cr+t"), auth_method="client_secret_basic")
    header = "Basic Y2xpZW50LTE6czMlMkZjciUyQnQ="
    script = script_code_exchange(client=oauth_client).expects(
        TOKEN_REQUEST, headers={"authorization": header}
    )
    script.responds(400, {"error": "bad", "error_description": f"got {header} and s3%2Fcr%2Bt and s3/cr+t"})
    error = script.raises(TokenError)
    assert str(error) == "as.example refused the token request: unknown error (status 400)."
    assert error.server_message == "bad: got Basic **** and **** and ****"


@covers("no-secret")
def test_the_repr_of_a_request_does_not_contain_its_url() -> None:
    assert "St4te" not in repr(get_json("https://as.example/authorize?state=St4te", "preflight"))
