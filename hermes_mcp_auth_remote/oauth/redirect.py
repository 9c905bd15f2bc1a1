"""Read authorization responses from untrusted text: a paste or a redirect. RFC 6749 §4.1.2, RFC 9207 §2.4.

Only `read_authorization_response` creates an AuthorizationResponse, and the token exchange accepts nothing
else. `paste` reverses the changes that a phone or a chat makes to a URL. This module then checks the redirect
URI, the state and the issuer against the login's request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote_plus, urljoin, urlsplit

from hermes_mcp_auth_remote.errors import AuthorizationDenied, PasteRefused, ProviderErrorPasted
from hermes_mcp_auth_remote.oauth.authorization import AuthorizationRequest
from hermes_mcp_auth_remote.oauth.paste import (
    MAX_PASTE_CHARS,
    Candidate,
    clean_text,
    extract_bare_code,
    extract_candidates,
)
from hermes_mcp_auth_remote.oauth.token_errors import UNKNOWN_CLIENT_ERRORS, UNKNOWN_ERROR, canonical_error
from hermes_mcp_auth_remote.oauth.urls import (
    MAX_URL_CHARS,
    host_of,
    is_loopback_host,
    is_safe_url,
    is_trusted_issuer,
    split_url,
)
from hermes_mcp_auth_remote.oauth.wire import Response, sanitize
from hermes_mcp_auth_remote.values import Secret

# A shorter text is a chat message, not a code.
MIN_BARE_CODE_CHARS = 10
# A real response has four or five; authorization servers add a few of their own.
MAX_QUERY_FIELDS = 100
# Only this much of an `error_description` is searched for a refused scope.
MAX_DESCRIPTION_CHARS = 4096

_RESPONSE_PARAMETERS = frozenset({"code", "state", "iss", "error"})
_WHOLE_ADDRESS_ADVICE = (
    "Copy the whole address from your browser's address bar, from the first to the last character."
)

# A code whose end is certain although no delimiter follows it. It consists of unreserved characters and
# escapes (RFC 3986 section 2.3), and of characters that servers leave unescaped inside a code. It contains no
# ellipsis, which would mean that a window hid a part, and no "http", which would begin a second address.
_PLAIN_CODE = re.compile(
    r"(?!.*(?:\.\.\.|http))(?:[\w.~!$*'(),:@/+=-]|%[0-9A-Fa-f]{2})*(?:[\w=/+-]|%[0-9A-Fa-f]{2})", re.ASCII
)

_CONSTRUCTION_KEY = object()


@dataclass(frozen=True, slots=True)
class AuthorizationResponse:
    """The authorization code of one request. Only this module can create one.

    `is_bare` is True if the user pasted the code alone: then only PKCE binds the code to the request.
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

    `accept_bare_code` accepts a code alone; pass it only if the sender has exactly one waiting login.
    Raises PasteRefused (the login still waits) or AuthorizationDenied (the login ends).
    """
    if len(text) > MAX_PASTE_CHARS:
        raise PasteRefused("That is far too long to be the address your browser ended on.")
    if not text.strip():
        raise PasteRefused("Nothing was pasted.")
    refusal: PasteRefused | None = None
    responses: list[AuthorizationResponse] = []
    for readings in extract_candidates(text, request.redirect_uri):
        response, error = _read_first(readings, request, text)
        refusal = refusal or error
        if isinstance(error, _UncertainCode):
            raise error
        if response is not None:
            responses.append(response)
    if len({response.code for response in responses}) > 1:
        raise _UncertainCode("That text has two addresses of this login, with different codes.")
    if responses:
        return responses[0]
    if refusal is not None:
        raise refusal
    return _read_bare_code(extract_bare_code(text), request, accept_bare_code=accept_bare_code)


def matches_state(text: str, request: AuthorizationRequest) -> bool:
    """True if a text contains this request's state, even if the text is otherwise invalid. Never raises."""
    for readings in extract_candidates(text[:MAX_PASTE_CHARS], request.redirect_uri):
        for candidate in readings:
            try:
                parameters = _read_parameters(candidate.address, request)
            except PasteRefused:
                continue
            if parameters is not None and Secret(parameters.get("state", "")) == request.state:
                return True
    return False


class _UncertainCode(PasteRefused):
    """The text does not show where the code ends. The server would refuse a wrong code and end the login."""

    advice = (
        "Copy the whole address again, and paste it alone, between double quotation marks: "
        '"http..." (they show where it ends).'
    )


