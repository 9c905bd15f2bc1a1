"""Client registration and client authentication. RFC 7591, RFC 6749 §2.3, RFC 7523 §2.2, CIMD."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import quote_plus, urlsplit, urlunsplit

from hermes_mcp_auth_remote.errors import (
    ClientIdRequired,
    MalformedResponse,
    RegistrationError,
    TokenError,
)
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.token_errors import (
    UNKNOWN_ERROR,
    canonical_error,
    error_code,
    read_server_message,
)
from hermes_mcp_auth_remote.oauth.urls import host_of, is_loopback_host, is_uri
from hermes_mcp_auth_remote.oauth.wire import (
    Document,
    Exchange,
    Form,
    Headers,
    Request,
    Response,
    format_scope,
    parse_scope,
    parse_seconds,
    post_json,
    read_json_object,
    retry_after_text,
    select_members,
    string_list,
    string_member,
)
from hermes_mcp_auth_remote.values import Secret

REGISTRATION_STEP = "client registration"
# The limit for a server's list; this package registers one redirect URI.
MAX_REDIRECT_URIS = 100
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
CODE_GRANTS = ("authorization_code", "refresh_token")
# The loopback port of clients that the operator registers by hand, unless `oauth.redirect_port` is set.
# RFC 6335 section 6: the dynamic ports are never assigned to a service.
CONFIGURED_CLIENT_PORT = 52765
# This program's own member of a client document. Other readers ignore unknown members.
_DEVICE_ONLY_MEMBER = "hermes_mcp_auth_device_only"
# The scope of the registration request, if the server registered less.
_REQUESTED_SCOPE_MEMBER = "hermes_mcp_auth_requested_scope"
_SECRET_METHODS = frozenset({"client_secret_basic", "client_secret_post"})
CLIENT_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

# The members of a client information document that are kept (RFC 7591 section 3.2.1, RFC 7592 section 3). If
# they exceed the limit of `select_members`, the last ones are cut.
_KEPT_MEMBERS = (
    "client_id",
    "client_secret",
    "client_id_issued_at",
    "client_secret_expires_at",
    "registration_client_uri",
    "registration_access_token",
    "token_endpoint_auth_method",
    _DEVICE_ONLY_MEMBER,
    _REQUESTED_SCOPE_MEMBER,
    "application_type",
    "grant_types",
    "response_types",
    "client_name",
    "client_uri",
    "redirect_uris",
    "scope",
)

Signer = Callable[[str, str], Secret]
"""Takes a client_id and an audience (the issuer) and returns a signed client assertion (RFC 7523 §2.2)."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client of one authorization server (RFC 7591 section 3.2.1).

    `auth_method` is the token_endpoint_auth_method. `secret_expires_at` is in epoch seconds, None for never.
    `document` holds members of the registration response, at most 64 KiB as JSON. `is_registered` is False if
    the operator configured the client, or if its id is the URL of a client ID metadata document (CIMD).
    """

    client_id: str
    client_secret: Secret | None = None
    auth_method: str = "none"
    redirect_uris: tuple[str, ...] = ()
    secret_expires_at: float | None = None
    is_registered: bool = False
    document: Document = field(default_factory=dict[str, object], repr=False)


def configured_client(
    authorization_server: AuthorizationServer,
    client_id: str,
    client_secret: Secret | None,
    auth_method: str | None,
    redirect_uri: str,
) -> Client:
    """Build the client that the operator configured.

    `auth_method` None selects a method that the server supports.
    """
    if auth_method is None:
        offered_methods = authorization_server.token_endpoint_auth_methods_supported
        if client_secret is None:
            auth_method = "none"
        elif offered_methods is None or "client_secret_basic" in offered_methods:
            # RFC 8414 section 2: "If omitted, the default is client_secret_basic".
            auth_method = "client_secret_basic"
        else:
            auth_method = "client_secret_post"
    return Client(client_id, client_secret, auth_method, (redirect_uri,), document={"client_name": ""})


def metadata_document_client(url: str, redirect_uri: str, *, has_private_key: bool = False) -> Client:
    """Build the client whose id is its metadata URL (draft-ietf-oauth-client-id-metadata-document)."""
    return Client(url, None, "private_key_jwt" if has_private_key else "none", (redirect_uri,))


def registration_request(
    authorization_server: AuthorizationServer,
    redirect_uri: str,
    *,
    client_name: str,
    scope: Iterable[str] = (),
    auth_method: str | None = None,
    application_type: str | None = None,
    grant_types: Sequence[str] = CODE_GRANTS,
    manual_redirect_uri: str | None = None,
) -> Request:
    """Build the registration request (RFC 7591 section 2).

    Raises ClientIdRequired if the server has no registration endpoint. The advice then names
    `manual_redirect_uri`, the redirect URI of logins with a configured client.
    `application_type` defaults to native for a loopback redirect URI, else web (MCP 2026-07-28).
    """
    if authorization_server.registration_endpoint is None:
        # Do not guess /register (quirk 14).
        raise ClientIdRequired(
            f"{host_of(authorization_server.issuer)} does not let clients register themselves.",
            manual_client_advice(manual_redirect_uri or redirect_uri),
        )
    is_loopback = is_loopback_host(host_of(redirect_uri))
    document: dict[str, object] = {
        "client_name": client_name,
        "redirect_uris": [redirect_uri],
        "grant_types": list(grant_types),
        # RFC 7591 section 2.1: only the code grant has a response type.
        "response_types": ["code"] if "authorization_code" in grant_types else [],
        "token_endpoint_auth_method": auth_method or _preferred_auth_method(authorization_server),
        "application_type": application_type or ("native" if is_loopback else "web"),
    }
    if scope_text := format_scope(scope):
        document["scope"] = scope_text
    return post_json(authorization_server.registration_endpoint, REGISTRATION_STEP, document)


def manual_client_advice(redirect_uri: str) -> str:
    """Say how to set up a client by hand: the same words in the terminal, in chats and in `doctor`."""
    return (
        f"Register a client there by hand with the redirect URI {redirect_uri}, then set `oauth.client_id` "
        "(and `oauth.client_secret`, if you get one) for this server."
    )


def manual_redirect_uri(redirect_uri: str, configured_port: int = 0) -> str:
    """Return the redirect URI that a client made by hand needs, from the redirect URI of a login.

    On loopback, its port is always the same, because such a client has one redirect URI (quirk 59).
    """
    parts = urlsplit(redirect_uri)
    host = parts.hostname or ""
    if parts.scheme != "http" or not is_loopback_host(host):
        return redirect_uri
    port = configured_port or CONFIGURED_CLIENT_PORT
    return urlunsplit(parts._replace(netloc=f"{f'[{host}]' if ':' in host else host}:{port}"))


def supports_device_flow(authorization_server: AuthorizationServer) -> bool:
    """True if the server has a device endpoint, and lists the device grant or lists no grants."""
    grants = authorization_server.grant_types_supported
    return authorization_server.device_authorization_endpoint is not None and (
        grants is None or DEVICE_GRANT in grants
    )


def _preferred_auth_method(authorization_server: AuthorizationServer) -> str:
    # A native app cannot protect a secret (RFC 8252 section 8.5), so prefer "none" if the server offers it.
    offered_methods = authorization_server.token_endpoint_auth_methods_supported or ("none",)
    preferred_methods = ("none", "client_secret_post", "client_secret_basic")
    return next((method for method in preferred_methods if method in offered_methods), "none")


def read_registration_response(
    response: Response,
    authorization_server: AuthorizationServer,
    redirect_uri: str,
    *,
    grant_types: Sequence[str] = CODE_GRANTS,
    requested_auth_method: str | None = None,
    requested_scope: Iterable[str] = (),
    manual_redirect_uri: str | None = None,
) -> Client:
    """Read a registration response; raises RegistrationError or MalformedResponse.

    If the response omits redirect URIs or grants, the requested ones apply.
    """
    host = host_of(authorization_server.issuer)
    if not response.ok:
        raise _registration_error(response, host, redirect_uri, manual_redirect_uri or redirect_uri)
    document = read_json_object(response.body, f"response to the {REGISTRATION_STEP}")
    client_id = string_member(document, "client_id")
    if client_id is None:
        raise MalformedResponse(f"{host} responded to the {REGISTRATION_STEP} without a client_id.")
    registered_redirect_uris = string_list(document, "redirect_uris", MAX_REDIRECT_URIS)
    if registered_redirect_uris and redirect_uri not in registered_redirect_uris:
        raise RegistrationError(
            f"{host} registered another redirect URI than the requested one.",
            "Register a client there by hand and set `oauth.client_id` and `oauth.redirect_uri`.",
        )
    method = string_member(document, "token_endpoint_auth_method") or "none"
    if method not in {*_SECRET_METHODS, "none", requested_auth_method}:
        # Refuse now: the token request would fail after the user has approved.
        raise RegistrationError(
            f"{host} registered an authentication method that this program did not ask for.",
            "Set `oauth.token_endpoint_auth_method` for this server to client_secret_post or none, or "
            "register a client there by hand and set `oauth.client_id`.",
            server_message=method,
        )
    # Hermes's own reader requires these members even if the server omits them. Store only the requested
    # redirect URI, because a later login listens on it.
    grants = string_list(document, "grant_types") or grant_types
    required_members: dict[str, object] = {
        "redirect_uris": [redirect_uri],
        "grant_types": list(grants),
        **({_DEVICE_ONLY_MEMBER: True} if tuple(grant_types) == (DEVICE_GRANT,) else {}),
    }
    requested_scope, registered_scope = frozenset(requested_scope), string_member(document, "scope")
    if registered_scope is not None and not requested_scope <= parse_scope(registered_scope):
        required_members[_REQUESTED_SCOPE_MEMBER] = format_scope(requested_scope)
    return replace(client_from_document({**document, **required_members}), is_registered=True)


def client_from_document(document: Document) -> Client:
    """Read a client information document (a response, or `<s>.client.json`).

    Raises MalformedResponse.
    """
    client_id = string_member(document, "client_id")
    if client_id is None:
        raise MalformedResponse("The client information has no client_id.")
    secret = string_member(document, "client_secret")
    # Some servers issue a secret although the client requested "none" (quirk 16). Use the response's method,
    # else post.
    auth_method = string_member(document, "token_endpoint_auth_method") or (
        "client_secret_post" if secret else "none"
    )
    if auth_method == "none" and secret:
        auth_method = "client_secret_post"
    elif auth_method in _SECRET_METHODS and not secret:
        # RFC 7591 section 2 makes Basic the default, and some servers send that default for a public client
        # (quirk 50).
        auth_method = "none"
    return Client(
        client_id,
        Secret(secret) if secret else None,
        auth_method,
        tuple(uri for uri in string_list(document, "redirect_uris", MAX_REDIRECT_URIS) or () if is_uri(uri)),
        # RFC 7591 section 3.2.1: in epoch seconds, "or 0 if it will not expire".
        parse_seconds(document.get("client_secret_expires_at")),
        is_registered=True,
        document=select_members(document, _KEPT_MEMBERS),
    )


def _registration_error(
    response: Response, host: str, redirect_uri: str, manual_redirect_uri: str
) -> RegistrationError:
    try:
        document = read_json_object(response.body, REGISTRATION_STEP)
    except MalformedResponse:
        document = dict[str, object]()
    error, server_message = canonical_error(error_code(document)), read_server_message(document)
    error_suffix = f" ({error})" if error != UNKNOWN_ERROR else ""
    message = f"{host} refused the {REGISTRATION_STEP} with status {response.status}{error_suffix}."

    def make_error(advice: str | None = None) -> RegistrationError:
        return RegistrationError(message, advice, server_message=server_message)

    if error == "invalid_redirect_uri":
        return make_error(
            f"It does not take {redirect_uri}: set `oauth.redirect_host: localhost` (or 127.0.0.1), or an "
            "https `oauth.redirect_uri`, for this server.",
        )
    if response.status >= 500 or response.status == 429:
        retry_text = retry_after_text(response) or "later"
        temporary_error = make_error(
            f"Try again {retry_text}; if it fails again, register a client there by hand."
        )
        temporary_error.is_temporary = True
        return temporary_error
    if response.status in {401, 403}:
        return make_error(
            "This provider accepts only clients it knows. "
            f"{manual_client_advice(manual_redirect_uri)} Or ask it to accept your `oauth.client_name`.",
        )
    return make_error()


def register_client(
    authorization_server: AuthorizationServer,
    redirect_uri: str,
    *,
    client_name: str,
    scope: Iterable[str] = (),
    auth_method: str | None = None,
    application_type: str | None = None,
    for_device_flow: bool = False,
    manual_redirect_uri: str | None = None,
) -> Exchange[Client]:
    """Register a client; if the server refuses, try again with another request.

    If the server refuses the redirect URI, the next request has the other loopback host (quirk 22). If it
    refuses the grants, the next request has no device grant. With `for_device_flow`, a request for only the
    device grant comes before that one, because some servers allow one grant per client (quirk 58).

    Read the accepted redirect URI from `redirect_uris`, and call `device.can_use_device_flow` and
    `can_use_code_flow` for the grants. Raises RegistrationError, MalformedResponse or a NetworkError.
    """
    has_device_flow = supports_device_flow(authorization_server)
    scope = tuple(scope)

    def attempt(attempted_redirect_uri: str, grant_types: Sequence[str]) -> Exchange[Client]:
        request = registration_request(
            authorization_server,
            attempted_redirect_uri,
            client_name=client_name,
            scope=scope,
            auth_method=auth_method,
            application_type=application_type,
            grant_types=grant_types,
            manual_redirect_uri=manual_redirect_uri,
        )
        response = yield request
        return read_registration_response(
            response,
            authorization_server,
            attempted_redirect_uri,
            grant_types=grant_types,
            requested_auth_method=auth_method,
            requested_scope=scope,
            manual_redirect_uri=manual_redirect_uri,
        )

    all_grants = (*CODE_GRANTS, DEVICE_GRANT) if has_device_flow else CODE_GRANTS
    try:
        return (yield from attempt(redirect_uri, all_grants))
    except RegistrationError as error:
        other_redirect_uri = _swap_loopback_host(redirect_uri)
        refusal_text = f"{error} {error.server_message}".lower()
        # Servers that do not use the code invalid_redirect_uri still write "redirect" in their text.
        if other_redirect_uri is not None and "redirect" in refusal_text:
            retries = [attempt(other_redirect_uri, all_grants)]
        elif has_device_flow and ("grant" in refusal_text or "invalid_client_metadata" in refusal_text):
            # The server may not offer the device grant to every client. Pasting works without it.
            retries = [attempt(redirect_uri, CODE_GRANTS)]
            if for_device_flow:
                retries.insert(0, attempt(redirect_uri, (DEVICE_GRANT,)))
        else:
            raise
        for retry in retries:
            try:
                return (yield from retry)
            except RegistrationError:
                continue
        raise error from None


def can_use_code_flow(client: Client) -> bool:
    """True unless this package registered the client for the device grant alone (quirk 58)."""
    return client.document.get(_DEVICE_ONLY_MEMBER) is not True


def can_request_scope(client: Client, scope: frozenset[str] | None) -> bool:
    """True unless the server registered this client for less than the scope (RFC 7591 section 2).

    It refuses such a request, for example that of a step-up (quirk 66). A scope that the registration has
    requested in vain is no reason to register again.
    """
    registered_scope = string_member(client.document, "scope")
    requested_scope = string_member(client.document, _REQUESTED_SCOPE_MEMBER) or ""
    if registered_scope is None:
        return True
    return (scope or frozenset()) <= parse_scope(registered_scope) | parse_scope(requested_scope)


def _swap_loopback_host(redirect_uri: str) -> str | None:
    parts = urlsplit(redirect_uri)
    other_host = {"127.0.0.1": "localhost", "localhost": "127.0.0.1"}.get(parts.hostname or "")
    if other_host is None:
        return None
    return urlunsplit(
        parts._replace(netloc=other_host if parts.port is None else f"{other_host}:{parts.port}")
    )


def authenticate_client(
    client: Client, issuer: str, form: Form, *, sign: Signer | None = None, auth_method: str | None = None
) -> tuple[Form, Headers]:
    """Add the client's authentication to a form (RFC 6749 section 2.3).

    Returns the form and the headers to send. Raises RegistrationError if the method needs a key or a secret
    that is missing.
    """
    auth_method = auth_method or client.auth_method
    if auth_method == "none":
        return {**form, "client_id": client.client_id}, ()
    if auth_method in {"private_key_jwt", "client_secret_jwt"}:
        if sign is None:
            raise RegistrationError(
                f"The client authenticates with {auth_method}, but there is no key to sign with.",
                "Set `oauth.private_key_file` for this server.",
            )
        assertion = sign(client.client_id, issuer)
        return {
            **form,
            "client_id": client.client_id,
            "client_assertion_type": CLIENT_ASSERTION_TYPE,
            "client_assertion": assertion,
        }, ()
    if client.client_secret is None:
        raise RegistrationError(
            f"The client authenticates with {auth_method}, but there is no client secret.",
            "Set `oauth.client_secret` for this server.",
        )
    if auth_method == "client_secret_basic":
        # RFC 6749 section 2.3.1: both are form-urlencoded before they are joined (quirk 17).
        pair = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret.reveal())}"
        basic = base64.b64encode(pair.encode()).decode()
        return form, (("authorization", Secret(f"Basic {basic}")),)
    return {**form, "client_id": client.client_id, "client_secret": client.client_secret}, ()


T = TypeVar("T")


def alternative_auth_method(client: Client) -> str | None:
    """Return the method to try if the server refuses the client's own, None if there is none.

    Some servers list Basic and accept only post (quirks 17, 51). Some register `none` and send a secret: some
    of these require the secret, others refuse it (quirk 50).
    """
    if client.client_secret is None:
        return None
    if client.auth_method == "client_secret_basic":
        return "client_secret_post"
    is_registered_as_none = client.document.get("token_endpoint_auth_method") == "none"
    return "none" if client.auth_method == "client_secret_post" and is_registered_as_none else None


def with_auth_method(client: Client, auth_method: str) -> Client:
    """Return the client to store, with the method that its server accepts."""
    # Drop a secret that the server refuses, so that the next request does not try it again.
    secret = None if auth_method == "none" else client.client_secret
    return replace(client, auth_method=auth_method, client_secret=secret)


def is_auth_method_refusal(error: TokenError) -> bool:
    """True if an error may mean that the server does not accept the authentication method.

    RFC 6749 section 5.2 says `invalid_client`. Servers also send a 401 without a code, or 403 with
    `unauthorized_client`. With 400, `unauthorized_client` is about the grant.
    """
    if error.error == "unauthorized_client":
        return error.status in {401, 403}
    return error.error in {"invalid_client", "status 401"}


def try_auth_methods(client: Client, attempt: Callable[[Client], Exchange[T]]) -> Exchange[tuple[T, Client]]:
    """Run `attempt` with the client; if the server refuses its method, run it again with the alternative.

    Returns the result, and the client with the method that worked. If both are refused, raises the first
    error.
    """
    try:
        return (yield from attempt(client)), client
    except TokenError as error:
        auth_method = alternative_auth_method(client)
        if auth_method is None or not is_auth_method_refusal(error):
            raise
        other_client = with_auth_method(client, auth_method)
        try:
            return (yield from attempt(other_client)), other_client
        except TokenError:
            raise error from None
