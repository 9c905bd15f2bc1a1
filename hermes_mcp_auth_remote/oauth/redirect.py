"""The door for hostile text: a paste or a redirect -> AuthorizationResponse. RFC 6749 §4.1.2, RFC 9207 §2.4.

Everything that claims to be an authorization response comes through `read_authorization_response`, and the
token exchange accepts nothing else. What a phone or a chat does to a URL on the way is undone by `paste`;
what is then read must carry this login's redirect URI, state and issuer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, urlsplit

from hermes_mcp_auth_remote.errors import AuthorizationDenied, PasteRefused
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.paste import MAX_PASTE_CHARS, extract_bare_code, extract_candidates
from hermes_mcp_auth_remote.oauth.token_errors import UNKNOWN_ERROR, canonical_error
from hermes_mcp_auth_remote.oauth.urls import (
    host_of,
    is_loopback_host,
    is_safe_url,
    is_trusted_issuer,
    split_url,
)
from hermes_mcp_auth_remote.values import Secret

# Shorter words are typing, not codes.
MIN_BARE_CODE_CHARS = 10
# An honest one has four or five; providers add a few of their own.
MAX_QUERY_FIELDS = 100

_RESPONSE_PARAMETERS = frozenset({"code", "state", "iss", "error"})
_WHOLE_ADDRESS_ADVICE = (
    "Copy the whole address from your browser's address bar, from the first to the last character."
)

_CONSTRUCTION_KEY = object()


@dataclass(frozen=True, slots=True)
class AuthorizationResponse:
    """A code that came back for one request. Only this module can make one.

    `is_bare` is True where a person pasted the code alone: then PKCE is all that binds it.
    """

    code: Secret
    is_bare: bool
    construction_key: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.construction_key is not _CONSTRUCTION_KEY:
            message = "an AuthorizationResponse only comes out of read_authorization_response"
            raise TypeError(message)


def read_authorization_response(
    text: str, request: AuthorizationRequest, *, accept_bare_code: bool = False
) -> AuthorizationResponse:
    """Read a pasted or received redirect URL for one request.

    `accept_bare_code` lets a code alone pass; give it only where its sender has exactly one waiting login.
    Raises PasteRefused, after which the login still waits, or AuthorizationDenied, which ends it.
    """
    if len(text) > MAX_PASTE_CHARS:
        raise PasteRefused("That is far too long to be the address your browser ended on.")
    if not text.strip():
        raise PasteRefused("Nothing was pasted.")
    refusal: PasteRefused | None = None
    for candidate in extract_candidates(text, urlsplit(request.redirect_uri).netloc):
        try:
            found = _read_parameters(candidate, request)
            if found is not None:
                return _check_response(found, request)
        except PasteRefused as error:
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    return _read_bare_code(extract_bare_code(text), request, accept_bare_code=accept_bare_code)


def matches_state(text: str, request: AuthorizationRequest) -> bool:
    """True where a text carries this request's state, whatever else is wrong with it. Never raises."""
    for candidate in extract_candidates(text[:MAX_PASTE_CHARS], urlsplit(request.redirect_uri).netloc):
        try:
            found = _read_parameters(candidate, request)
        except PasteRefused:
            continue
        if found is not None and Secret(found.get("state", "")) == request.state:
            return True
    return False


