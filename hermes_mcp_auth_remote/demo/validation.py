"""Validate authorization requests and clients. RFC 6749 §2.3, §4.1.1; RFC 7636; RFC 8707."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from hmac import compare_digest
from urllib.parse import parse_qsl, unquote_plus, urlsplit

from hermes_mcp_auth_remote.demo.behaviour import Behaviour
from hermes_mcp_auth_remote.demo.ledger import DemoClient, OAuthError, ValidatedRequest
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT
from hermes_mcp_auth_remote.oauth.urls import is_loopback_host

MAX_FORM_FIELDS = 100


class UnredirectableRequest(Exception):
    """An authorization request with an untrusted redirect URI: show an error page, do not redirect."""


class RedirectableError(Exception):
    """An error that the server sends with a redirect (RFC 6749 section 4.1.2.1)."""

    def __init__(self, redirect_uri: str, state: str | None, error: str, description: str) -> None:
        super().__init__(f"{error}: {description}")
        self.redirect_uri = redirect_uri
        self.state = state
        self.error = error
        self.description = description


def read_form(content_type: str, body: bytes) -> dict[str, str]:
    """Read a form. Raises OAuthError for another media type or a repeated parameter."""
    if content_type.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise OAuthError("invalid_request", "The body must be application/x-www-form-urlencoded.")
    try:
        pairs = parse_qsl(body.decode("utf-8"), keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS)
    except ValueError:
        raise OAuthError("invalid_request", "The body is not a form.") from None
    return reject_duplicates(pairs)


def reject_duplicates(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Return the parameters without empty ones. Raises OAuthError for a repeated one.

    RFC 6749 section 3.2: "parameters MUST NOT be included more than once", and the server treats an empty
    parameter as omitted.
    """
    if len({name for name, _ in pairs}) != len(pairs):
        raise OAuthError("invalid_request", "A parameter is given more than once.")
    return {name: value for name, value in pairs if value}


def authenticate_client(
    clients: Mapping[str, DemoClient],
    form: Mapping[str, str],
    authorization: str | None,
    behaviour: Behaviour,
) -> DemoClient:
    """Find and authenticate the client (RFC 6749 section 2.3). Raises OAuthError.

    The method must be the client's registered method, and the server must support it.
    """
    client_id, secret, method = form.get("client_id"), form.get("client_secret"), "none"
    if authorization is not None:
        if secret is not None:
            raise OAuthError("invalid_request", "The client authenticates in two ways at once.")
        basic_id, secret = _read_basic(authorization)
        if client_id not in {None, basic_id}:
            raise OAuthError("invalid_request", "The client_id is not the one that authenticates.")
        client_id, method = basic_id, "client_secret_basic"
    elif secret is not None:
        method = "client_secret_post"
    client = clients.get(client_id or "")
    if client is None:
        raise OAuthError("invalid_client", "The client is unknown.", 401)
    if method != client.auth_method or method not in behaviour.auth_methods:
        raise OAuthError("invalid_client", f"The client does not authenticate with {method} here.", 401)
    if client.secret is not None and not compare_digest((secret or "").encode(), client.secret.encode()):
        raise OAuthError("invalid_client", "The client secret is wrong.", 401)
    return client


def _read_basic(authorization: str) -> tuple[str, str]:
    scheme, _, encoded = authorization.partition(" ")
    try:
        pair = base64.b64decode(encoded.strip(), validate=True).decode("utf-8")
    except ValueError:
        pair = ""
    if scheme.lower() != "basic" or ":" not in pair:
        raise OAuthError("invalid_client", "The Authorization header is not HTTP Basic.", 401)
    client_id, _, secret = pair.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


def check_redirect_uri(uri: object, behaviour: Behaviour, application_type: str | None = None) -> str:
    """Return a redirect URI if it is https, or http on loopback. Raises OAuthError otherwise."""
    refusal = OAuthError("invalid_redirect_uri", "A redirect URI must be https, or http on loopback.")
    if not isinstance(uri, str):
        raise refusal
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise refusal from None
    # RFC 6749 section 3.1.2: "The endpoint URI MUST NOT include a fragment component."
    if not host or "#" in uri or parts.username is not None:
        raise refusal
    if parts.scheme == "https" and behaviour.allows_https_redirects:
        return uri
    is_loopback = parts.scheme == "http" and is_loopback_host(host) and host in behaviour.redirect_hosts
    # OpenID Connect Registration section 2: web clients "MUST NOT use localhost as the hostname".
    if not is_loopback or application_type == "web":
        raise refusal
    return uri


