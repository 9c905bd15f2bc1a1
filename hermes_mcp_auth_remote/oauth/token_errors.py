"""What a token endpoint's response means if it grants nothing. RFC 6749 §5.2, RFC 8628 §3.5.

`classify_token_response` is the whole rule. Servers say that a refresh token is dead in many ways: GitHub
with a 200 and a code of its own, Slack with `ok: false`, others with a bare 401. And a gateway before a
healthy server can answer anything: so the status counts first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, cast

from hermes_mcp_auth_remote.errors import MalformedResponse, TokenError
from hermes_mcp_auth_remote.oauth.wire import Document, Response, read_json_or_form, sanitize
from hermes_mcp_auth_remote.values import Secret

Verdict = Literal["granted", "passing", "ours", "unauthorized", "final"]
"""What a token endpoint's response means for the grant that was sent: see `classify_token_response`."""

# RFC 6749 sections 4.1.2.1 and 5.2, RFC 7009, RFC 7591, RFC 8628, RFC 8707, RFC 9126, RFC 9449, RFC 9470, and
# OpenID Connect Core section 3.1.2.6. These may stand in a message; any other code is the server's own words.
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
# What GitHub, Slack and Microsoft say instead, as their documentation lists it.
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
# The server may say otherwise in a minute. "ratelimited" is Slack's spelling; use_dpop_nonce comes here only
# after a nonce was sent, and the next request sends the newer one (RFC 9449 section 8).
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
# Our request was wrong, by a setting or a clock: that says nothing of the refresh token.
BAD_REQUEST_ERRORS = frozenset(
    {"unsupported_grant_type", "invalid_scope", "invalid_target", "invalid_dpop_proof"}
)
KNOWN_ERRORS = _STANDARD_ERRORS | TEMPORARY_ERRORS | _VENDOR_ERROR_NAMES.keys()
UNKNOWN_ERROR = "unknown error"

_RETRY_LATER_ADVICE = "Try again later; nothing was lost."
_ERROR_ADVICE = {
    "invalid_grant": "Begin a new login; a code is good once and for about a minute.",
    "invalid_client": (
        "The provider no longer knows this client: begin a new login to register again, or check "
        "`oauth.client_id` and `oauth.client_secret` if you configured them."
    ),
    "invalid_target": "Set `oauth.resource` for this server to the value the provider expects, or to false.",
    "invalid_scope": "Set `oauth.scope` for this server to what the provider offers.",
    "invalid_dpop_proof": (
        "Set `oauth.dpop: true` for this server and log in again; if it is set, check this machine's clock."
    ),
}


def classify_token_response(status: int, document: Document | None, *, is_html: bool = False) -> Verdict:
    """Say what a token endpoint's response means for the refresh token, or the code, that was sent.

    `document` is the parsed JSON object or form, None if the body is neither; `is_html` is True if the body
    or its media type says HTML. The status counts first, because a gateway may put anything into a body.

    - "granted": a 2xx without an error.
    - "passing": the server or something before it is not well; the same request may succeed later.
    - "ours": the request was wrong; the refresh token is as good as before.
    - "unauthorized": a 401 that says nothing; final only if it lasts.
    - "final": the same request will never succeed.
    """
    body = document or {}
    code, has_error = error_code(body), has_error_member(body)
    if 200 <= status < 300 and document is not None and not has_error:
        return "granted"
    # A gateway's `{"error": "Not Found"}` is no OAuth error; PHP sends JSON as text/html.
    is_of_gateway = (is_html or status in {403, 404}) and code not in KNOWN_ERRORS
    if is_temporary_status(status) or is_of_gateway or code in TEMPORARY_ERRORS:
        return "passing"
    if code in BAD_REQUEST_ERRORS:
        return "ours"
    if has_error:
        return "final"
    return "unauthorized" if status == 401 else "passing"


def is_temporary_status(status: int) -> bool:
    """True for a status that says nothing lasting, whatever the body says: 408, 429, 5xx, a redirect."""
    return status in {408, 429} or status >= 500 or 300 <= status < 400


def has_error_member(document: Document) -> bool:
    """True if a response says that it failed: by `error`, or by `ok: false` as Slack does."""
    return bool(document.get("error")) or document.get("ok") is False


def error_code(document: Document) -> str | None:
    """Return the `error` of a response in lower case, None without one; some servers nest it in an object."""
    error = document.get("error")
    if isinstance(error, Mapping):
        nested = cast("Document", error)
        error = next((nested[name] for name in ("code", "type", "error") if nested.get(name)), None)
    return error.strip().lower() if isinstance(error, str) and error.strip() else None


def canonical_error(code: str | None) -> str:
    """Return the standard's name of an error code; "unknown error" for a code that is in no list of ours."""
    if code is None or code not in KNOWN_ERRORS:
        return UNKNOWN_ERROR
    return _VENDOR_ERROR_NAMES.get(code, code)


def read_server_message(document: Document, *secrets: Secret) -> str:
    """Return what an error response says beyond a code that we know; the secrets are masked."""
    error = document.get("error")
    nested: Document = cast("Document", error) if isinstance(error, Mapping) else {}
    code = error_code(document)
    own = code if code is not None and canonical_error(code) != code else ""
    said = document.get("error_description") or nested.get("message") or nested.get("error_description")
    words = (own, said, document.get("error_uri"))
    return ": ".join(each for each in (sanitize(word, *secrets) for word in words) if each)


def read_granted_document(response: Response, host: str, step: str, secrets: tuple[Secret, ...]) -> Document:
    """Return what a token endpoint granted; raises TokenRefused or UnreadableAnswer."""
    status = response.status
    if is_temporary_status(status):
        raise MalformedResponse(f"{host} answered the {step} with status {status}.", _RETRY_LATER_ADVICE)
    try:
        document = read_json_or_form(response, f"answer to the {step} at {host}")
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
    said = f"an error of its own (status {status})" if error == UNKNOWN_ERROR else error
    advice = _ERROR_ADVICE.get(error)
    if advice is None and verdict == "passing":
        advice = _RETRY_LATER_ADVICE
    return TokenError(
        f"{host} refused the {step}: {said}.",
        error,
        advice,
        server_message=read_server_message(document, *secrets),
        verdict=verdict,
    )


def is_html_response(response: Response) -> bool:
    """True if the body or its media type says HTML."""
    media_type = (response.header("content-type") or "").partition(";")[0].strip().lower()
    return media_type in {"text/html", "application/xhtml+xml"} or response.body.lstrip()[:1] == b"<"
