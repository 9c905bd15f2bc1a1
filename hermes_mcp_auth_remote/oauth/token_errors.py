"""Classify the error responses of token endpoints. RFC 6749 §5.2, RFC 8628 §3.5.

`classify_token_response` contains the whole rule. Servers report an invalid refresh token in different ways:
GitHub sends a 200 with its own error code, Slack sends `ok: false`, others send a bare 401. A gateway in
front of a healthy server can send any body, so the rule checks the status first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from hermes_mcp_auth_remote.errors import MalformedResponse, TokenError
from hermes_mcp_auth_remote.oauth.wire import (
    Document,
    Response,
    read_json_or_form,
    retry_after_text,
    sanitize,
)
from hermes_mcp_auth_remote.values import Secret

Verdict = Literal["granted", "temporary", "client_error", "unauthorized", "final"]
"""The meaning of a token endpoint's response: see `classify_token_response`."""

# RFC 6749 sections 4.1.2.1 and 5.2, RFC 7009, RFC 7591, RFC 8628, RFC 8707, RFC 9126, RFC 9449, RFC 9470, and
# OpenID Connect Core section 3.1.2.6. Error messages may contain these codes; any other code is
# untrusted text of the server.
_STANDARD_ERRORS = frozenset(
    {
        "access_denied",
        "account_selection_required",
        "authorization_pending",
        "consent_required",
        "expired_token",
        "insufficient_scope",
        "insufficient_user_authentication",
        "interaction_required",
        "invalid_client",
        "invalid_client_metadata",
        "invalid_dpop_proof",
        "invalid_grant",
        "invalid_redirect_uri",
        "invalid_request",
        "invalid_request_object",
        "invalid_request_uri",
        "invalid_scope",
        "invalid_software_statement",
        "invalid_target",
        "invalid_token",
        "login_required",
        "server_error",
        "slow_down",
        "temporarily_unavailable",
        "unapproved_software_statement",
        "unauthorized_client",
        "unsupported_grant_type",
        "unsupported_response_type",
        "unsupported_token_type",
        "use_dpop_nonce",
    }
)
# The error codes of GitHub, Slack and Microsoft, from their documentation.
_VENDOR_ERROR_NAMES: Mapping[str, str] = {
    "bad_refresh_token": "invalid_grant",
    "invalid_refresh_token": "invalid_grant",
    "bad_verification_code": "invalid_grant",
    "invalid_code": "invalid_grant",
    "incorrect_device_code": "invalid_grant",
    "token_expired": "invalid_grant",
    "token_revoked": "invalid_grant",
    "incorrect_client_credentials": "invalid_client",
    "bad_client_secret": "invalid_client",
    "invalid_client_id": "invalid_client",
    "device_flow_disabled": "unauthorized_client",
    "authorization_declined": "access_denied",
}
# After these errors, a later request may succeed. "ratelimited" is Slack's spelling. If use_dpop_nonce gets
# here, the client has already repeated the request once with a nonce. The next request sends the newer nonce,
# so it may succeed (RFC 9449 section 8).
TEMPORARY_ERRORS = frozenset(
    {
        "temporarily_unavailable",
        "server_error",
        "slow_down",
        "rate_limited",
        "ratelimited",
        "internal_error",
        "service_unavailable",
        "use_dpop_nonce",
    }
)
# The client's request was wrong because of a setting or a clock. The refresh token may still be valid.
BAD_REQUEST_ERRORS = frozenset(
    {"unsupported_grant_type", "invalid_scope", "invalid_target", "invalid_dpop_proof"}
)
# The server does not know the client, or no longer lets it use this grant.
UNKNOWN_CLIENT_ERRORS = frozenset({"invalid_client", "unauthorized_client"})
KNOWN_ERRORS = _STANDARD_ERRORS | TEMPORARY_ERRORS | _VENDOR_ERROR_NAMES.keys()
UNKNOWN_ERROR = "unknown error"

_RETRY_LATER_ADVICE = "Try again later; nothing was lost."
_ERROR_ADVICE = {
    "invalid_grant": "Begin a new login. A code works only once, and only for about a minute.",
    "invalid_client": (
        "The provider no longer knows this client: begin a new login to register again, or check "
        "`oauth.client_id`, `oauth.client_secret` and `oauth.token_endpoint_auth_method` if you configured "
        "them."
    ),
    "unauthorized_client": (
        "The provider does not allow this request for this client, or does not accept the way in which the "
        "client authenticates. Set `oauth.token_endpoint_auth_method` (client_secret_post or "
        "client_secret_basic) for this server, and log in again."
    ),
    "invalid_target": "Set `oauth.resource` for this server to the value the provider expects, or to false.",
    "invalid_scope": "Set `oauth.scope` for this server to scopes that the provider offers.",
    "invalid_dpop_proof": (
        "Set `oauth.dpop: true` for this server and log in again. If it was already set, check this "
        "machine's clock."
    ),
}


