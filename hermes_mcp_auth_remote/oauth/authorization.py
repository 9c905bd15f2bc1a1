"""Scope, code_challenge, resource -> authorization URL. RFC 6749 §4.1.1, RFC 7636, RFC 8707, RFC 9126."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit, urlunsplit

from hermes_mcp_auth_remote.errors import MalformedResponse, NetworkError, PkceNotSupported, TokenError
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client, Signer, authenticate_client, try_auth_methods
from hermes_mcp_auth_remote.oauth.jws import base64url_encode
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer, Discovery, ProtectedResource
from hermes_mcp_auth_remote.oauth.token_errors import (
    UNKNOWN_ERROR,
    canonical_error,
    error_code,
    read_server_message,
)
from hermes_mcp_auth_remote.oauth.urls import canonical_resource, host_of, safe_url
from hermes_mcp_auth_remote.oauth.wire import (
    Exchange,
    Request,
    Response,
    format_scope,
    parse_scope,
    parse_seconds,
    post_form,
    read_json_object,
    retry_after_text,
    string_member,
)
from hermes_mcp_auth_remote.values import Secret

PUSHED_REQUEST_STEP = "pushed authorization request"
STATE_BYTES = 32  # 256 bits; security best practice asks for 128 at least
CODE_VERIFIER_BYTES = 48  # 64 characters, of the 43 to 128 that RFC 7636 section 4.1 allows
# A shorter lifetime leaves the user no time to pick up a phone (RFC 9126 section 2.2 suggests 5 to 600 s).
MIN_PUSHED_LIFETIME_SECONDS = 120


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """One authorization request, with all values that its response is checked against.

    `issuer` is recorded before the redirect (RFC 9207 section 2.4). `lifetime_seconds` is set if the server
    limits the lifetime of `url` (a pushed request). `uses_dpop` is True if the client asks for tokens that
    are bound to a key.
    """

    url: str = field(repr=False)
    state: Secret
    code_verifier: Secret
    redirect_uri: str
    client: Client
    issuer: str
    is_iss_required: bool
    token_endpoint: str
    authorization_endpoint: str
    resource: str | None
    scope: frozenset[str] | None
    trusted_issuers: frozenset[str] = frozenset()
    lifetime_seconds: float | None = None
    uses_dpop: bool = False


def code_challenge(code_verifier: Secret) -> str:
    """Derive the S256 code_challenge: BASE64URL(SHA256(ASCII(code_verifier))) (RFC 7636 section 4.2)."""
    digest = hashlib.sha256(code_verifier.reveal().encode("ascii")).digest()
    return base64url_encode(digest)


def nonce_for(code_verifier: Secret) -> str:
    """Derive the `nonce` of a login, which its ID token repeats (OpenID Connect Core section 3.1.2.1)."""
    return base64url_encode(hashlib.sha256(f"nonce {code_verifier.reveal()}".encode("ascii")).digest())


def check_pkce(authorization_server: AuthorizationServer, *, allow_missing_pkce: bool = False) -> None:
    """Raise PkceNotSupported if the server does not advertise S256.

    MCP 2026-07-28: if `code_challenge_methods_supported` is absent, "MCP clients MUST refuse to proceed".
    """
    methods = authorization_server.code_challenge_methods_supported
    if (methods is None or "S256" not in methods) and not allow_missing_pkce:
        verb_phrase = "does not say that it supports" if methods is None else "does not support"
        raise PkceNotSupported(
            f"{host_of(authorization_server.issuer)} {verb_phrase} PKCE with S256, which protects the code."
        )


def select_scope(
    discovery: Discovery,
    challenge: Challenge,
    *,
    configured_scope: frozenset[str] | None = None,
    granted_scope: frozenset[str] = frozenset(),
    needed_scope: frozenset[str] = frozenset(),
    scope_cap: frozenset[str] | None = None,
) -> frozenset[str] | None:
    """Select the scope to request, or None to send no `scope` parameter.

    Starts with the first of these that is set: the configured scope, the challenge's scope, and
    `scopes_supported` of the protected resource. Adds `granted_scope` (for a step-up) and the `needed_scope`
    of an earlier challenge. Adds `offline_access` if the authorization server lists it and no scope is
    configured. Never requests all `scopes_supported` of the authorization server (quirk 26), and never more
    than `scope_cap`.
    """
    resource = discovery.protected_resource
    supported_scope = parse_scope(" ".join(resource.scopes_supported or ())) if resource else None
    base_scope = configured_scope or challenge.scope or supported_scope
    if configured_scope and challenge.has_insufficient_scope:
        base_scope = configured_scope | (challenge.scope or frozenset())
    scope = (base_scope or frozenset()) | granted_scope | needed_scope
    if not scope:
        return None
    # Do not add `offline_access` to a scope that the operator configured.
    if not configured_scope and "offline_access" in (discovery.authorization_server.scopes_supported or ()):
        scope |= {"offline_access"}
    # The cap applies last, so that nothing is added afterwards. Without `scope`, the server grants its
    # default, which may be wider than the cap.
    return scope if scope_cap is None else (scope & scope_cap or scope_cap)


def select_resource(
    server_url: str,
    protected_resource: ProtectedResource | None,
    override: str | Literal[False] | None = None,
) -> str | None:
    """Select the `resource` parameter: the operator's value, else the metadata's, else the server's URL."""
    if override is False:
        return None
    if override:
        return override
    # RFC 8707 section 2: a resource "SHOULD NOT include a query component". A query may also contain a key.
    return (
        protected_resource.resource
        if protected_resource
        else canonical_resource(server_url).partition("?")[0]
    )


