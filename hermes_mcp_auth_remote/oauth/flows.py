"""By a code or by a device: whether a server offers devices, and a login that changes over. RFC 8628 §3.1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from hermes_mcp_auth_remote.errors import DeviceRefused, NetworkError, ServerError
from hermes_mcp_auth_remote.oauth.authorization import (
    AuthorizationRequest,
    authorization_request,
    check_pkce,
    push,
)
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT, Client, Signer, offers_device, register
from hermes_mcp_auth_remote.oauth.device import (
    DeviceAuthorization,
    authorize_device,
    find_device_endpoint,
    may_use_device,
)
from hermes_mcp_auth_remote.oauth.metadata import (
    MAX_ISSUERS,
    AuthorizationServer,
    Discovery,
    discover_authorization_server,
)
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange
from hermes_mcp_auth_remote.values import Flow, Secret, Server

# What leads to a device's code, where there can be one.
DEVICE_FLOWS = frozenset[Flow]({"auto", "device"})


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


def with_device(server: Server, found: Discovery, flow: Flow) -> Exchange[Discovery]:
    """Look for an authorization server with a device endpoint among those that the resource lists.

    Returns `found` with it, or as it was. The flow `device` looks everywhere; `auto` costs a server that
    has no devices not one request more.
    """
    first = found.authorization_server
    if offers_device(first):
        return found
    trusted = server.options.trusted_issuers
    if flow == "device" or _may_say_more(first):
        first = yield from find_device_endpoint(first.issuer, first, trusted)
        if offers_device(first):
            return replace(found, authorization_server=first)
    resource = found.protected_resource
    if resource is None or server.options.authorization_server is not None:
        return found
    for issuer in resource.authorization_servers[:MAX_ISSUERS]:
        if issuer.rstrip("/") == first.issuer.rstrip("/"):
            continue
        try:
            other = yield from discover_authorization_server(issuer, trusted)
        except (ServerError, NetworkError):
            continue
        if other is not None and offers_device(other):
            return replace(found, authorization_server=other)
    return found


def _may_say_more(server: AuthorizationServer) -> bool:
    # Quirk 46: the endpoint stands in the OpenID document alone. Some sign of one, or of the grant, there is.
    return DEVICE_GRANT in (server.grant_types_supported or ()) or (
        "openid" in (server.scopes_supported or ()) and not server.is_openid
    )


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


def no_device(issuer: AuthorizationServer) -> DeviceRefused:
    """Say that an authorization server has no device flow."""
    return DeviceRefused(f"{host_of(issuer.issuer)} offers no device flow.", "unsupported_grant_type")
