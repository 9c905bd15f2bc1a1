"""Prepare a login: all steps from a server's URL to the URL or code that the user gets.

The steps are discovery, the PKCE check, scope selection and client registration. The last step is a device
authorization or an authorization request, which is pushed if the server supports PAR.
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
    select_server_and_client,
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
from hermes_mcp_auth_remote.oauth.client import (
    Client,
    Signer,
    can_use_code_flow,
    register_client,
    supports_device_flow,
    with_auth_method,
)
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
from hermes_mcp_auth_remote.oauth.redirect import names_unknown_client
from hermes_mcp_auth_remote.oauth.token_errors import UNKNOWN_CLIENT_ERRORS
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
    """Prepare the authorization request or the device code of a login. `now` is in epoch seconds.

    `challenge` is the challenge of a 401 or 403; if it is None, this function probes the server.
    `discovery_result` is a recent result of `run_discovery` or `discover_and_register` for the same server,
    issuer and flow.
    Use the `redirect_uri` of the returned request: a server may accept only `localhost` or only 127.0.0.1.
    `can_use_dpop` is True if the caller can provide a key for DPoP. The flow `device` requests a device code;
    `auto` does so if the server supports it. The caller checks `oauth.device` for both flows.
    Raises any ServerError or NetworkError; ConfigError if a key is required and `can_use_dpop` is False.
    """
    previous_login = previous_login or PreviousLogin()
    options = server.options
    if discovery_result is None:
        discovery_result = yield from run_discovery(server, previous_login.issuer, challenge, flow)
    discovery, server_challenge = discovery_result.discovery, discovery_result.challenge
    authorization_server = discovery.authorization_server
    use_dpop = should_use_dpop(server, discovery, server_challenge)
    if use_dpop and not can_use_dpop:
        raise ConfigError(
            f"{host_of(server.url)} accepts only tokens that are bound to a key (DPoP), and the package "
            "`cryptography`, which creates keys, is not installed.",
            "In the Python environment of this program, run `pip install cryptography`.",
        )
    discovery_result, client, is_previous_client = yield from select_server_and_client(
        server, discovery_result, redirect_uri, now, previous_login=previous_login, flow=flow
    )
    discovery = discovery_result.discovery
    authorization_server = discovery.authorization_server
    is_device_flow = uses_device_flow(discovery_result, flow)
    scope = scope_for_login(server, discovery_result, previous_login)
    base_request = _build_request(server, discovery, client, nonces, redirect_uri, scope)
    base_request = replace(base_request, uses_dpop=use_dpop)
    register_again = partial(
        create_client,
        server,
        authorization_server,
        previous_login,
        redirect_uri,
        scope,
        for_device_flow=is_device_flow,
    )
    if is_device_flow:
        try:
            device_authorization, client = yield from request_device_code(
                server,
                authorization_server,
                base_request,
                sign=sign,
                register_again=register_again if is_previous_client else None,
            )
        except (ServerError, NetworkError):
            # Pasting may still work (quirk 47), unless the user requires the device flow.
            if flow == "device":
                raise
            check_pkce(authorization_server, allow_missing_pkce=options.allow_missing_pkce)
            if not can_use_code_flow(client):
                # The client is registered for the device grant alone (quirk 58).
                client = yield from create_client(
                    server, authorization_server, previous_login, redirect_uri, scope
                )
                code_request = _build_request(server, discovery, client, nonces, redirect_uri, scope)
                base_request = replace(code_request, uses_dpop=use_dpop)
        else:
            return PreparedLogin(for_client(base_request, client), authorization_server, device_authorization)
    request = yield from _request_unless_client_unknown(
        authorization_server,
        base_request,
        sign,
        check_page=is_previous_client and authorization_server.pushed_authorization_request_endpoint is None,
        # Registering again does not help a configured or newly registered client.
        can_register=options.client_id is None and (is_previous_client or not client.is_registered),
    )
    is_reused = is_previous_client and request is not None
    if request is None:
        # If no earlier client was used, the server refused the client ID metadata document (quirk 20).
        previous_login = replace(
            previous_login, is_cimd_disabled=previous_login.is_cimd_disabled or not is_previous_client
        )
        client = yield from create_client(server, authorization_server, previous_login, redirect_uri, scope)
        new_request = _build_request(server, discovery, client, nonces, redirect_uri, scope)
        request = yield from push_request(
            authorization_server, replace(new_request, uses_dpop=base_request.uses_dpop), sign=sign
        )
    return PreparedLogin(request, authorization_server, is_client_reused=is_reused)


def should_use_dpop(server: Server, discovery: Discovery, challenge: Challenge) -> bool:
    """True if tokens must be bound to a key (RFC 9449).

    They must be if the resource requires DPoP and the authorization server supports it.

    The commands `token`, `header`, `run --env`, Hermes and the MCP SDK cannot use a bound token. So if a
    server accepts DPoP and Bearer, the client requests Bearer tokens. The resource requires DPoP if its
    challenge names no other scheme, or if its metadata has `dpop_bound_access_tokens_required` (RFC 9728
    section 2).
    `oauth.dpop` overrides this rule.
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