def check_authorization_request(
    client: DemoClient | None,
    parameters: Mapping[str, str],
    resources: frozenset[str],
    behaviour: Behaviour,
) -> ValidatedRequest:
    """Validate an authorization request. Raises UnredirectableRequest or RedirectableError."""
    if client is None:
        raise UnredirectableRequest("The application that sent you here is not registered.")
    redirect_uri, state = parameters.get("redirect_uri"), parameters.get("state")
    if redirect_uri is None or not _is_registered(redirect_uri, client, behaviour):
        raise UnredirectableRequest("The application did not register the address that it redirects to.")

    try:
        challenge = _validate_challenge(parameters)
        resource = _validate_resource(parameters.get("resource"), resources, behaviour)
        scope = _validate_scope(parameters.get("scope", ""), behaviour)
    except OAuthError as refusal:
        raise RedirectableError(redirect_uri, state, refusal.error, refusal.description) from None
    return ValidatedRequest(client, redirect_uri, state, challenge, scope, resource)


def _validate_challenge(parameters: Mapping[str, str]) -> str:
    # RFC 9126 section 2.1: a pushed request must not contain a request_uri. In other requests the server has
    # already resolved it.
    if "request" in parameters or "request_uri" in parameters:
        raise OAuthError("request_not_supported", "Request objects are not supported.")
    if parameters.get("response_type") != "code":
        raise OAuthError("unsupported_response_type", "Only response_type=code is supported.")
    challenge = parameters.get("code_challenge", "")
    is_well_formed = re.fullmatch(r"[A-Za-z0-9_-]{43}", challenge)
    if parameters.get("code_challenge_method") != "S256" or not is_well_formed:
        raise OAuthError("invalid_request", "PKCE with S256 is required.")
    return challenge


def _validate_resource(resource: str | None, resources: frozenset[str], behaviour: Behaviour) -> str | None:
    if resource is not None and (not behaviour.accepts_resource or resource not in resources):
        raise OAuthError("invalid_target", "The resource is not known here.")
    if resource is None and behaviour.require_resource and behaviour.accepts_resource:
        raise OAuthError("invalid_target", "The resource parameter is missing.")
    return resource


def _validate_scope(text: str, behaviour: Behaviour) -> frozenset[str]:
    scope = frozenset(text.split())
    if behaviour.scopes_supported is not None and not scope <= {*behaviour.scopes_supported, "openid"}:
        raise OAuthError("invalid_scope", "A scope is not known here.")
    if not scope and behaviour.require_scope:
        raise OAuthError("invalid_scope", "The scope parameter is missing.")
    # RFC 6749 section 3.3: without scope, "a pre-defined default value".
    return scope or behaviour.required_scope


def _is_registered(redirect_uri: str, client: DemoClient, behaviour: Behaviour) -> bool:
    if redirect_uri in client.redirect_uris:
        return True
    if not behaviour.allows_any_loopback_port:
        return False
    # RFC 8252 section 7.3: the server "MUST allow any port to be specified at the time of the request".
    return any(
        _without_loopback_port(redirect_uri) == _without_loopback_port(registered)
        for registered in client.redirect_uris
    )


def _without_loopback_port(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return uri
    if parts.scheme != "http" or not is_loopback_host(host) or parts.username is not None:
        return uri
    return parts._replace(netloc=host).geturl()


def check_device_authorization_request(
    client: DemoClient, form: Mapping[str, str], resources: frozenset[str], behaviour: Behaviour
) -> tuple[frozenset[str], str | None]:
    """Validate a device authorization request (RFC 8628 section 3.1). Return scope and resource."""
    if DEVICE_GRANT not in client.grant_types:
        raise OAuthError("unauthorized_client", "The client did not register for the device grant.")
    scope = _validate_scope(form.get("scope", ""), behaviour)
    if behaviour.device_scopes is not None and not scope <= behaviour.device_scopes:
        raise OAuthError("invalid_scope", "The device flow does not grant that scope.")
    return scope, _validate_resource(form.get("resource"), resources, behaviour)


def check_verifier(code_verifier: str | None, code_challenge: str) -> None:
    """Check the code_verifier (RFC 7636 section 4.6). Raises OAuthError."""
    if code_verifier is None:
        raise OAuthError("invalid_grant", "The code_verifier is missing.")
    if not re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", code_verifier):
        raise OAuthError("invalid_grant", "The code_verifier is malformed.")
    digest = hashlib.sha256(code_verifier.encode("ascii")).digest()
    if not compare_digest(base64.urlsafe_b64encode(digest).rstrip(b"=").decode(), code_challenge):
        raise OAuthError("invalid_grant", "The code_verifier does not match.")


def check_resource(requested: str | None, granted: str | None, behaviour: Behaviour) -> None:
    """Check that a token request's resource is the approved one (RFC 8707 section 2.2)."""
    is_missing = requested is None and granted is not None and behaviour.require_resource
    if is_missing or (requested is not None and requested != granted):
        raise OAuthError("invalid_target", "The resource is not the one that was approved.")
