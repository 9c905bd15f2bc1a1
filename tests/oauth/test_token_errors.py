"""What a token endpoint's response means for a refresh token. Each case is a row of the table of verdicts."""

from __future__ import annotations

import pytest

from hermes_mcp_auth_remote.errors import MalformedResponse, TokenError
from hermes_mcp_auth_remote.oauth.token import refresh_tokens
from hermes_mcp_auth_remote.oauth.token_errors import (
    BAD_REQUEST_ERRORS,
    TEMPORARY_ERRORS,
    canonical_error,
    classify_token_response,
    error_code,
    read_granted_document,
    read_server_message,
)
from hermes_mcp_auth_remote.oauth.wire import Document
from hermes_mcp_auth_remote.values import Secret
from tests.exchange_script import make_response, script_exchange
from tests.oauth.builders import NOW, OLD_TOKENS, TOKEN_RESPONSE, client, server
from tests.requirements import covers

FINAL_DOCUMENTS: tuple[Document, ...] = (
    {"error": "invalid_grant"},
    {"error": "bad_refresh_token"},
    {"ok": False},
)
TEMPORARY_STATUSES = (300, 302, 307, 308, 408, 429, 500, 502, 503, 504, 599)


@covers("refresh-verdict")
@pytest.mark.parametrize("status", TEMPORARY_STATUSES)
@pytest.mark.parametrize("body", [None, {}, TOKEN_RESPONSE, {"error": "server_error"}, *FINAL_DOCUMENTS])
def test_a_temporary_status_is_passing_with_any_body(status: int, body: Document | None) -> None:
    for is_html in (False, True):
        assert classify_token_response(status, body, is_html=is_html) == "temporary"


VERDICT_ROWS: list[tuple[int, Document | None, bool, str]] = [
    # Granted
    (200, TOKEN_RESPONSE, False, "granted"),
    (201, TOKEN_RESPONSE, False, "granted"),
    (200, TOKEN_RESPONSE, True, "granted"),
    (200, {**TOKEN_RESPONSE, "ok": True, "error": None}, False, "granted"),
    (200, {**TOKEN_RESPONSE, "error": ""}, False, "granted"),
    # A body that is not JSON
    (200, None, False, "temporary"),
    (200, None, True, "temporary"),
    (400, None, False, "temporary"),
    (400, None, True, "temporary"),
    (404, None, False, "temporary"),
    (403, None, False, "temporary"),
    # 403 and 404: only an OAuth error counts
    (403, {}, False, "temporary"),
    (403, {"error": "Forbidden"}, False, "temporary"),
    (403, {"ok": False}, False, "temporary"),
    (404, {"error": "Not Found", "status": 404}, False, "temporary"),
    (404, {"error": {"code": "not_found"}}, False, "temporary"),
    (403, {"error": "invalid_grant"}, False, "final"),
    (404, {"error": "invalid_grant"}, False, "final"),
    (403, {"error": "bad_refresh_token"}, False, "final"),
    (403, {"error": "access_denied"}, False, "final"),
    # HTML that holds JSON: only an OAuth error counts
    (400, {"error": "invalid_grant"}, True, "final"),
    (400, {"error": "Bad Request"}, True, "temporary"),
    (200, {"error": "bad_refresh_token"}, True, "final"),
    (200, {"ok": False}, True, "temporary"),
    (401, {}, True, "temporary"),
    # Final, in the spellings of various servers
    (400, {"error": "invalid_grant"}, False, "final"),
    (400, {"error": "INVALID_GRANT "}, False, "final"),
    (400, {"error": "invalid_request"}, False, "final"),
    (400, {"error": "whatever"}, False, "final"),
    (400, {"error": {"code": "invalid_grant", "message": "x"}}, False, "final"),
    (400, {"error": {"message": "x"}}, False, "final"),
    (400, {"error": ["x"]}, False, "final"),
    (400, {"error": True}, False, "final"),
    (200, {"error": "bad_refresh_token"}, False, "final"),
    (200, {"error": "invalid_grant", "access_token": "x"}, False, "final"),
    (200, {"ok": False}, False, "final"),
    (200, {"ok": False, "error": "token_revoked"}, False, "final"),
    (401, {"error": "invalid_client"}, False, "final"),
    (400, {"error": "unauthorized_client"}, False, "final"),
    (401, {"error": "invalid_token"}, False, "final"),
    (418, {"error": "teapot"}, False, "final"),
    # A 401 without an error code
    (401, None, False, "unauthorized"),
    (401, {}, False, "unauthorized"),
    (401, {"message": "Unauthorized"}, False, "unauthorized"),
    (401, {"error": None}, False, "unauthorized"),
    (401, None, True, "temporary"),
    # No error code, or a temporary one
    (400, {}, False, "temporary"),
    (400, {"message": "no"}, False, "temporary"),
    (405, {}, False, "temporary"),
    *((400, {"error": code}, False, "temporary") for code in sorted(TEMPORARY_ERRORS)),
    *((200, {"ok": False, "error": code}, False, "temporary") for code in sorted(TEMPORARY_ERRORS)),
    (403, {"error": "slow_down"}, False, "temporary"),
    (401, {"error": "temporarily_unavailable"}, False, "temporary"),
    *(
        (status, {"error": code}, False, "client_error")
        for code in sorted(BAD_REQUEST_ERRORS)
        for status in (200, 400, 403)
    ),
]


