"""Find the authorization server for a server's URL: probe the server, then run discovery.

The probe is RFC 9728 section 5.1: a protected resource responds with 401 and the URL of its metadata.
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
# The smallest request for which MCP servers of every revision check the authorization.
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
    """The discovery of a server, and the challenge that it sent.

    `client` was registered by this discovery. Logins without a stored client share it.
    """

    discovery: Discovery
    challenge: Challenge
    client: Client | None = None


def run_discovery(
    server: Server, preferred_issuer: str | None, challenge: Challenge | None, flow: Flow
) -> Exchange[DiscoveryResult]:
    """Probe the server if `challenge` is None, then discover its authorization server.

    Tries `preferred_issuer` first if the server lists it. Raises any ServerError or NetworkError.
    """
    options, server_challenge = server.options, challenge
    if server_challenge is None:
        server_challenge = yield from probe_server(server)
    discovery = yield from discover_metadata(
        server.url,
        server_challenge or Challenge(),
        trusted_issuers=options.trusted_issuers,
        configured_issuer=options.authorization_server,
        preferred_issuer=preferred_issuer,
    )
    if discovery.authorization_server.uses_default_endpoints and server_challenge is None:
        raise DiscoveryFailed(
            f"{host_of(server.url)} asks for no authorization and names no authorization server.",
            "It may need no login. If it needs one, set `oauth.authorization_server` for it.",
        )
    if flow in DEVICE_FLOWS:
        discovery = yield from find_device_server(server, discovery, flow)
    return DiscoveryResult(discovery, server_challenge or Challenge())


def probe_server(server: Server) -> Exchange[Challenge | None]:
    """Send the MCP server a request without a token; return its challenge, None if it needs no token."""
    request = post_json(server.url, PROBE_STEP, _INITIALIZE_REQUEST)
    accept = ("accept", "application/json, text/event-stream")
    headers = (accept, *request.headers[1:], *configured_headers(server.headers))
    response = yield replace(request, headers=headers)
    lines = response.header_all("www-authenticate")
    return read_challenge(lines) if lines or response.status in {401, 403} else None


# The flows that use the device flow if the server supports it.
DEVICE_FLOWS = frozenset[Flow]({"auto", "device"})


def find_device_server(server: Server, discovery: Discovery, flow: Flow) -> Exchange[Discovery]:
    """Look for an authorization server with a device endpoint among those that the resource lists.

    Returns `discovery` with that server, or unchanged. The flow `device` always reads the OpenID metadata;
    other flows read it only if the RFC 8414 metadata suggests a device endpoint.
    """
    authorization_server = discovery.authorization_server
    if supports_device_flow(authorization_server):
        return discovery
    trusted = server.options.trusted_issuers
    if flow == "device" or _should_check_openid_metadata(authorization_server):
        authorization_server = yield from find_device_endpoint(
            authorization_server.issuer, authorization_server, trusted
        )
        if supports_device_flow(authorization_server):
            return replace(discovery, authorization_server=authorization_server)
    resource = discovery.protected_resource
    if resource is None or server.options.authorization_server is not None:
        return discovery
    for issuer in resource.authorization_servers[:MAX_ISSUERS_TRIED]:
        if issuer.rstrip("/") == authorization_server.issuer.rstrip("/"):
            continue
        try:
            candidate = yield from discover_authorization_server(issuer, trusted)
        except (ServerError, NetworkError):
            continue
        if candidate is not None and supports_device_flow(candidate):
            return replace(discovery, authorization_server=candidate)
    return discovery


def _should_check_openid_metadata(authorization_server: AuthorizationServer) -> bool:
    # Quirk 46: some servers name the device endpoint only in the OpenID document. Their RFC 8414 document
    # then lists the device grant, or the scope "openid".
    return DEVICE_GRANT in (authorization_server.grant_types_supported or ()) or (
        "openid" in (authorization_server.scopes_supported or ()) and not authorization_server.is_openid
    )


def no_device_flow_error(authorization_server: AuthorizationServer) -> DeviceAuthorizationError:
    """Return the error for an authorization server without a device flow."""
    return DeviceAuthorizationError(
        f"{host_of(authorization_server.issuer)} offers no device flow.", "unsupported_grant_type"
    )
