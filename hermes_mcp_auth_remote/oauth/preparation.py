"""From a server to an authorization request: every step of a login up to the person, in one exchange.

Finding the authorization server, PKCE, scope, registration, and the request itself, pushed where the server
takes that; or a code for another device.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from hermes_mcp_auth_remote.errors import (
    NetworkError,
    RegistrationRefused,
    ServerError,
    TokenRefused,
)
from hermes_mcp_auth_remote.oauth.authorization import (
    AuthorizationRequest,
    authorization_request,
    check_pkce,
    push,
    select_resource,
    select_scope,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import (
    Client,
    Signer,
    configured_client,
    metadata_document_client,
    offers_device,
    register,
)
from hermes_mcp_auth_remote.oauth.device import may_use_device
from hermes_mcp_auth_remote.oauth.dpop import is_offered
from hermes_mcp_auth_remote.oauth.finding import Found, find
from hermes_mcp_auth_remote.oauth.flows import (
    DEVICE_FLOWS,
    Chance,
    Prepared,
    device_code,
    for_client,
    no_device,
)
from hermes_mcp_auth_remote.oauth.metadata import AuthorizationServer, Discovery
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request
from hermes_mcp_auth_remote.values import Flow, Server

AUTHORIZATION_PAGE = "authorization page"


@dataclass(frozen=True, slots=True)
class Held:
    """What is known from an earlier login: the client, its issuer, the scope that was granted.

    `metadata_document_refused` is True where the provider turned our client ID metadata document away
    (quirk 20); then we register instead.
    """

    client: Client | None = None
    issuer: str | None = None
    scope: frozenset[str] = frozenset()
    metadata_document_refused: bool = False


def prepare(  # noqa: PLR0913
    server: Server,
    chance: Chance,
    redirect_uri: str,
    now: float,
    *,
    held: Held | None = None,
    challenge: Challenge | None = None,
    sign: Signer | None = None,
    can_prove: bool = False,
    flow: Flow = "paste",
    found: Found | None = None,
) -> Exchange[Prepared]:
    """Take a login from a server's URL to an authorization request. `now` is in epoch seconds.

    `challenge` is what a 401 or 403 said, where there was one; else the server is asked. `found` is what
    `find` has found just now for the same server, issuer and flow, where it was asked. The request's own
    `redirect_uri` counts from here on: a provider may insist on another spelling of loopback.
    With `can_prove` there can be a key for DPoP, should both servers take that. The flow `device` leads to a
    device's code, `auto` too where the server gives one; both need `oauth.device`, which the caller checks.
    Raises any ServerError or NetworkError.
    """
    held = held or Held()
    options = server.options
    if found is None:
        found = yield from find(server, held.issuer, challenge, flow)
    discovery, answered = found.discovery, found.challenge
    issuer = discovery.authorization_server
    by_device = flow in DEVICE_FLOWS and offers_device(issuer)
    if flow == "device" and not by_device:
        raise no_device(issuer)
    if not by_device:
        check_pkce(issuer, allow_missing_pkce=options.allow_missing_pkce)
    scope = select_scope(
        discovery,
        answered,
        configured=options.scope,
        held=held.scope if answered.insufficient_scope else frozenset(),
        cap=options.scope_cap,
    )
    # MCP 2026-07-28: pre-registered client information comes first.
    reusable = options.client_id is None and _is_usable(held, issuer, redirect_uri, now)
    known = held.client if reusable else None
    if known is not None and by_device and not may_use_device(known):
        # It would only be refused (quirk 23).
        known = None
    client = known or (yield from _client(server, issuer, held, redirect_uri, scope))
    asked = _plain_request(server, discovery, client, chance, redirect_uri, scope)
    asked = replace(asked, dpop=can_prove and wants_proofs(server, discovery, answered))
    anew = partial(_client, server, issuer, held, redirect_uri, scope)
    if by_device:
        try:
            code, client = yield from device_code(
                server, issuer, asked, sign=sign, anew=None if known is None else anew
            )
        except (ServerError, NetworkError):
            # Pasting may still work (quirk 47); who wants nothing but a device is told.
            if flow == "device":
                raise
            check_pkce(issuer, allow_missing_pkce=options.allow_missing_pkce)
        else:
            return Prepared(for_client(asked, client), issuer, code)
    request = yield from _unless_forgotten(
        push(issuer, asked, sign=sign),
        look=known is not None and issuer.pushed_authorization_request_endpoint is None,
        # Neither what the operator configured nor what was registered just now gets better by that.
        may_register=options.client_id is None and (known is not None or not client.registered),
    )
    if request is None:
        # Without a client of an earlier login it was our metadata document (quirk 20).
        held = replace(held, metadata_document_refused=held.metadata_document_refused or known is None)
        client = yield from _client(server, issuer, held, redirect_uri, scope)
        again = _plain_request(server, discovery, client, chance, redirect_uri, scope)
        request = yield from push(issuer, replace(again, dpop=asked.dpop), sign=sign)
    return Prepared(request, issuer)


def wants_proofs(server: Server, found: Discovery, challenge: Challenge) -> bool:
    """True where tokens are to be bound to a key (RFC 9449): where both servers say that they take that.

    An authorization server binds whatever token it is shown a proof for; the protected resource has to
    understand it. `oauth.dpop` decides otherwise, either way.
    """
    if server.options.dpop is not None:
        return server.options.dpop
    resource = found.protected_resource
    taken = challenge.dpop or (resource is not None and resource.dpop)
    return taken and is_offered(found.authorization_server.document)


def _is_usable(held: Held, issuer: AuthorizationServer, redirect_uri: str, now: float) -> bool:
    client = held.client
    return (
        client is not None
        and client.registered
        and held.issuer == issuer.issuer
        and redirect_uri in client.redirect_uris
        and (client.secret_expires_at is None or client.secret_expires_at > now)
    )


def _client(
    server: Server,
    issuer: AuthorizationServer,
    held: Held,
    redirect_uri: str,
    scope: frozenset[str] | None,
) -> Exchange[Client]:
    options = server.options
    if options.client_id is not None:
        check_binding(options.client_id, issuer, held)
        return configured_client(
            issuer,
            options.client_id,
            options.client_secret,
            options.token_endpoint_auth_method or ("private_key_jwt" if options.private_key_file else None),
            redirect_uri,
        )
    has_document = options.client_metadata_url is not None and issuer.client_id_metadata_document_supported
    if has_document and not held.metadata_document_refused:
        return metadata_document_client(options.client_metadata_url or "", redirect_uri)
    client = yield from register(
        issuer,
        redirect_uri,
        client_name=options.client_name,
        scope=scope or (),
        method=options.token_endpoint_auth_method,
        application_type=options.application_type,
    )
    return client


def check_binding(client_id: str, issuer: AuthorizationServer, held: Held) -> None:
    """Refuse to take a configured client to another issuer than the last time; raises RegistrationRefused."""
    # MCP 2026-07-28, authorization server binding: its secret must not follow a server that moved elsewhere.
    same_client = held.client is not None and held.client.client_id == client_id
    if same_client and held.issuer is not None and held.issuer != issuer.issuer:
        raise RegistrationRefused(
            f"The server now sends logins to {host_of(issuer.issuer)}, but `oauth.client_id` was "
            f"registered at {host_of(held.issuer)}.",
            "If you expect that move, log out of this server, set `oauth.client_id` anew and log in again.",
        )


def _plain_request(
    server: Server,
    found: Discovery,
    client: Client,
    chance: Chance,
    redirect_uri: str,
    scope: frozenset[str] | None,
) -> AuthorizationRequest:
    options = server.options
    return authorization_request(
        found.authorization_server,
        client,
        redirect_uri=redirect_uri if redirect_uri in client.redirect_uris else client.redirect_uris[0],
        state=chance.state,
        code_verifier=chance.code_verifier,
        scope=scope,
        resource=select_resource(server.url, found.protected_resource, options.resource),
        extra=options.authorize_params,
        trusted_issuers=options.trusted_issuers,
    )


def _unless_forgotten(
    asking: Exchange[AuthorizationRequest], *, look: bool, may_register: bool
) -> Exchange[AuthorizationRequest | None]:
    """Ask, and return None where the provider no longer knows the client, or never took its document.

    Such a provider shows the person a bare error page (quirk 19); so look at the page first, for a client of
    an earlier login. A pushed request tells by itself, and a look would use it up.
    """
    try:
        request = yield from asking
    except TokenRefused as refused:
        if refused.error != "invalid_client" or not may_register:
            raise
        return None
    if not look:
        return request
    page = Request("GET", request.url, AUTHORIZATION_PAGE, follow_redirects=False)
    try:
        response = yield page
    except NetworkError:
        return request
    return request if response.status < 400 else None