def _read_first(
    readings: list[Candidate], request: AuthorizationRequest, text: str
) -> tuple[AuthorizationResponse | None, PasteRefused | None]:
    """Return the first reading that is a response to this request, or why there is none.

    If the text does not show where the code of a reading ends, that reading is not used, and the error is an
    _UncertainCode. `text` is the whole paste.
    """
    refusal: PasteRefused | None = None
    for candidate in readings:
        try:
            parameters = _read_parameters(candidate.address, request)
            if parameters is None:
                continue
            response = _check_response(parameters, request, text)
        except PasteRefused as error:
            refusal = refusal or error
            continue
        if _has_certain_code(candidate):
            return response, None
        if not isinstance(refusal, _UncertainCode):
            refusal = _UncertainCode("That address may be incomplete, or other text may follow its code.")
    return None, refusal


def _has_certain_code(candidate: Candidate) -> bool:
    """True if the text shows where the code ends: by another parameter, a delimiter, or plain characters."""
    before, mark, fragment = candidate.address.partition("#")
    query = before if "code=" in before else fragment
    path, _, after_path = query.partition("?")
    # A "?" behind the first parameter belongs to its value.
    query = query if "=" in path else after_path
    last_name, _, last_value = query.rpartition("&")[2].partition("=")
    if last_name != "code" or (mark and query is before) or candidate.end == "closed":
        return True
    return candidate.end == "visible" and _PLAIN_CODE.fullmatch(last_value) is not None