def _read_parameters(candidate: str, request: AuthorizationRequest) -> dict[str, str] | None:
    """Read the parameters of a redirect URL or of its query alone; None where it is neither."""
    where = _split_redirect(candidate, request)
    if where is None:
        return None
    for part in where:
        # A code may hold "+" unescaped only by a server's mistake; the form rules apply (RFC 6749 App. B).
        try:
            fields = parse_qsl(part, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
        except ValueError:
            raise PasteRefused(
                "That address carries more than any answer does.", _WHOLE_ADDRESS_ADVICE
            ) from None
        pairs = [(name, value) for name, value in fields if name in _RESPONSE_PARAMETERS]
        if not pairs:
            continue
        if len({name for name, _ in pairs}) != len(pairs):
            # RFC 6749 section 3.1: parameters "MUST NOT be included more than once".
            raise PasteRefused("That address carries a parameter twice; no honest one does.")
        return dict(pairs)
    raise PasteRefused(
        "That address carries no code: it is not the one your browser ended on.", _WHOLE_ADDRESS_ADVICE
    )


def _split_redirect(candidate: str, request: AuthorizationRequest) -> tuple[str, ...] | None:
    """Return query and fragment of a candidate that is this request's redirect URI, None if it is no URL."""
    expected = urlsplit(request.redirect_uri)
    if re.match(r"(?i)https?://", candidate):
        url = candidate
    elif candidate.lower().startswith(expected.netloc.lower() + "/"):
        # Phones hide the scheme.
        url = f"{expected.scheme}://{candidate}"
    elif re.match(r"[?#&]?(?:code|state|iss|error)=", candidate):
        return (candidate.lstrip("?#&"),)
    elif candidate.startswith("/") and "?" in candidate:
        url = f"{expected.scheme}://{expected.netloc}{candidate}"
    else:
        return None
    parts = _split_pasted(url)
    if parts is None:
        raise PasteRefused("That is not an address.", _WHOLE_ADDRESS_ADVICE)
    # Phones also put https in front of a loopback address that they cannot reach (quirk 40).
    same_scheme = parts.scheme.lower() == expected.scheme or is_loopback_host(expected.hostname or "")
    same_place = parts.netloc.lower() == expected.netloc.lower()
    # A browser shows "/" where there is no path (RFC 3986 section 6.2.3).
    if same_scheme and same_place and (parts.path or "/") == (expected.path or "/"):
        return parts.query, parts.fragment
    asked = urlsplit(request.authorization_endpoint)
    if parts.netloc.lower() == asked.netloc.lower():
        raise PasteRefused(
            "That is an address at the provider, not the one your browser ended on.",
            f"Finish there first; the address to paste begins with {request.redirect_uri}.",
        )
    raise PasteRefused(
        "That address belongs to no login that waits here.",
        f"The address to paste begins with {request.redirect_uri}.",
    )


def _split_pasted(url: str) -> SplitResult | None:
    """Split a URL; None if it is none. The library's ValueError quotes it, and a paste stands in no error."""
    try:
        parts = split_url(url)
        parts.port  # noqa: B018  raises ValueError for a port that is none
    except ValueError:
        return None
    return parts


def _check_response(parameters: dict[str, str], request: AuthorizationRequest) -> AuthorizationResponse:
    state, issuer = parameters.get("state"), parameters.get("iss")
    if not state:
        raise PasteRefused(
            "That address carries no state, so it cannot be told whose login it is.", _WHOLE_ADDRESS_ADVICE
        )
    if Secret(state) != request.state:
        raise PasteRefused(
            "That address belongs to another login, perhaps an older one.",
            "Open the link that is shown for this login, and paste where that one ends.",
        )
    # MCP 2026-07-28, RFC 9207 section 2.4: simple string comparison, for errors too, and on a mismatch the
    # error's text is neither acted on nor shown.
    if issuer is not None and issuer != request.issuer and not _is_trusted_issuer(issuer, request):
        raise PasteRefused(
            "That answer comes from another authorization server than the one that was asked.",
            "Do not continue if you did not expect that; if you trust both, their issuers belong into "
            "`oauth.trusted_issuers`.",
        )
    if issuer is None and request.is_iss_required:
        raise PasteRefused(
            f"{host_of(request.issuer)} promises to say who it is (iss), and that address does not.",
            _WHOLE_ADDRESS_ADVICE,
        )
    if "error" in parameters:
        raise _denial_error(parameters, request)
    code = parameters.get("code")
    if not code:
        raise PasteRefused("That address carries no code.", _WHOLE_ADDRESS_ADVICE)
    if not (code.isascii() and code.isprintable()):
        # RFC 6749 appendix A.11: a code is printable ASCII. Sending anything else would only end the login.
        raise PasteRefused("That address was damaged on its way: its code is none.", _WHOLE_ADDRESS_ADVICE)
    return AuthorizationResponse(Secret(code), is_bare=False, construction_key=_CONSTRUCTION_KEY)


def _is_trusted_issuer(issuer: str, request: AuthorizationRequest) -> bool:
    return is_safe_url(issuer) and is_trusted_issuer(issuer, request.issuer, request.trusted_issuers)


def _denial_error(parameters: dict[str, str], request: AuthorizationRequest) -> AuthorizationDenied:
    error = parameters["error"]
    # Whoever wrote the address may have put a secret here, too.
    secrets = (request.state.reveal(), parameters.get("code"))
    words = "" if any(s and s in error for s in secrets) else error
    error = canonical_error(error)
    host = host_of(request.issuer)
    if error == "access_denied":
        return AuthorizationDenied(f"Access was denied at {host}.", error)
    advice = {
        "invalid_scope": "Set `oauth.scope` for this server to what the provider offers, then log in again.",
        "invalid_target": "Set `oauth.resource` for this server to what the provider expects, or to false.",
        "temporarily_unavailable": "Try again in a few minutes.",
        "server_error": "Try again in a few minutes.",
    }.get(error)
    said = "one that no standard lists" if error == UNKNOWN_ERROR else error
    return AuthorizationDenied(
        f"{host} answered the login with an error: {said}.",
        error,
        advice,
        server_message=words if error == UNKNOWN_ERROR else "",
    )


def _read_bare_code(
    text: str, request: AuthorizationRequest, *, accept_bare_code: bool
) -> AuthorizationResponse:
    # Some pages show "code#state" for copying.
    code, separator, state = text.partition("#")
    plausible = re.fullmatch(rf"[!-~]{{{MIN_BARE_CODE_CHARS},}}", code) and not re.search(r"://|&|\?", code)
    if not plausible or "#" in state:
        raise PasteRefused("That is not the address your browser ended on.")
    if separator and Secret(state) != request.state:
        raise PasteRefused("That code belongs to another login, perhaps an older one.")
    if not separator and not accept_bare_code:
        raise PasteRefused("A code alone does not say which login it belongs to.", _WHOLE_ADDRESS_ADVICE)
    if request.is_iss_required:
        # RFC 9207: a server that promises iss is held to it, and a code alone carries none.
        raise PasteRefused(
            f"For {host_of(request.issuer)} the code alone is not enough: the whole address also says who "
            "answered.",
            _WHOLE_ADDRESS_ADVICE,
        )
    return AuthorizationResponse(Secret(code), is_bare=not separator, construction_key=_CONSTRUCTION_KEY)