def _request_unless_client_unknown(
    authorization_server: AuthorizationServer,
    request: AuthorizationRequest,
    sign: Signer | None,
    *,
    check_page: bool,
    can_register: bool,
) -> Exchange[AuthorizationRequest | None]:
    """Push the request; return None if the server does not know the client or refuses its document.

    Such a server shows the user a bare error page (quirks 19, 49). With `check_page`, this function fetches
    the page first; pass it for a client of an earlier login. A pushed request needs no check, and fetching
    its page would use it up.
    """
    try:
        request = yield from push_request(
            authorization_server,
            request,
            sign=sign,
            fatal_errors=UNKNOWN_CLIENT_ERRORS if can_register else frozenset({"invalid_client"}),
        )
    except TokenError as error:
        if error.error not in UNKNOWN_CLIENT_ERRORS or not can_register:
            raise
        return None
    if not check_page:
        return request
    page = Request("GET", request.url, AUTHORIZATION_PAGE_STEP, follow_redirects=False)
    try:
        response = yield page
    except NetworkError:
        return request
    is_unknown = response.status >= 400 or names_unknown_client(response, request)
    return None if is_unknown else request


@dataclass(frozen=True, slots=True)
class PreparedLogin:
    """A request for the user, and its authorization server.

    If `device_authorization` is set, show that to the user instead; `request` is then not pushed.
    `is_client_reused` is True if an earlier login registered the client.
    """

    request: AuthorizationRequest
    authorization_server: AuthorizationServer
    device_authorization: DeviceAuthorization | None = None
    is_client_reused: bool = False


@dataclass(frozen=True, slots=True)
class LoginNonces:
    """The random values of one login. The caller creates them, because `flows` does no I/O."""

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
    """Request a device code for the client, scope and resource of `request`; return it with its client.

    `register_again` registers another client if the server no longer knows this one (quirk 19), or if this
    one was registered without the device grant (quirk 23). Raises the errors of
    `obtain_device_authorization` and of `register_again`.
    """
    client, is_new_client = request.client, False
    if register_again is not None and not can_use_device_flow(client):
        client, is_new_client = (yield from register_again()), True
    if not can_use_device_flow(client):
        host = host_of(authorization_server.issuer)
        raise DeviceAuthorizationError(
            f"{host} does not let this client use its device flow.", "unauthorized_client"
        )

    def attempt(attempted_client: Client) -> Exchange[tuple[DeviceAuthorization, Client]]:
        extra = server.options.authorize_params
        authorization = yield from obtain_device_authorization(
            authorization_server,
            attempted_client,
            scope=request.scope,
            resource=request.resource,
            extra_parameters=extra,
            sign=sign,
        )
        auth_method = authorization.client_auth_method
        used_client = attempted_client
        if auth_method is not None:
            used_client = with_auth_method(attempted_client, auth_method)
        return authorization, used_client

    try:
        return (yield from attempt(client))
    except DeviceAuthorizationError as error:
        if (
            register_again is None
            or is_new_client
            or error.error not in {"invalid_client", "unauthorized_client"}
        ):
            raise
        client = yield from register_again()
        return (yield from attempt(client))