def _read_parameters(candidate: str, request: AuthorizationRequest) -> dict[str, str] | None:
    """Read the parameters of a redirect URL or of its query alone; None if the text is neither."""
    query_parts = _split_redirect(candidate, request)
    if query_parts is None:
        return None
    for part in query_parts:
        # Form rules apply (RFC 6749 appendix B): a "+" is a space, unless the server forgot to escape it.
        try:
            fields = parse_qsl(part, keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
        except ValueError:
            raise PasteRefused("That address has too many parameters.", _WHOLE_ADDRESS_ADVICE) from None
        pairs = [(name, value) for name, value in fields if name in _RESPONSE_PARAMETERS]
        if not pairs:
            continue
        if len({name for name, _ in pairs}) != len(pairs):
            # RFC 6749 section 3.1: parameters "MUST NOT be included more than once".
            raise PasteRefused("That address has a parameter twice, so it cannot be right.")
        parameters = dict(pairs)
        if "error" in parameters:
            descriptions = (value for name, value in fields if name == "error_description")
            parameters["error_description"] = next(descriptions, "")
        return parameters
    raise PasteRefused(
        "That address has no code: it is not the one your browser ended on.", _WHOLE_ADDRESS_ADVICE
    )


def _split_redirect(candidate: str, request: AuthorizationRequest) -> tuple[str, ...] | None:
    """Return query and fragment of a candidate; None if the candidate is not a URL.

    Raises PasteRefused if the URL is not the redirect URI of this request.
    """
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
    # Phones change the scheme of an unreachable loopback address to https (quirk 40).
    is_accepted_scheme = parts.scheme.lower() == expected.scheme or is_loopback_host(expected.hostname or "")
    is_same_host = parts.netloc.lower() == expected.netloc.lower()
    # A browser shows "/" if there is no path (RFC 3986 section 6.2.3).
    if is_accepted_scheme and is_same_host and (parts.path or "/") == (expected.path or "/"):
        return parts.query, parts.fragment
    if parts.netloc.lower() in _provider_netlocs(request):
        _refuse_provider_error(parts, request)
        raise PasteRefused(
            "That is an address at the provider, not the one your browser ended on.",
            f"Finish there first; the address to paste begins with {request.redirect_uri}. If the provider "
            "shows an error instead, cancel this login and begin another one.",
        )
    raise PasteRefused(
        "That address does not belong to this login.",
        f"The address to paste begins with {request.redirect_uri}.",
    )


def _split_pasted(url: str) -> SplitResult | None:
    """Split a URL; None if the text is not a URL.

    Does not raise the library's ValueError, because that quotes the paste.
    """
    try:
        parts = split_url(url)
        parts.port  # noqa: B018  raises ValueError for an invalid port
    except ValueError:
        return None
    return parts


def _check_response(
    parameters: dict[str, str], request: AuthorizationRequest, text: str
) -> AuthorizationResponse:
    state, issuer = parameters.get("state"), parameters.get("iss")
    if not state:
        if "error" in parameters and "code" not in parameters and issuer in {None, request.issuer}:
            # Some servers leave out the state if they refuse the request (quirk 53).
            raise _stateless_error(parameters, request, text)
        raise PasteRefused(
            "That address has no state, so it does not show which login it belongs to.",
            _WHOLE_ADDRESS_ADVICE,
        )
    if Secret(state) != request.state:
        raise PasteRefused(
            "That address belongs to another login, perhaps an older one.",
            "Open the link of this login, and paste the address that your browser ends on.",
        )
    # MCP 2026-07-28, RFC 9207 section 2.4: use simple string comparison, also for error responses. After a
    # mismatch, neither use nor show the error's text.
    if issuer is not None and issuer != request.issuer and not _is_trusted_issuer(issuer, request):
        # The cut may be inside a percent-encoded character.
        if request.issuer.startswith(re.sub(r"%[0-9A-Fa-f]?$", "", issuer)):
            raise PasteRefused(
                "That address is cut off in its `iss` part, or comes from another authorization server.",
                _WHOLE_ADDRESS_ADVICE,
            )
        raise PasteRefused(
            "That response comes from another authorization server than this login's.",
            "Do not continue if you did not expect that; if you trust both, add their issuers to "
            "`oauth.trusted_issuers`.",
        )
    if issuer is None and request.is_iss_required:
        raise PasteRefused(
            "That address does not say which server responded (iss), although "
            f"{host_of(request.issuer)} promises that each response does.",
            _WHOLE_ADDRESS_ADVICE,
        )
    if "error" in parameters:
        raise _denial_error(parameters, request)
    code = parameters.get("code")
    if not code:
        raise PasteRefused("That address has no code.", _WHOLE_ADDRESS_ADVICE)
    if not (code.isascii() and code.isprintable()):
        # RFC 6749 appendix A.11: a code is printable ASCII. The server would refuse any other code, and that
        # would end the login.
        raise PasteRefused("That address is damaged: its code is not valid.", _WHOLE_ADDRESS_ADVICE)
    return AuthorizationResponse(Secret(code), is_bare=False, construction_key=_CONSTRUCTION_KEY)


def _provider_netlocs(request: AuthorizationRequest) -> frozenset[str]:
    """Return host and port of the provider's pages: of the issuer and of the authorization endpoint."""
    urls = (request.authorization_endpoint, request.issuer)
    return frozenset(urlsplit(url).netloc.lower() for url in urls)


def _refuse_provider_error(parts: SplitResult, request: AuthorizationRequest) -> None:
    """Raise ProviderErrorPasted if an address of the provider's error page names an error (quirk 49)."""
    parameters = _error_parameters(parts)
    error = canonical_error(parameters.get("error", "").strip().lower())
    if error not in UNKNOWN_CLIENT_ERRORS:
        return
    client_id, state = parameters.get("client_id"), parameters.get("state")
    is_other_login = state is not None and Secret(state) != request.state
    if is_other_login or client_id not in {None, request.client.client_id}:
        return
    host = host_of(request.issuer)
    if request.client.is_registered:
        advice = "Cancel this login and begin another one: it registers a new client."
    else:
        advice = "Check `oauth.client_id` of this server, or remove it so that a client is registered."
    raise ProviderErrorPasted(f"{host} does not know this login's client ({error}).", advice, error=error)


def names_unknown_client(response: Response, request: AuthorizationRequest) -> bool:
    """True if a redirect of the authorization page says that the server does not know the client.

    Such a server redirects to an error page of its own, or to the redirect URI (quirk 49). Never raises.
    """
    location = response.header("location")
    if not 300 <= response.status < 400 or location is None:
        return False
    try:
        parts = split_url(urljoin(request.authorization_endpoint, location[: MAX_URL_CHARS + 1]))
    except ValueError:
        return False
    netlocs = {*_provider_netlocs(request), urlsplit(request.redirect_uri).netloc.lower()}
    error = canonical_error(_error_parameters(parts).get("error", "").strip().lower())
    return parts.netloc.lower() in netlocs and error in UNKNOWN_CLIENT_ERRORS


def _error_parameters(parts: SplitResult) -> dict[str, str]:
    """Read the parameters of a provider's page: of its query, and of its fragment (a single-page app)."""
    parameters: dict[str, str] = {}
    for part in (parts.fragment.rpartition("?")[2], parts.query):
        try:
            parameters |= dict(parse_qsl(part, max_num_fields=MAX_QUERY_FIELDS))
        except ValueError:
            continue
    return parameters


def _stateless_error(
    parameters: dict[str, str], request: AuthorizationRequest, text: str
) -> ProviderErrorPasted:
    error = canonical_error(parameters["error"].strip().lower())
    description = _read_description(text) or parameters.get("error_description", "")
    named_scope = frozenset(re.findall(r"[!#-\[\]-~]+", description[:MAX_DESCRIPTION_CHARS]))
    named_scope |= frozenset(word.strip(".,;'()") for word in named_scope)
    host = host_of(request.issuer)
    error_text = "an error that is in no standard" if error == UNKNOWN_ERROR else error
    return ProviderErrorPasted(
        f"{host} refused a login: {error_text}. The address has no state, so it may be another login's.",
        _DENIAL_ADVICE.get(error, "Cancel this login and begin another one."),
        error=error,
        server_message=_provider_message(parameters["error"], description, request),
        refused_scope=(request.scope or frozenset()) & named_scope
        if error == "invalid_scope"
        else frozenset(),
    )


# Some browsers copy an address with unescaped spaces. So white space and curly single quotes do not end the
# description. The other characters that `paste` excludes end it.
_DESCRIPTION = re.compile(r"[?&#]error_description=([^&#<>\"`“”]*)")


def _read_description(text: str) -> str:
    """Return the `error_description` of a pasted address, even if it contains unescaped spaces."""
    match = _DESCRIPTION.search(clean_text(text[:MAX_PASTE_CHARS]))
    return "" if match is None else unquote_plus(match[1])


def _provider_message(error: str, description: str, request: AuthorizationRequest, *codes: str | None) -> str:
    """Return the provider's own words about an error, with the secrets of the login masked."""
    secrets = (request.state, request.code_verifier, *(Secret(code) for code in codes if code))
    vendor_error = error if canonical_error(error.strip().lower()) == UNKNOWN_ERROR else ""
    parts = (sanitize(part, *secrets) for part in (vendor_error, description))
    return ": ".join(part for part in parts if part)


def _is_trusted_issuer(issuer: str, request: AuthorizationRequest) -> bool:
    return is_safe_url(issuer) and is_trusted_issuer(issuer, request.issuer, request.trusted_issuers)


_DENIAL_ADVICE = {
    "invalid_scope": (
        "Set `oauth.scope` for this server to scopes that the provider offers, then log in again."
    ),
    "invalid_target": "Set `oauth.resource` for this server to what the provider expects, or to false.",
    "temporarily_unavailable": "Try again in a few minutes.",
    "server_error": "Try again in a few minutes.",
    "invalid_client": "Begin a new login: it registers a new client, unless you set `oauth.client_id`.",
    "unauthorized_client": "Begin a new login: it registers a new client, unless you set `oauth.client_id`.",
}


def _denial_error(parameters: dict[str, str], request: AuthorizationRequest) -> AuthorizationDenied:
    server_message = _provider_message(
        parameters["error"], parameters.get("error_description", ""), request, parameters.get("code")
    )
    error, host = canonical_error(parameters["error"]), host_of(request.issuer)
    if error == "access_denied":
        return AuthorizationDenied(f"Access was denied at {host}.", error, server_message=server_message)
    error_text = "one that is in no standard" if error == UNKNOWN_ERROR else error
    return AuthorizationDenied(
        f"{host} responded to the login with an error: {error_text}.",
        error,
        _DENIAL_ADVICE.get(error),
        server_message=server_message,
    )


def _read_bare_code(
    text: str, request: AuthorizationRequest, *, accept_bare_code: bool
) -> AuthorizationResponse:
    # Some pages show "code#state" for the user to copy.
    code, separator, state = text.partition("#")
    is_plausible = re.fullmatch(rf"[!-~]{{{MIN_BARE_CODE_CHARS},}}", code) and not re.search(
        r"://|&|\?", code
    )
    if not is_plausible or "#" in state:
        raise PasteRefused("That is not the address your browser ended on.")
    if separator and Secret(state) != request.state:
        raise PasteRefused("That code belongs to another login, perhaps an older one.")
    if not separator and not accept_bare_code:
        raise PasteRefused("A code alone does not say which login it belongs to.", _WHOLE_ADDRESS_ADVICE)
    if request.is_iss_required:
        # RFC 9207: if the server's metadata promises `iss`, the client must check it. A bare code has none.
        raise PasteRefused(
            f"For {host_of(request.issuer)} the code alone is not enough: the whole address also says which "
            "server responded.",
            _WHOLE_ADDRESS_ADVICE,
        )
    return AuthorizationResponse(Secret(code), is_bare=not separator, construction_key=_CONSTRUCTION_KEY)
