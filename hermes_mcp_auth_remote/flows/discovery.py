"""From a server's URL to its authorization server: the probe, and discovery.

The probe is RFC 9728 §5.1: a protected resource answers 401 and says where to go.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hermes_mcp_auth_remote.errors import DeviceAuthorizationError, DiscoveryFailed, NetworkError, ServerError
from hermes_mcp_auth_remote.oauth.challenge import Challenge, read_challenge
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT, Client, supports_device_flow
from hermes_mcp_auth_remote.oauth.device import (
    find_device_endpoint,
)
from hermes_mcp_auth_remote.oauth.metadata import (
    MAX_ISSUERS_TRIED,
    AuthorizationServer,
    Discovery,
    discover_authorization_server,
    discover_metadata,
)
from hermes_mcp_auth_remote.oauth.urls import host_of
from hermes_mcp_auth_remote.oauth.wire import Exchange, configured_headers, post_json
from hermes_mcp_auth_remote.values import Flow, Server

PROBE_STEP = "first request"
# The least that makes every MCP server of any revision look at the request's authorization.
_INITIALIZE_REQUEST = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "hermes-mcp-auth-remote", "version": "0"},
    },
}


@dataclass(frozen=True, slots=True)
class DiscoveryResult:
    """Where a server's logins go, and what it asked for meanwhile.

    `client` is one that has registered there just now, for all who begin meanwhile and have none.
    """

    discovery: Discovery
    challenge: Challenge
    client: Client | None = None


def run_discovery(
    server: Server, preferred_issuer: str | None, challenge: Challenge | None, flow: Flow
) -> Exchange[DiscoveryResult]:
    """Take a login from a server's URL to its authorization server, `issuer` before others where it is one.

    Raises any ServerError or NetworkError.
    """
    options, answered = server.options, challenge
    if answered is None:
        answered = yield from probe_server(server)
    found = yield from discover_metadata(
        server.url,
        answered or Challenge(),
        trusted_issuers=options.trusted_issuers,
        configured_issuer=options.authorization_server,
        preferred_issuer=preferred_issuer,
    )
    if found.authorization_server.uses_default_endpoints and answered is None:
        raise DiscoveryFailed(
            f"{host_of(server.url)} asks for no authorization and names no authorization server.",
            "It may need no login at all; if it does, set `oauth.authorization_server` for it.",
        )
    if flow in DEVICE_FLOWS:
        found = yield from find_device_server(server, found, flow)
    return DiscoveryResult(found, answered or Challenge())


def probe_server(server: Server) -> Exchange[Challenge | None]:
    """Ask the MCP server without a token; returns its challenge, None where it asks for no token."""
    request = post_json(server.url, PROBE_STEP, _INITIALIZE_REQUEST)
    accept = ("accept", "application/json, text/event-stream")
    headers = (accept, *request.headers[1:], *configured_headers(server.headers))
    response = yield replace(request, headers=headers)
    lines = response.header_all("www-authenticate")
    return read_challenge(lines) if lines or response.status in {401, 403} else None


# What leads to a device's code, where there can be one.
DEVICE_FLOWS = frozenset[Flow]({"auto", "device"})


def find_device_server(server: Server, discovery: Discovery, flow: Flow) -> Exchange[Discovery]:
    """Look for an authorization server with a device endpoint among those that the resource lists.

    Returns `found` with it, or as it was. The flow `device` looks everywhere; `auto` costs a server that
    has no devices not one request more.
    """
    first = discovery.authorization_server
    if supports_device_flow(first):
        return discovery
    trusted = server.options.trusted_issuers
    if flow == "device" or _should_check_openid_metadata(first):
        first = yield from find_device_endpoint(first.issuer, first, trusted)
        if supports_device_flow(first):
            return replace(discovery, authorization_server=first)
    resource = discovery.protected_resource
    if resource is None or server.options.authorization_server is not None:
        return discovery
    for issuer in resource.authorization_servers[:MAX_ISSUERS_TRIED]:
        if issuer.rstrip("/") == first.issuer.rstrip("/"):
            continue
        try:
            other = yield from discover_authorization_server(issuer, trusted)
        except (ServerError, NetworkError):
            continue
        if other is not None and supports_device_flow(other):
            return replace(discovery, authorization_server=other)
    return discovery


def _should_check_openid_metadata(authorization_server: AuthorizationServer) -> bool:
    # Quirk 46: the endpoint stands in the OpenID document alone. Some sign of one, or of the grant, there is.
    return DEVICE_GRANT in (authorization_server.grant_types_supported or ()) or (
        "openid" in (authorization_server.scopes_supported or ()) and not authorization_server.is_openid
    )


def no_device_flow_error(authorization_server: AuthorizationServer) -> DeviceAuthorizationError:
    """Say that an authorization server has no device flow."""
    return DeviceAuthorizationError(
        f"{host_of(authorization_server.issuer)} offers no device flow.", "unsupported_grant_type"
    )
