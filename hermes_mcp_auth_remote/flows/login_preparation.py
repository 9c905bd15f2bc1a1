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
    DeviceRefused,
    NetworkError,
    ServerError,
    TokenRefused,
)
from hermes_mcp_auth_remote.flows.client_selection import Held, client_of, enrolled, goes_by_device, scope_of
from hermes_mcp_auth_remote.flows.discovery import Found, find, no_device
from hermes_mcp_auth_remote.oauth.authorization import (
    AuthorizationRequest,
    authorization_request,
    check_pkce,
    push,
    select_resource,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge
from hermes_mcp_auth_remote.oauth.client import Client, Signer, offers_device, register
from hermes_mcp_auth_remote.oauth.device import (
    DeviceAuthorization,
    authorize_device,
    find_device_endpoint,
    may_use_device,
)
from hermes_mcp_auth_remote.oauth.dpop import is_offered
from hermes_mcp_auth_remote.oauth.metadata import (
    AuthorizationServer,
    Discovery,
)
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange, Request
from hermes_mcp_auth_remote.values import Flow, Secret, Server

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


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that a person can be shown, and the authorization server that it goes to.

    With a `device`, that is what the person is shown instead; the request is only ready, and not pushed.
    """

    request: AuthorizationRequest
    authorization_server: AuthorizationServer
    device: DeviceAuthorization | None = None


@dataclass(frozen=True, slots=True)
class Chance:
    """The random values of one login, handed in so that this room rolls no dice."""

    state: Secret
    code_verifier: Secret


def device_code(
    server: Server,
    issuer: AuthorizationServer,
    asked: AuthorizationRequest,
    *,
    sign: Signer | None = None,
    anew: Callable[[], Exchange[Client]] | None = None,
) -> Exchange[tuple[DeviceAuthorization, Client]]:
    """Ask for a code for what `asked` asks, and return it with the client that it is for.

    `anew` gets another client where the provider has forgotten this one (quirk 19), or where it was
    registered without the grant (quirk 23). Raises what `authorize_device` raises.
    """
    client, is_anew = asked.client, False
    if anew is not None and not may_use_device(client):
        client, is_anew = (yield from anew()), True
    if not may_use_device(client):
        host = host_of(issuer.issuer)
        raise DeviceRefused(f"{host} does not let this client use its device flow.", "unauthorized_client")

    def ask(who: Client) -> Exchange[DeviceAuthorization]:
        extra = server.options.authorize_params
        return authorize_device(
            issuer, who, scope=asked.scope, resource=asked.resource, extra=extra, sign=sign
        )

    try:
        code = yield from ask(client)
    except DeviceRefused as refused:
        if anew is None or is_anew or refused.error not in {"invalid_client", "unauthorized_client"}:
            raise
        client = yield from anew()
        code = yield from ask(client)
    return code, client


def for_client(asked: AuthorizationRequest, client: Client) -> AuthorizationRequest:
    """Return what a device login keeps of its request: all but a URL, which nobody may be shown."""
    uri = asked.redirect_uri
    uri = uri if uri in client.redirect_uris else client.redirect_uris[0]
    return replace(asked, url="", client=client, redirect_uri=uri, lifetime_seconds=None)


def switched(
    server: Server, before: Prepared, chance: Chance, *, device: bool, sign: Signer | None = None
) -> Exchange[Prepared]:
    """Change a login over to a device, or to another code for one, or back to pasting.

    What was shown before is good for nothing afterwards. Raises DeviceRefused, PkceNotSupported or whatever
    else stands in the way; the login is then as it was.
    """
    issuer, asked, options = before.authorization_server, before.request, server.options
    if not device:
        check_pkce(issuer, allow_missing_pkce=options.allow_missing_pkce)
        request = authorization_request(
            issuer,
            asked.client,
            redirect_uri=asked.redirect_uri,
            state=chance.state,
            code_verifier=chance.code_verifier,
            scope=asked.scope,
            resource=asked.resource,
            extra=options.authorize_params,
            trusted_issuers=asked.trusted_issuers,
        )
        request = yield from push(issuer, replace(request, dpop=asked.dpop), sign=sign)
        return Prepared(request, issuer)
    issuer = yield from find_device_endpoint(issuer.issuer, issuer, options.trusted_issuers)
    if not offers_device(issuer):
        raise no_device(issuer)

    def anew() -> Exchange[Client]:
        return register(
            issuer,
            asked.redirect_uri,
            client_name=options.client_name,
            scope=asked.scope or (),
            method=options.token_endpoint_auth_method,
            application_type=options.application_type,
        )

    may_register = anew if asked.client.registered else None
    code, client = yield from device_code(server, issuer, asked, sign=sign, anew=may_register)
    return Prepared(for_client(asked, client), issuer, code)
