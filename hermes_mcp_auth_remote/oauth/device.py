"""Request a user code that the user enters on another device. RFC 8628 §3.1, §3.2.

The next step, polling until the user has decided, is in `device_polling`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from hermes_mcp_auth_remote.errors import (
    DeviceAuthorizationError,
    MalformedResponse,
    NetworkError,
    ServerError,
    UnsafeUrl,
)
from hermes_mcp_auth_remote.oauth.client import (
    DEVICE_GRANT,
    Client,
    Signer,
    authenticate_client,
    try_auth_methods,
)
from hermes_mcp_auth_remote.oauth.metadata import (
    AUTHORIZATION_SERVER_STEP,
    AuthorizationServer,
    read_authorization_server_response,
)
from hermes_mcp_auth_remote.oauth.token_errors import (
    UNKNOWN_ERROR,
    canonical_error,
    error_code,
    read_server_message,
)
from hermes_mcp_auth_remote.oauth.urls import (
    authorization_server_urls,
    endpoint_url,
    host_of,
    origin_of,
    safe_url,
)
from hermes_mcp_auth_remote.oauth.wire import (
    Document,
    Exchange,
    Form,
    Request,
    Response,
    format_scope,
    get_json,
    parse_seconds,
    post_form,
    read_json_or_form,
    retry_after_text,
    select_members,
    string_list,
    string_member,
)
from hermes_mcp_auth_remote.values import MAX_LOGIN_SECONDS, Secret

DEVICE_AUTHORIZATION_STEP = "device authorization"
# RFC 8628 section 3.2: "If no value is provided, clients MUST use 5 as the default."
DEFAULT_INTERVAL_SECONDS = 5.0
# A shorter interval is a server's mistake, and polling that fast would overload the server.
MIN_INTERVAL_SECONDS = 1.0
# The longest lifetime in use is half an hour. A longer one only gives an attacker more time.
MAX_DEVICE_CODE_SECONDS = 1800.0
# The user reads the code and types it; RFC 8628 section 6.1 suggests eight letters.
MAX_USER_CODE_CHARS = 64


@dataclass(frozen=True, slots=True)
class DeviceAuthorization:
    """A device authorization response (RFC 8628 section 3.2).

    Show the user `user_code` and `verification_uri`; never show `device_code`. `verification_uri_complete`
    contains the user code. It is None if the server sends no safe one.
    """

    device_code: Secret
    user_code: str = field(repr=False)
    verification_uri: str
    verification_uri_complete: str | None = field(default=None, repr=False)
    lifetime_seconds: float = MAX_LOGIN_SECONDS
    interval_seconds: float = DEFAULT_INTERVAL_SECONDS
    # The authentication method that the server accepted, if it refused the client's own.
    client_auth_method: str | None = field(default=None, compare=False)


def can_use_device_flow(client: Client) -> bool:
    """True if a client is registered for the device grant, or if its grants are unknown (RFC 7591 §2).

    If False, register again: servers refuse such a client with unauthorized_client (quirk 23) or another
    error (oidc-provider sends invalid_request).
    """
    return not client.is_registered or DEVICE_GRANT in (string_list(client.document, "grant_types") or ())


def find_device_endpoint(
    issuer: str, authorization_server: AuthorizationServer, trusted_issuers: Iterable[str] = ()
) -> Exchange[AuthorizationServer]:
    """Look for the device endpoint in the OpenID documents if the first document lacks it (quirk 46).

    Pass `issuer` in the spelling that discovery got. Returns the server with the device endpoint, or
    unchanged if no document of this issuer has one.
    """
    if (
        authorization_server.device_authorization_endpoint is not None
        or authorization_server.uses_default_endpoints
    ):
        return authorization_server
    # The first URL is RFC 8414's, which discovery has already read.
    for url in authorization_server_urls(safe_url(issuer, "issuer"))[1:]:
        try:
            response = yield get_json(url, AUTHORIZATION_SERVER_STEP)
            if not response.ok:
                continue
            openid_metadata = read_authorization_server_response(response, issuer, frozenset(trusted_issuers))
        except NetworkError:
            return authorization_server
        except ServerError:
            continue
        # The token endpoint of one server does not accept the device code of another.
        is_same_server = (openid_metadata.issuer, openid_metadata.token_endpoint) == (
            authorization_server.issuer,
            authorization_server.token_endpoint,
        )
        if is_same_server and openid_metadata.device_authorization_endpoint is not None:
            return _with_device_endpoint(authorization_server, openid_metadata)
    return authorization_server


def with_device_endpoint(authorization_server: AuthorizationServer, url: str) -> AuthorizationServer:
    """Return the server with a device endpoint that its metadata leaves out (quirk 58)."""
    grants = authorization_server.grant_types_supported
    if grants is not None and DEVICE_GRANT not in grants:
        grants = (*grants, DEVICE_GRANT)
    document: dict[str, object] = {**authorization_server.document, "device_authorization_endpoint": url}
    if grants is not None:
        document["grant_types_supported"] = list(grants)
    return replace(
        authorization_server,
        device_authorization_endpoint=url,
        grant_types_supported=grants,
        document=document,
    )


def _with_device_endpoint(
    authorization_server: AuthorizationServer, openid_metadata: AuthorizationServer
) -> AuthorizationServer:
    # The document with the endpoint also lists the right grants. The store saves both.
    names = ("device_authorization_endpoint", "grant_types_supported")
    other_members = {
        name: value for name, value in authorization_server.document.items() if name not in names
    }
    document: Document = {
        **other_members,
        **{name: openid_metadata.document[name] for name in names if name in openid_metadata.document},
    }
    return replace(
        authorization_server,
        device_authorization_endpoint=openid_metadata.device_authorization_endpoint,
        grant_types_supported=openid_metadata.grant_types_supported,
        document=select_members(document, document),
    )


def obtain_device_authorization(
    authorization_server: AuthorizationServer,
    client: Client,
    *,
    scope: frozenset[str] | None = None,
    resource: str | None = None,
    extra_parameters: Mapping[str, str] | None = None,
    sign: Signer | None = None,
) -> Exchange[DeviceAuthorization]:
    """Request a device code and a user code (RFC 8628 section 3.1).

    If the server refuses the client's authentication method, tries the other one once (quirks 17, 50, 51);
    the result then names the method that worked. Raises DeviceAuthorizationError (pasting may still work:
    quirk 47), MalformedResponse, UnsafeUrl or a NetworkError.
    """
    secrets = () if client.client_secret is None else (client.client_secret,)

    def attempt(attempted_client: Client) -> Exchange[DeviceAuthorization]:
        response = yield device_authorization_request(
            authorization_server,
            attempted_client,
            scope=scope,
            resource=resource,
            extra_parameters=extra_parameters,
            sign=sign,
        )
        return read_device_authorization_response(response, authorization_server.issuer, secrets)

    authorization, used_client = yield from try_auth_methods(client, attempt)
    if used_client.auth_method == client.auth_method:
        return authorization
    return replace(authorization, client_auth_method=used_client.auth_method)


def device_authorization_request(
    authorization_server: AuthorizationServer,
    client: Client,
    *,
    scope: frozenset[str] | None = None,
    resource: str | None = None,
    extra_parameters: Mapping[str, str] | None = None,
    sign: Signer | None = None,
) -> Request:
    """Build the device authorization request (RFC 8628 section 3.1).

    `extra_parameters` are the operator's own, such as an audience. Raises DeviceAuthorizationError if the
    server has no such endpoint.
    """
    if authorization_server.device_authorization_endpoint is None:
        raise DeviceAuthorizationError(
            f"{host_of(authorization_server.issuer)} offers no device flow.", "unsupported_grant_type"
        )
    form: dict[str, str | Secret] = {
        k: v for k, v in (extra_parameters or {}).items() if k not in _RESERVED_PARAMETERS
    }
    if scope:
        form.setdefault("scope", format_scope(scope))
    if resource is not None:
        form.setdefault("resource", resource)
    fields: Form
    fields, headers = authenticate_client(client, authorization_server.issuer, form, sign=sign)
    return post_form(
        authorization_server.device_authorization_endpoint, DEVICE_AUTHORIZATION_STEP, fields, headers
    )


_RESERVED_PARAMETERS = frozenset({"client_id", "client_secret", "client_assertion", "client_assertion_type"})


def read_device_authorization_response(
    response: Response, issuer: str, secrets: tuple[Secret, ...] = ()
) -> DeviceAuthorization:
    """Read a device authorization response (RFC 8628 section 3.2).

    A missing or invalid lifetime is read as ten minutes, an invalid interval as five seconds. Raises
    DeviceAuthorizationError, with `secrets` masked in the server's message, MalformedResponse or UnsafeUrl.
    """
    host = host_of(issuer)
    label = f"response to the {DEVICE_AUTHORIZATION_STEP} at {host}"
    if response.status >= 500 or response.status == 429:
        raise MalformedResponse(
            f"{host} responded to the {DEVICE_AUTHORIZATION_STEP} with status {response.status}.",
            f"Try again {retry_after_text(response) or 'later'}.",
        )
    try:
        document = read_json_or_form(response, label)
    except MalformedResponse:
        if response.ok:
            raise
        document = dict[str, object]()
    if document.get("error") or not response.ok:
        code = error_code(document)
        error = f"status {response.status}" if code is None else canonical_error(code)
        error_text = f"unknown error (status {response.status})" if error == UNKNOWN_ERROR else error
        raise DeviceAuthorizationError(
            f"{host} refused the {DEVICE_AUTHORIZATION_STEP}: {error_text}.",
            error,
            _ERROR_ADVICE.get(error),
            server_message=read_server_message(document, *secrets),
            status=response.status,
        )
    device_code, user_code = string_member(document, "device_code"), string_member(document, "user_code")
    if device_code is None:
        raise MalformedResponse(f"The {label} has no device code.")
    user_code = (user_code or "").strip()
    if not user_code or not user_code.isascii() or len(user_code) > MAX_USER_CODE_CHARS:
        raise MalformedResponse(f"The {label} has no user code that a person can enter.")
    uri, complete = _read_verification_uris(document, label, issuer)
    return DeviceAuthorization(
        Secret(device_code),
        user_code,
        uri,
        complete,
        min(parse_seconds(document.get("expires_in")) or MAX_LOGIN_SECONDS, MAX_DEVICE_CODE_SECONDS),
        max(parse_seconds(document.get("interval")) or DEFAULT_INTERVAL_SECONDS, MIN_INTERVAL_SECONDS),
    )


_ERROR_ADVICE = {
    "invalid_scope": (
        "This provider's device flow does not grant that scope: log in by pasting instead, or set "
        "`oauth.scope` for this server to a scope that it grants."
    ),
    "invalid_client": (
        "The provider no longer knows this client: begin a new login to register again, or check "
        "`oauth.client_id`, `oauth.client_secret` and `oauth.token_endpoint_auth_method` if you configured "
        "them."
    ),
    "unauthorized_client": (
        "The provider does not allow the device flow for this client, or does not accept the way in which "
        "the client authenticates. Set `oauth.token_endpoint_auth_method` (client_secret_post or "
        "client_secret_basic) for this server, or log in by pasting (`oauth.flow: paste`)."
    ),
    "invalid_target": "Set `oauth.resource` for this server to the value the provider expects, or to false.",
}


def _read_verification_uris(document: Document, label: str, issuer: str) -> tuple[str, str | None]:
    # Google spells it "verification_url".
    uri = string_member(document, "verification_uri") or string_member(document, "verification_url")
    if uri is None:
        raise MalformedResponse(f"The {label} has no address for entering the user code.")
    verification_uri = endpoint_url(uri, "`verification_uri`", issuer)
    complete = string_member(document, "verification_uri_complete") or string_member(
        document, "verification_url_complete"
    )
    try:
        complete_uri = None if complete is None else safe_url(complete, "`verification_uri_complete`")
    except UnsafeUrl:
        complete_uri = None
    # The user sees one host and compares it. A complete address at another host would bypass that check.
    return verification_uri, complete_uri if complete_uri is not None and origin_of(
        complete_uri
    ) == origin_of(verification_uri) else None