def authorization_request(  # noqa: PLR0913
    authorization_server: AuthorizationServer,
    client: Client,
    *,
    redirect_uri: str,
    state: Secret,
    code_verifier: Secret,
    scope: frozenset[str] | None = None,
    resource: str | None = None,
    extra_parameters: Mapping[str, str] | None = None,
    trusted_issuers: frozenset[str] = frozenset(),
) -> AuthorizationRequest:
    """Build the authorization request (RFC 6749 section 4.1.1) with PKCE, state and resource."""
    parameters: dict[str, str] = {
        "response_type": "code",
        "client_id": client.client_id,
        "redirect_uri": redirect_uri,
        "state": state.reveal(),
        "code_challenge": code_challenge(code_verifier),
        "code_challenge_method": "S256",
    }
    if scope:
        parameters["scope"] = format_scope(scope)
        if "offline_access" in scope and authorization_server.is_openid:
            # OpenID Connect Core section 11: offline_access is ignored without consent.
            parameters["prompt"] = "consent"
        if "openid" in scope:
            parameters["nonce"] = nonce_for(code_verifier)
    if resource is not None:
        parameters["resource"] = resource
    # An operator may add parameters, but not replace those that protect the login.
    parameters = {
        **parameters,
        **{k: v for k, v in (extra_parameters or {}).items() if k not in _RESERVED_PARAMETERS},
    }
    return AuthorizationRequest(
        url=_with_query(authorization_server.authorization_endpoint, parameters),
        state=state,
        code_verifier=code_verifier,
        redirect_uri=redirect_uri,
        client=client,
        issuer=authorization_server.issuer,
        is_iss_required=authorization_server.authorization_response_iss_parameter_supported,
        token_endpoint=authorization_server.token_endpoint,
        authorization_endpoint=authorization_server.authorization_endpoint,
        resource=resource,
        scope=scope,
        trusted_issuers=trusted_issuers,
    )


_RESERVED_PARAMETERS = frozenset(
    {
        "response_type",
        "client_id",
        "redirect_uri",
        "state",
        "code_challenge",
        "code_challenge_method",
        # A request object replaces all parameters above (RFC 9101 section 5).
        "request",
        "request_uri",
    }
)


def _with_query(url: str, parameters: Mapping[str, str]) -> str:
    # RFC 6749 section 3.1: the endpoint's own query "MUST be retained when adding additional parameters", and
    # parameters "MUST NOT be included more than once". An endpoint with its own redirect_uri is hostile.
    parts = urlsplit(url)
    our_names = _RESERVED_PARAMETERS | parameters.keys()
    other_pairs = (
        pair for pair in parts.query.split("&") if unquote_plus(pair.partition("=")[0]) not in our_names
    )
    query = "&".join(part for part in (*other_pairs, urlencode(parameters)) if part)
    return safe_url(urlunsplit(parts._replace(query=query, fragment="")), "authorization URL")


