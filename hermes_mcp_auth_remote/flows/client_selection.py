"""Select the client of a login: an earlier login's, the configured one, or a newly registered one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

from hermes_mcp_auth_remote.errors import ConfigError, PkceNotSupported, RegistrationError, ServerError
from hermes_mcp_auth_remote.flows.discovery import (
    DEVICE_FLOWS,
    DiscoveryResult,
    discover_other_server,
    no_device_flow_error,
    run_discovery,
)
from hermes_mcp_auth_remote.oauth.authorization import check_pkce, select_scope
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import (
    Client,
    can_request_scope,
    can_use_code_flow,
    configured_client,
    manual_redirect_uri,
    metadata_document_client,
    register_client,
    supports_device_flow,
)
from hermes_mcp_auth_remote.oauth.device import can_use_device_flow
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.values import Flow, Server


@dataclass(frozen=True, slots=True)
class PreviousLogin:
    """The client, its issuer and the granted scope of an earlier login.

    `is_cimd_disabled` is True if the authorization server refused the client ID metadata document (quirk 20):
    the next login then registers a client. `needed_scope` is the scope that the server has demanded by
    `insufficient_scope` since that login, or None. `was_unanswered` is True if the last login with this
    client ended without a response. The next login then registers another client, because the server may have
    forgotten this one (quirk 49).
    """

    client: Client | None = None
    issuer: str | None = None
    scope: frozenset[str] = frozenset()
    is_cimd_disabled: bool = False
    needed_scope: frozenset[str] | None = None
    was_unanswered: bool = False


def discover_and_register(
    server: Server, challenge: Challenge | None, flow: Flow, redirect_uri: str, now: float
) -> Exchange[DiscoveryResult]:
    """Discover the authorization server and register a client. Logins without a stored client share it.

    `client` of the result is None if no client was registered. Raises any ServerError or NetworkError.
    """
    discovery_result = yield from run_discovery(server, None, challenge, flow)
    discovery_result, client, _ = yield from select_server_and_client(
        server, discovery_result, redirect_uri, now, previous_login=PreviousLogin(), flow=flow
    )
    return replace(discovery_result, client=client) if client.is_registered else discovery_result


def select_server_and_client(
    server: Server,
    discovery_result: DiscoveryResult,
    redirect_uri: str,
    now: float,
    *,
    previous_login: PreviousLogin,
    flow: Flow,
) -> Exchange[tuple[DiscoveryResult, Client, bool]]:
    """Return the discovery result for the client's authorization server, then what `select_client` returns.

    If the server refuses registration and the resource lists other authorization servers, tries those, in
    order (quirk 60). Raises the first error.
    """
    first_error: RegistrationError | None = None
    tried_issuers = [discovery_result.discovery.authorization_server.issuer]
    current: DiscoveryResult | None = discovery_result
    while current is not None:
        try:
            client, is_previous = yield from select_client(
                server, current, redirect_uri, now, previous_login=previous_login, flow=flow
            )
        except PkceNotSupported as error:
            raise _with_server_advice(first_error or error, discovery_result, server) from None
        except RegistrationError as error:
            first_error = first_error or error
            if error.is_temporary or server.options.client_id is not None:
                break
            current = yield from discover_other_server(server, current, tuple(tried_issuers), flow)
            if current is not None:
                tried_issuers.append(current.discovery.authorization_server.issuer)
        else:
            return current, client, is_previous
    raise _with_server_advice(first_error or RegistrationError(""), discovery_result, server)


E = TypeVar("E", bound=ServerError)


def _with_server_advice(error: E, discovery_result: DiscoveryResult, server: Server) -> E:
    """Return the error; its advice names `oauth.authorization_server` if the resource lists several."""
    resource = discovery_result.discovery.protected_resource
    count = 0 if resource is None else len(resource.authorization_servers)
    if count > 1 and server.options.authorization_server is None:
        error.advice = (
            f"{error.advice} The server lists {count} authorization servers: "
            "`oauth.authorization_server` selects one of them."
        )
    return error


def select_client(
    server: Server,
    discovery_result: DiscoveryResult,
    redirect_uri: str,
    now: float,
    *,
    previous_login: PreviousLogin,
    flow: Flow,
) -> Exchange[tuple[Client, bool]]:
    """Return the client of a login, and True if it is an earlier login's client.

    `now` is in epoch seconds. Raises any ServerError or NetworkError. Before this function registers a
    client, it checks that the login can continue.
    """
    if discovery_result.client is not None:
        return discovery_result.client, False
    options, authorization_server = server.options, discovery_result.discovery.authorization_server
    is_device_flow = uses_device_flow(discovery_result, flow)
    if flow == "device" and not is_device_flow:
        raise no_device_flow_error(authorization_server)
    if not is_device_flow:
        check_pkce(authorization_server, allow_missing_pkce=options.allow_missing_pkce)
    # MCP 2026-07-28: pre-registered client information comes first.
    reusable = options.client_id is None and _can_reuse_client(
        previous_login, authorization_server, redirect_uri, now
    )
    previous_client = previous_login.client if reusable else None
    scope = scope_for_login(server, discovery_result, previous_login)
    if previous_client is not None:
        can_use_flow = can_use_device_flow if is_device_flow else can_use_code_flow
        # Otherwise the server would refuse the request (quirks 23, 66).
        is_usable = can_use_flow(previous_client) and can_request_scope(previous_client, scope)
        previous_client = previous_client if is_usable else None
    if previous_client is not None:
        return previous_client, True
    client = yield from create_client(
        server,
        authorization_server,
        previous_login,
        redirect_uri,
        scope,
        for_device_flow=is_device_flow,
    )
    return client, False


def uses_device_flow(discovery_result: DiscoveryResult, flow: Flow) -> bool:
    """True if a login with this flow uses the device flow at this authorization server."""
    return flow in DEVICE_FLOWS and supports_device_flow(discovery_result.discovery.authorization_server)


def scope_for_login(
    server: Server, discovery_result: DiscoveryResult, previous_login: PreviousLogin
) -> frozenset[str] | None:
    """Return the scope that a login requests, or None for no `scope` parameter."""
    needed_scope = previous_login.needed_scope
    is_step_up = discovery_result.challenge.has_insufficient_scope or needed_scope is not None
    return select_scope(
        discovery_result.discovery,
        discovery_result.challenge,
        configured_scope=server.options.scope,
        granted_scope=previous_login.scope if is_step_up else frozenset(),
        needed_scope=needed_scope or frozenset(),
        scope_cap=server.options.scope_cap,
    )


def create_client(
    server: Server,
    authorization_server: AuthorizationServer,
    previous_login: PreviousLogin,
    redirect_uri: str,
    scope: frozenset[str] | None,
    *,
    for_device_flow: bool = False,
) -> Exchange[Client]:
    """Return the configured client, a metadata document client, or a newly registered client.

    Raises ConfigError, RegistrationError, ClientIdRequired, MalformedResponse or a NetworkError.
    """
    options = server.options
    if options.client_id is not None:
        check_client_issuer(options.client_id, authorization_server, previous_login)
        _check_client_secret(server)
        return configured_client(
            authorization_server,
            options.client_id,
            options.client_secret,
            options.token_endpoint_auth_method or ("private_key_jwt" if options.private_key_file else None),
            redirect_uri,
        )
    supports_cimd = (
        options.client_metadata_url is not None and authorization_server.client_id_metadata_document_supported
    )
    if supports_cimd and not previous_login.is_cimd_disabled:
        return metadata_document_client(options.client_metadata_url or "", redirect_uri)
    if (
        authorization_server.registration_endpoint is None
        and authorization_server.client_id_metadata_document_supported
        and options.client_metadata_url is None
    ):
        raise RegistrationError(
            f"{host_of(authorization_server.issuer)} takes clients with a metadata document, and none is "
            "configured.",
            "Host a document as docs/client-metadata/README.md describes, then set "
            "`oauth.client_metadata_url` to its address.",
        )
    client = yield from register_client(
        authorization_server,
        redirect_uri,
        client_name=options.client_name,
        scope=scope or (),
        auth_method=options.token_endpoint_auth_method,
        application_type=options.application_type,
        for_device_flow=for_device_flow,
        manual_redirect_uri=manual_redirect_uri(redirect_uri, options.redirect_port),
    )
    return client


def _check_client_secret(server: Server) -> None:
    """Raise ConfigError if the configured authentication method needs a client secret that is missing.

    Without this check, the token request would fail after the user has approved.
    """
    options = server.options
    method = options.token_endpoint_auth_method
    if method in {"client_secret_basic", "client_secret_post"} and options.client_secret is None:
        raise ConfigError(
            f"`oauth.token_endpoint_auth_method` of {server.name} is {method}, but it has no client secret.",
            "Set `oauth.client_secret`, or remove `oauth.token_endpoint_auth_method`.",
        )


def check_client_issuer(
    client_id: str, authorization_server: AuthorizationServer, previous_login: PreviousLogin
) -> None:
    """Raise RegistrationError if the issuer of a configured client has changed since the last login."""
    # MCP 2026-07-28, authorization server binding: do not send the client's secret to another issuer.
    is_same_client = previous_login.client is not None and previous_login.client.client_id == client_id
    if (
        is_same_client
        and previous_login.issuer is not None
        and previous_login.issuer != authorization_server.issuer
    ):
        raise RegistrationError(
            f"The server now sends logins to {host_of(authorization_server.issuer)}, but `oauth.client_id` "
            f"was registered at {host_of(previous_login.issuer)}.",
            "If you expect that move, log out of this server, set a new `oauth.client_id` and log in again.",
        )


def _can_reuse_client(
    previous_login: PreviousLogin, authorization_server: AuthorizationServer, redirect_uri: str, now: float
) -> bool:
    client = previous_login.client
    return (
        client is not None
        and client.is_registered
        and not previous_login.was_unanswered
        and previous_login.issuer == authorization_server.issuer
        and redirect_uri in client.redirect_uris
        and (client.secret_expires_at is None or client.secret_expires_at > now)
    )