def for_client(request: AuthorizationRequest, client: Client) -> AuthorizationRequest:
    """Return the request of a device login with this client. Its URL is empty: no user may open it."""
    redirect_uri = request.redirect_uri
    redirect_uri = redirect_uri if redirect_uri in client.redirect_uris else client.redirect_uris[0]
    return replace(request, url="", client=client, redirect_uri=redirect_uri, lifetime_seconds=None)


def prepare_switch(
    server: Server,
    prepared_login: PreparedLogin,
    nonces: LoginNonces,
    *,
    to_device: bool,
    sign: Signer | None = None,
) -> Exchange[PreparedLogin]:
    """Switch a login to the device flow, to a new device code, or back to pasting.

    The old link or code is useless afterwards. Raises DeviceAuthorizationError, PkceNotSupported, or another
    ServerError or NetworkError; the login is then unchanged.
    """
    authorization_server, old_request, options = (
        prepared_login.authorization_server,
        prepared_login.request,
        server.options,
    )
    if not to_device:
        check_pkce(authorization_server, allow_missing_pkce=options.allow_missing_pkce)
        return (
            yield from prepare_retry(
                server,
                prepared_login,
                nonces,
                scope=old_request.scope,
                # A client that was registered for the device grant alone cannot paste (quirk 58).
                with_new_client=not can_use_code_flow(old_request.client),
                sign=sign,
            )
        )
    authorization_server = yield from find_device_endpoint(
        authorization_server.issuer, authorization_server, options.trusted_issuers
    )
    if not supports_device_flow(authorization_server):
        raise no_device_flow_error(authorization_server)

    def register_again() -> Exchange[Client]:
        return register_client(
            authorization_server,
            old_request.redirect_uri,
            client_name=options.client_name,
            scope=old_request.scope or (),
            auth_method=options.token_endpoint_auth_method,
            application_type=options.application_type,
            for_device_flow=True,
        )

    allowed_registration = register_again if old_request.client.is_registered else None
    device_authorization, client = yield from request_device_code(
        server, authorization_server, old_request, sign=sign, register_again=allowed_registration
    )
    return PreparedLogin(for_client(old_request, client), authorization_server, device_authorization)


def prepare_retry(
    server: Server,
    prepared_login: PreparedLogin,
    nonces: LoginNonces,
    *,
    scope: frozenset[str] | None,
    with_new_client: bool,
    sign: Signer | None = None,
) -> Exchange[PreparedLogin]:
    """Prepare another authorization request of a login after an error of the provider.

    The old link is useless afterwards. `with_new_client` registers a client first (quirk 49). Raises a
    ServerError or NetworkError; the login is then unchanged.
    """
    authorization_server, old_request, options = (
        prepared_login.authorization_server,
        prepared_login.request,
        server.options,
    )
    client = old_request.client
    if with_new_client:
        client = yield from register_client(
            authorization_server,
            old_request.redirect_uri,
            client_name=options.client_name,
            scope=scope or (),
            auth_method=options.token_endpoint_auth_method,
            application_type=options.application_type,
        )
    redirect_uri = old_request.redirect_uri
    request = authorization_request(
        authorization_server,
        client,
        redirect_uri=redirect_uri if redirect_uri in client.redirect_uris else client.redirect_uris[0],
        state=nonces.state,
        code_verifier=nonces.code_verifier,
        scope=scope,
        resource=old_request.resource,
        extra_parameters=options.authorize_params,
        trusted_issuers=old_request.trusted_issuers,
    )
    request = yield from push_request(
        authorization_server, replace(request, uses_dpop=old_request.uses_dpop), sign=sign
    )
    return PreparedLogin(request, authorization_server)
