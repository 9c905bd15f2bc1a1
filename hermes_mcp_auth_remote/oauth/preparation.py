"""From a server to an authorization request: every step of a login up to the person, in one exchange.

Finding the authorization server, PKCE, scope, registration, and the request itself, pushed where the server
takes that; or a code for another device.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from hermes_mcp_auth_remote.errors import (
    ConfigError,
    NetworkError,
    ServerError,
    TokenRefused,
)
from hermes_mcp_auth_remote.oauth.authorization import (
    AuthorizationRequest,
    authorization_request,
    check_pkce,
    push,
    select_resource,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client, Signer
from hermes_mcp_auth_remote.oauth.dpop import is_offered
from hermes_mcp_auth_remote.oauth.enrolment import Held, client_of, enrolled, goes_by_device, scope_of
from hermes_mcp_auth_remote.oauth.finding import Found, find
from hermes_mcp_auth_remote.oauth.flows import Chance, Prepared, device_code, for_client
from hermes_mcp_auth_remote.oauth.metadata import Discovery
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request
from hermes_mcp_auth_remote.values import Flow, Server

AUTHORIZATION_PAGE = "authorization page"


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
    `find` or `find_and_enrol` has found just now for the same server, issuer and flow, where that was asked.
    The request's own `redirect_uri` counts from here on: a provider may want another spelling of loopback.
    With `can_prove` there can be a key for DPoP, if the server requires one. The flow `device` leads to a
    device's code, `auto` too where the server gives one; both need `oauth.device`, which the caller checks.
    Raises any ServerError or NetworkError; ConfigError if a key is required and `can_prove` is False.
    """
    held = held or Held()
    options = server.options
    if found is None:
        found = yield from find(server, held.issuer, challenge, flow)
    discovery, answered = found.discovery, found.challenge
    issuer = discovery.authorization_server
    is_bound = wants_proofs(server, discovery, answered)
    if is_bound and not can_prove:
        raise ConfigError(
            f"{host_of(server.url)} takes only tokens that are bound to a key (DPoP), and the package "
            "`cryptography`, which makes keys, is not installed.",
            "Install it: pip install cryptography.",
        )
    by_device = goes_by_device(found, flow)
    client, known = yield from enrolled(server, found, redirect_uri, now, held=held, flow=flow)
    scope = scope_of(server, found, held)
    asked = _plain_request(server, discovery, client, chance, redirect_uri, scope)
    asked = replace(asked, dpop=is_bound)
    anew = partial(client_of, server, issuer, held, redirect_uri, scope)
    if by_device:
        try:
            code, client = yield from device_code(
                server, issuer, asked, sign=sign, anew=anew if known else None
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
        look=known and issuer.pushed_authorization_request_endpoint is None,
        # Neither what the operator configured nor what was registered just now gets better by that.
        may_register=options.client_id is None and (known or not client.registered),
    )
    if request is None:
        # Without a client of an earlier login it was our metadata document (quirk 20).
        held = replace(held, metadata_document_refused=held.metadata_document_refused or not known)
        client = yield from client_of(server, issuer, held, redirect_uri, scope)
        again = _plain_request(server, discovery, client, chance, redirect_uri, scope)
        request = yield from push(issuer, replace(again, dpop=asked.dpop), sign=sign)
    return Prepared(request, issuer)


def wants_proofs(server: Server, found: Discovery, challenge: Challenge) -> bool:
    """True if tokens must be bound to a key (RFC 9449): the resource requires it and both servers can do it.

    A bound token has a price: `token`, `header`, `run --env`, Hermes and the MCP SDK cannot use it. So a
    server that merely offers DPoP beside Bearer gets plain tokens. The resource requires DPoP if its
    challenge names no other scheme, or by `dpop_bound_access_tokens_required` (RFC 9728 section 2).
    `oauth.dpop` decides otherwise, either way.
    """
    if server.options.dpop is not None:
        return server.options.dpop
    resource = found.protected_resource
    is_required = challenge.is_dpop_only or (resource is not None and resource.requires_dpop)
    return is_required and is_offered(found.authorization_server.document)


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
