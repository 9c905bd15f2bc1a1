"""From a server to an authorization request: every step of a login up to the person, in one exchange.

Finding the authorization server, PKCE, scope, registration, and the request itself, pushed where the server
takes that; or a code for another device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from hermes_mcp_auth_remote.errors import (
    ConfigError,
    DeviceAuthorizationError,
    NetworkError,
    ServerError,
    TokenError,
)
from hermes_mcp_auth_remote.flows.client_selection import (
    PreviousLogin,
    create_client,
    scope_for_login,
    select_client,
    uses_device_flow,
)
from hermes_mcp_auth_remote.flows.discovery import DiscoveryResult, no_device_flow_error, run_discovery
from hermes_mcp_auth_remote.oauth.authorization import (
    AuthorizationRequest,
    authorization_request,
    check_pkce,
    push_request,
    select_resource,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client, Signer, register_client, supports_device_flow
from hermes_mcp_auth_remote.oauth.device import (
    DeviceAuthorization,
    can_use_device_flow,
    find_device_endpoint,
    obtain_device_authorization,
)
from hermes_mcp_auth_remote.oauth.dpop import supports_dpop
from hermes_mcp_auth_remote.oauth.metadata import (
    AuthorizationServer,
    Discovery,
)
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request
from hermes_mcp_auth_remote.values import Flow, Secret, Server

AUTHORIZATION_PAGE_STEP = "authorization page"


def prepare_login(  # noqa: PLR0913
    server: Server,
    nonces: LoginNonces,
    redirect_uri: str,
    now: float,
    *,
    previous_login: PreviousLogin | None = None,
    challenge: Challenge | None = None,
    sign: Signer | None = None,
    can_use_dpop: bool = False,
    flow: Flow = "paste",
    discovery_result: DiscoveryResult | None = None,
) -> Exchange[PreparedLogin]:
    """Take a login from a server's URL to an authorization request. `now` is in epoch seconds.

    `challenge` is what a 401 or 403 said, where there was one; else the server is asked. `found` is what
    `find` or `find_and_enrol` has found just now for the same server, issuer and flow, where that was asked.
    The request's own `redirect_uri` counts from here on: a provider may want another spelling of loopback.
    With `can_prove` there can be a key for DPoP, if the server requires one. The flow `device` leads to a
    device's code, `auto` too where the server gives one; both need `oauth.device`, which the caller checks.
    Raises any ServerError or NetworkError; ConfigError if a key is required and `can_prove` is False.
    """
    previous_login = previous_login or PreviousLogin()
    options = server.options
    if discovery_result is None:
        discovery_result = yield from run_discovery(server, previous_login.issuer, challenge, flow)
    discovery, answered = discovery_result.discovery, discovery_result.challenge
    issuer = discovery.authorization_server
    is_bound = should_use_dpop(server, discovery, answered)
    if is_bound and not can_use_dpop:
        raise ConfigError(
            f"{host_of(server.url)} takes only tokens that are bound to a key (DPoP), and the package "
            "`cryptography`, which makes keys, is not installed.",
            "Install it: pip install cryptography.",
        )
    by_device = uses_device_flow(discovery_result, flow)
    client, known = yield from select_client(
        server, discovery_result, redirect_uri, now, previous_login=previous_login, flow=flow
    )
    scope = scope_for_login(server, discovery_result, previous_login)
    asked = _build_request(server, discovery, client, nonces, redirect_uri, scope)
    asked = replace(asked, uses_dpop=is_bound)
    anew = partial(create_client, server, issuer, previous_login, redirect_uri, scope)
    if by_device:
        try:
            code, client = yield from request_device_code(
                server, issuer, asked, sign=sign, register_again=anew if known else None
            )
        except (ServerError, NetworkError):
            # Pasting may still work (quirk 47); who wants nothing but a device is told.
            if flow == "device":
                raise
            check_pkce(issuer, allow_missing_pkce=options.allow_missing_pkce)
        else:
            return PreparedLogin(for_client(asked, client), issuer, code)
    request = yield from _run_unless_client_unknown(
        push_request(issuer, asked, sign=sign),
        check_page=known and issuer.pushed_authorization_request_endpoint is None,
        # Neither what the operator configured nor what was registered just now gets better by that.
        can_register=options.client_id is None and (known or not client.is_registered),
    )
    if request is None:
        # Without a client of an earlier login it was our metadata document (quirk 20).
        previous_login = replace(
            previous_login, is_cimd_disabled=previous_login.is_cimd_disabled or not known
        )
        client = yield from create_client(server, issuer, previous_login, redirect_uri, scope)
        again = _build_request(server, discovery, client, nonces, redirect_uri, scope)
        request = yield from push_request(issuer, replace(again, uses_dpop=asked.uses_dpop), sign=sign)
    return PreparedLogin(request, issuer)


def should_use_dpop(server: Server, discovery: Discovery, challenge: Challenge) -> bool:
    """True if tokens must be bound to a key (RFC 9449): the resource requires it and both servers can do it.

    A bound token has a price: `token`, `header`, `run --env`, Hermes and the MCP SDK cannot use it. So a
    server that merely offers DPoP beside Bearer gets plain tokens. The resource requires DPoP if its
    challenge names no other scheme, or by `dpop_bound_access_tokens_required` (RFC 9728 section 2).
    `oauth.dpop` decides otherwise, either way.
    """
    if server.options.dpop is not None:
        return server.options.dpop
    resource = discovery.protected_resource
    is_required = challenge.is_dpop_only or (resource is not None and resource.requires_dpop)
    return is_required and supports_dpop(discovery.authorization_server.document)


def _build_request(
    server: Server,
    discovery: Discovery,
    client: Client,
    nonces: LoginNonces,
    redirect_uri: str,
    scope: frozenset[str] | None,
) -> AuthorizationRequest:
    options = server.options
    return authorization_request(
        discovery.authorization_server,
        client,
        redirect_uri=redirect_uri if redirect_uri in client.redirect_uris else client.redirect_uris[0],
        state=nonces.state,
        code_verifier=nonces.code_verifier,
        scope=scope,
        resource=select_resource(server.url, discovery.protected_resource, options.resource),
        extra_parameters=options.authorize_params,
        trusted_issuers=options.trusted_issuers,
    )


def _run_unless_client_unknown(
    request_exchange: Exchange[AuthorizationRequest], *, check_page: bool, can_register: bool
) -> Exchange[AuthorizationRequest | None]:
    """Ask, and return None where the provider no longer knows the client, or never took its document.

    Such a provider shows the person a bare error page (quirk 19); so look at the page first, for a client of
    an earlier login. A pushed request tells by itself, and a look would use it up.
    """
    try:
        request = yield from request_exchange
    except TokenError as refused:
        if refused.error != "invalid_client" or not can_register:
            raise
        return None
    if not check_page:
        return request
    page = Request("GET", request.url, AUTHORIZATION_PAGE_STEP, follow_redirects=False)
    try:
        response = yield page
    except NetworkError:
        return request
    return request if response.status < 400 else None


@dataclass(frozen=True, slots=True)
class PreparedLogin:
    """A request that a person can be shown, and the authorization server that it goes to.

    With a `device`, that is what the person is shown instead; the request is only ready, and not pushed.
    """

    request: AuthorizationRequest
    authorization_server: AuthorizationServer
    device_authorization: DeviceAuthorization | None = None


@dataclass(frozen=True, slots=True)
class LoginNonces:
    """The random values of one login, handed in so that this room rolls no dice."""

    state: Secret
    code_verifier: Secret


def request_device_code(
    server: Server,
    authorization_server: AuthorizationServer,
    request: AuthorizationRequest,
    *,
    sign: Signer | None = None,
    register_again: Callable[[], Exchange[Client]] | None = None,
) -> Exchange[tuple[DeviceAuthorization, Client]]:
    """Ask for a code for what `asked` asks, and return it with the client that it is for.

    `anew` gets another client where the provider has forgotten this one (quirk 19), or where it was
    registered without the grant (quirk 23). Raises what `authorize_device` raises.
    """
    client, is_anew = request.client, False
    if register_again is not None and not can_use_device_flow(client):
        client, is_anew = (yield from register_again()), True
    if not can_use_device_flow(client):
        host = host_of(authorization_server.issuer)
        raise DeviceAuthorizationError(
            f"{host} does not let this client use its device flow.", "unauthorized_client"
        )

    def attempt(attempted_client: Client) -> Exchange[DeviceAuthorization]:
        extra = server.options.authorize_params
        return obtain_device_authorization(
            authorization_server,
            attempted_client,
            scope=request.scope,
            resource=request.resource,
            extra_parameters=extra,
            sign=sign,
        )

    try:
        code = yield from attempt(client)
    except DeviceAuthorizationError as refused:
        if (
            register_again is None
            or is_anew
            or refused.error not in {"invalid_client", "unauthorized_client"}
        ):
            raise
        client = yield from register_again()
        code = yield from attempt(client)
    return code, client


def for_client(request: AuthorizationRequest, client: Client) -> AuthorizationRequest:
    """Return what a device login keeps of its request: all but a URL, which nobody may be shown."""
    uri = request.redirect_uri
    uri = uri if uri in client.redirect_uris else client.redirect_uris[0]
    return replace(request, url="", client=client, redirect_uri=uri, lifetime_seconds=None)


def prepare_switch(
    server: Server,
    prepared_login: PreparedLogin,
    nonces: LoginNonces,
    *,
    to_device: bool,
    sign: Signer | None = None,
) -> Exchange[PreparedLogin]:
    """Change a login over to a device, or to another code for one, or back to pasting.

    What was shown before is good for nothing afterwards. Raises DeviceRefused, PkceNotSupported or whatever
    else stands in the way; the login is then as it was.
    """
    issuer, asked, options = prepared_login.authorization_server, prepared_login.request, server.options
    if not to_device:
        check_pkce(issuer, allow_missing_pkce=options.allow_missing_pkce)
        request = authorization_request(
            issuer,
            asked.client,
            redirect_uri=asked.redirect_uri,
            state=nonces.state,
            code_verifier=nonces.code_verifier,
            scope=asked.scope,
            resource=asked.resource,
            extra_parameters=options.authorize_params,
            trusted_issuers=asked.trusted_issuers,
        )
        request = yield from push_request(issuer, replace(request, uses_dpop=asked.uses_dpop), sign=sign)
        return PreparedLogin(request, issuer)
    issuer = yield from find_device_endpoint(issuer.issuer, issuer, options.trusted_issuers)
    if not supports_device_flow(issuer):
        raise no_device_flow_error(issuer)

    def register_again() -> Exchange[Client]:
        return register_client(
            issuer,
            asked.redirect_uri,
            client_name=options.client_name,
            scope=asked.scope or (),
            auth_method=options.token_endpoint_auth_method,
            application_type=options.application_type,
        )

    may_register = register_again if asked.client.is_registered else None
    code, client = yield from request_device_code(
        server, issuer, asked, sign=sign, register_again=may_register
    )
    return PreparedLogin(for_client(asked, client), issuer, code)