@covers("refresh-verdict")
@pytest.mark.parametrize(("status", "body", "is_html", "verdict"), VERDICT_ROWS)
def test_each_token_response_has_its_verdict(
    status: int, body: Document | None, verdict: str, *, is_html: bool
) -> None:
    assert classify_token_response(status, body, is_html=is_html) == verdict


@covers("refresh-verdict")
def test_the_sets_of_temporary_and_request_errors_are_complete() -> None:
    expected = {
        "temporarily_unavailable",
        "server_error",
        "slow_down",
        "rate_limited",
        "internal_error",
        "service_unavailable",
    }
    # "ratelimited" is Slack's spelling. RFC 9449 section 8: a required nonce does not end a refresh token.
    assert TEMPORARY_ERRORS - expected == {"ratelimited", "use_dpop_nonce"}
    # RFC 9449 section 5: a refused proof does not end a refresh token.
    assert {"unsupported_grant_type", "invalid_scope", "invalid_target"} == BAD_REQUEST_ERRORS - {
        "invalid_dpop_proof"
    }


@covers("refresh-verdict")
@pytest.mark.parametrize(
    ("status", "body", "media_type", "kind", "verdict"),
    [
        (503, b'{"error": "invalid_grant"}', "application/json", MalformedResponse, None),
        (429, b'{"error": "invalid_grant"}', "application/json", MalformedResponse, None),
        (408, b"", "", MalformedResponse, None),
        (302, b'{"error": "invalid_grant"}', "application/json", MalformedResponse, None),
        (200, b"<html>", "text/html", MalformedResponse, None),
        (400, b"\xef\xbb\xbf<html>", "", MalformedResponse, None),
        (404, b"Not Found", "text/plain", MalformedResponse, None),
        (401, b"<html>Sign in", "text/html", MalformedResponse, None),
        (401, b"", "", TokenError, "unauthorized"),
        (401, b"Unauthorized", "text/plain", TokenError, "unauthorized"),
        (404, b'{"error": "Not Found"}', "application/json", TokenError, "temporary"),
        (200, b"error=bad_refresh_token", "application/x-www-form-urlencoded", TokenError, "final"),
        (200, b'{"ok": false}', "application/json", TokenError, "final"),
        (400, b'{"error": "invalid_scope"}', "text/html; charset=utf-8", TokenError, "client_error"),
    ],
)
def test_a_failed_refresh_raises_an_error_with_its_verdict(
    status: int,
    body: bytes,
    media_type: str,
    kind: type[TokenError | MalformedResponse],
    verdict: str | None,
) -> None:
    script = script_exchange(refresh_tokens(server(), client(), OLD_TOKENS, NOW)).expects(
        "POST https://as.example/token"
    )
    error = script.responds(status, body, {"content-type": media_type}).raises(kind)
    assert getattr(error, "verdict", None) == verdict


@covers("refresh-verdict", "error-in-200")
@pytest.mark.parametrize(
    ("code", "standard"),
    [
        ("bad_refresh_token", "invalid_grant"),
        ("bad_verification_code", "invalid_grant"),
        ("incorrect_client_credentials", "invalid_client"),
        ("authorization_declined", "access_denied"),
        ("invalid_scope", "invalid_scope"),
        ("odd", "unknown error"),
    ],
)
def test_an_error_code_is_mapped_to_the_standard_one(code: str, standard: str) -> None:
    with pytest.raises(TokenError) as caught:
        read_granted_document(make_response(200, {"error": code}), "as.example", "token request", ())
    assert caught.value.error == standard
    assert caught.value.server_message == ("" if code == standard else code)


@covers("refresh-verdict")
@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("x", "x"),
        (" X ", "x"),
        ({"type": "Y"}, "y"),
        ({"code": {"code": "z"}}, None),
        ([], None),
        (7, None),
        ("", None),
    ],
)
def test_an_error_code_is_read_from_any_shape(error: object, code: str | None) -> None:
    assert error_code({"error": error}) == code
    assert canonical_error(code) in {"unknown error", code}


@covers("refresh-verdict", "no-secret")
def test_the_server_message_contains_no_secret() -> None:
    document: Document = {
        "error": "odd s3cret",
        "error_description": "s3cret",
        "error_uri": "https://h/s3cret",
    }
    assert read_server_message(document, Secret("s3cret")) == "odd ****: ****: https://h/****"