def push_request(
    authorization_server: AuthorizationServer,
    request: AuthorizationRequest,
    *,
    sign: Signer | None = None,
    fatal_errors: frozenset[str] = frozenset({"invalid_client"}),
) -> Exchange[AuthorizationRequest]:
    """Push the request if the server supports that (RFC 9126); otherwise return it unchanged.

    A pushed request hides its parameters from the browser, protects them from change, and has a URL short
    enough for a QR code. If the server does not require pushed requests, a failed push or a short lifetime
    leaves the request unchanged, except for an error in `fatal_errors`. If the server refuses the client's
    authentication method, tries the other one once; the returned request's client has the method that
    worked. Raises MalformedResponse, TokenError or a NetworkError.
    """
    if authorization_server.pushed_authorization_request_endpoint is None:
        return request
    required = authorization_server.require_pushed_authorization_requests
    secrets = tuple(s for s in (request.state, request.client.client_secret) if s is not None)

    def attempt(client: Client) -> Exchange[tuple[str, float]]:
        pushed = replace(request, client=client)
        response = yield pushed_authorization_request(authorization_server, pushed, sign=sign)
        return read_pushed_response(response, secrets)

    try:
        (request_uri, lifetime_seconds), client = yield from try_auth_methods(request.client, attempt)
    except (MalformedResponse, TokenError, NetworkError) as error:
        # The server would refuse an unknown client later, on a page that the user sees.
        if required or (isinstance(error, TokenError) and error.error in fatal_errors):
            raise
        return request
    request = replace(request, client=client)
    if lifetime_seconds < MIN_PUSHED_LIFETIME_SECONDS and not required:
        return request
    url = _with_query(
        authorization_server.authorization_endpoint,
        {"client_id": request.client.client_id, "request_uri": request_uri},
    )
    return replace(request, url=url, lifetime_seconds=lifetime_seconds or None)


def pushed_authorization_request(
    authorization_server: AuthorizationServer, request: AuthorizationRequest, *, sign: Signer | None = None
) -> Request:
    """Build the POST that pushes the request's parameters (RFC 9126 section 2.1)."""
    endpoint = authorization_server.pushed_authorization_request_endpoint or ""
    pairs: dict[str, str] = dict(parse_qsl(urlsplit(request.url).query))
    form, headers = authenticate_client(request.client, authorization_server.issuer, pairs, sign=sign)
    return post_form(endpoint, PUSHED_REQUEST_STEP, form, headers)


def read_pushed_response(response: Response, secrets: tuple[Secret, ...] = ()) -> tuple[str, float]:
    """Read the request_uri and its lifetime in seconds, 0 for unknown (RFC 9126 section 2.2).

    Raises TokenError or MalformedResponse, with `secrets` masked in the server's message.
    """
    if response.status == 429 or response.status >= 500:
        raise MalformedResponse(
            f"The {PUSHED_REQUEST_STEP} was answered with status {response.status}.",
            f"Try again {retry_after_text(response) or 'later'}; nothing was lost.",
        )
    if not response.ok:
        raise _push_error(response, secrets)
    document = read_json_object(response.body, f"response to the {PUSHED_REQUEST_STEP}")
    uri = string_member(document, "request_uri")
    if uri is None:
        raise MalformedResponse(f"The response to the {PUSHED_REQUEST_STEP} has no request_uri.")
    return uri, parse_seconds(document.get("expires_in")) or 0.0


def _push_error(response: Response, secrets: tuple[Secret, ...]) -> TokenError:
    status = response.status
    try:
        document = read_json_object(response.body, PUSHED_REQUEST_STEP)
    except MalformedResponse:
        # If the body is empty or not JSON, only the status says what happened (quirk 57).
        document = dict[str, object]()
    code = error_code(document)
    error = f"status {status}" if code is None else canonical_error(code)
    error_text = f"unknown error (status {status})" if error == UNKNOWN_ERROR else error
    advice: str | None = None
    if code is None or error in {UNKNOWN_ERROR, "invalid_target", "invalid_request"}:
        advice = (
            "The provider may refuse the parameter `resource`: set `oauth.resource: false` for this server, "
            "then log in again."
        )
    return TokenError(
        f"The {PUSHED_REQUEST_STEP} was refused: {error_text}.",
        error,
        advice,
        server_message=read_server_message(document, *secrets),
        status=status,
    )