def classify_token_response(status: int, document: Document | None, *, is_html: bool = False) -> Verdict:
    """Return what a token endpoint's response means for the refresh token or code that was sent.

    `document` is the parsed JSON object or form, None if the body is neither. `is_html` is True if the body
    or its media type is HTML. The status is checked first, because a gateway may send any body.

    - "granted": a 2xx without an error.
    - "temporary": the server or a gateway has a temporary problem; the same request may succeed later.
    - "client_error": the client's request was wrong; the refresh token may still be valid.
    - "unauthorized": a 401 without an error code; final only if it is repeated.
    - "final": the same request will never succeed.
    """
    body = document or {}
    code, has_error = error_code(body), has_error_member(body)
    if 200 <= status < 300 and document is not None and not has_error:
        return "granted"
    # A gateway's `{"error": "Not Found"}` is not an OAuth error. A known code counts even in text/html,
    # because PHP sends JSON with that type.
    is_from_gateway = (is_html or status in {403, 404}) and code not in KNOWN_ERRORS
    if is_temporary_status(status) or is_from_gateway or code in TEMPORARY_ERRORS:
        return "temporary"
    if code in BAD_REQUEST_ERRORS:
        return "client_error"
    if has_error:
        return "final"
    return "unauthorized" if status == 401 else "temporary"


def is_temporary_status(status: int) -> bool:
    """True if the status alone means a temporary problem: 408, 429, 5xx, 3xx."""
    return status in {408, 429} or status >= 500 or 300 <= status < 400


def has_error_member(document: Document) -> bool:
    """True if a response reports an error, with `error` or with Slack's `ok: false`."""
    return bool(document.get("error")) or document.get("ok") is False


def error_code(document: Document) -> str | None:
    """Return the `error` of a response in lower case, or None; some servers nest it in an object."""
    error = document.get("error")
    if isinstance(error, Mapping):
        nested = cast("Document", error)
        error = next((nested[name] for name in ("code", "type", "error") if nested.get(name)), None)
    return error.strip().lower() if isinstance(error, str) and error.strip() else None


def canonical_error(code: str | None) -> str:
    """Return the standard name of an error code, or "unknown error" if it is not in KNOWN_ERRORS."""
    if code is None or code not in KNOWN_ERRORS:
        return UNKNOWN_ERROR
    return _VENDOR_ERROR_NAMES.get(code, code)


def read_server_message(document: Document, *secrets: Secret) -> str:
    """Return the server's own text from an error response, with the secrets masked."""
    error = document.get("error")
    nested: Document = cast("Document", error) if isinstance(error, Mapping) else {}
    code = error_code(document)
    vendor_code = code if code is not None and canonical_error(code) != code else ""
    description = (
        document.get("error_description") or nested.get("message") or nested.get("error_description")
    )
    parts = (vendor_code, description, document.get("error_uri"))
    return ": ".join(text for text in (sanitize(part, *secrets) for part in parts) if text)


def read_granted_document(response: Response, host: str, step: str, secrets: tuple[Secret, ...]) -> Document:
    """Return the document of a successful token response; raises TokenError or MalformedResponse."""
    status = response.status
    if is_temporary_status(status):
        retry_text = retry_after_text(response)
        raise MalformedResponse(
            f"{host} responded to the {step} with status {status}.",
            _RETRY_LATER_ADVICE if retry_text is None else f"Try again {retry_text}; nothing was lost.",
        )
    try:
        document = read_json_or_form(response, f"response to the {step} at {host}")
    except MalformedResponse:
        if classify_token_response(status, None, is_html=is_html_response(response)) == "unauthorized":
            document = dict[str, object]()
        else:
            raise
    verdict = classify_token_response(status, document, is_html=is_html_response(response))
    if verdict == "granted":
        return document
    raise _token_error(document, verdict, status, host, step, secrets)


def _token_error(
    document: Document, verdict: Verdict, status: int, host: str, step: str, secrets: tuple[Secret, ...]
) -> TokenError:
    error = canonical_error(error_code(document)) if has_error_member(document) else f"status {status}"
    error_text = f"unknown error (status {status})" if error == UNKNOWN_ERROR else error
    advice = _ERROR_ADVICE.get(error)
    if advice is None and verdict == "temporary":
        advice = _RETRY_LATER_ADVICE
    return TokenError(
        f"{host} refused the {step}: {error_text}.",
        error,
        advice,
        server_message=read_server_message(document, *secrets),
        verdict=verdict,
        status=status,
    )


def is_html_response(response: Response) -> bool:
    """True if the body or its media type is HTML."""
    media_type = (response.header("content-type") or "").partition(";")[0].strip().lower()
    return media_type in {"text/html", "application/xhtml+xml"} or response.body.lstrip()[:1] == b"<"
