"""Find the authorization server for a server's URL: probe the server, then run discovery.

The probe is RFC 9728 section 5.1: a protected resource responds with 401 and the URL of its metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urljoin, urlsplit, urlunsplit

from hermes_mcp_auth_remote.errors import (
    DeviceAuthorizationError,
    DiscoveryFailed,
    NetworkError,
    RedirectRefused,
    ServerError,
    UnsafeUrl,
)
from hermes_mcp_auth_remote.oauth.challenge import Challenge, read_challenge
from hermes_mcp_auth_remote.oauth.client import DEVICE_GRANT, Client, supports_device_flow
from hermes_mcp_auth_remote.oauth.device import find_device_endpoint, with_device_endpoint
from hermes_mcp_auth_remote.oauth.metadata import (
    MAX_ISSUERS_TRIED,
    AuthorizationServer,
    Discovery,
    discover_authorization_server,
    discover_metadata,
)
from hermes_mcp_auth_remote.oauth.urls import MAX_URL_CHARS, endpoint_url, host_of, safe_url
from hermes_mcp_auth_remote.oauth.wire import (
    Exchange,
    Request,
    Response,
    configured_headers,
    post_json,
    retry_after_text,
)
from hermes_mcp_auth_remote.values import Flow, Secret, Server

PROBE_STEP = "first request"
TOKEN_PROBE_STEP = "request with the stored token"  # noqa: S105  a step's name
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
_PING_REQUEST = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


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
    server_challenge, probe_response = challenge, None
    if server_challenge is None:
        probe_response = yield _probe_request(server)
        server_challenge = _read_probe_challenge(server, probe_response)
    discovery = yield from discover_for_login(server, server_challenge, preferred_issuer)
    if discovery.authorization_server.uses_default_endpoints and server_challenge is None:
        if probe_response is not None and _is_busy(probe_response):
            raise DiscoveryFailed(
                f"{host_of(server.url)} responded to the {PROBE_STEP} with status {probe_response.status}, "
                "so it is unknown where to log in.",
                f"Try again {retry_after_text(probe_response) or 'later'}; if it fails again, the server's "
                "operator must fix it.",
            )
        raise DiscoveryFailed(
            f"{host_of(server.url)} asks for no authorization and names no authorization server.",
            "Check the path of its address. It may also need no login. If it needs one, set "
            "`oauth.authorization_server` for it.",
        )
    if flow in DEVICE_FLOWS:
        discovery = yield from find_device_server(server, discovery, flow)
    return DiscoveryResult(discovery, server_challenge or Challenge())


def discover_for_login(
    server: Server, challenge: Challenge | None, preferred_issuer: str | None
) -> Exchange[Discovery]:
    """Find the authorization server for a login of a user; raises as `discover_metadata` does."""
    options = server.options
    discovery = yield from discover_metadata(
        server.url,
        challenge or Challenge(),
        trusted_issuers=options.trusted_issuers,
        configured_issuer=options.authorization_server,
        preferred_issuer=preferred_issuer,
        configured_resource=options.resource or None,
        is_suitable=lambda authorization_server: _can_log_in_at(server, authorization_server),
    )
    return replace(discovery, authorization_server=_with_configured_device_endpoint(server, discovery))


def _with_configured_device_endpoint(server: Server, discovery: Discovery) -> AuthorizationServer:
    authorization_server, url = discovery.authorization_server, server.options.device_authorization_endpoint
    if url is None:
        return authorization_server
    url = endpoint_url(url, "`oauth.device_authorization_endpoint`", authorization_server.issuer)
    return with_device_endpoint(authorization_server, url)


def _can_log_in_at(server: Server, authorization_server: AuthorizationServer) -> bool:
    """True unless the metadata says that no user can log in there: no client, no PKCE, or no fitting grant.

    A resource may list several authorization servers, of which only one is for users (quirk 60).
    """
    options, grants = server.options, authorization_server.grant_types_supported
    has_client = (
        options.client_id is not None
        or authorization_server.registration_endpoint is not None
        or (
            options.client_metadata_url is not None
            and authorization_server.client_id_metadata_document_supported
        )
    )
    has_pkce = options.allow_missing_pkce or "S256" in (
        authorization_server.code_challenge_methods_supported or ()
    )
    has_code_flow = has_pkce and (not grants or "authorization_code" in grants)
    return has_client and (has_code_flow or supports_device_flow(authorization_server))


def discover_other_server(
    server: Server, discovery_result: DiscoveryResult, tried_issuers: tuple[str, ...], flow: Flow
) -> Exchange[DiscoveryResult | None]:
    """Return the discovery with the next suitable authorization server of the resource, None without one."""
    resource = discovery_result.discovery.protected_resource
    if resource is None or server.options.authorization_server is not None:
        return None
    tried = {issuer.rstrip("/") for issuer in tried_issuers}
    for issuer in resource.authorization_servers[:MAX_ISSUERS_TRIED]:
        if issuer.rstrip("/") in tried:
            continue
        try:
            candidate = yield from discover_authorization_server(issuer, server.options.trusted_issuers)
        except (ServerError, NetworkError):
            continue
        if candidate is None or candidate.issuer.rstrip("/") in tried:
            continue
        if _can_log_in_at(server, candidate):
            if flow == "device":
                candidate = yield from find_device_endpoint(issuer, candidate, server.options.trusted_issuers)
            discovery = replace(discovery_result.discovery, authorization_server=candidate)
            return replace(discovery_result, discovery=discovery)
    return None


def probe_server(server: Server) -> Exchange[Challenge | None]:
    """Send the MCP server a request without a token; return its challenge, None if it sends none.

    A redirect with a `resource_metadata` parameter is a challenge (quirk 55). Raises RedirectRefused for
    another redirect.
    """
    return _read_probe_challenge(server, (yield _probe_request(server)))


def needs_token(server: Server) -> Exchange[bool | None]:
    """Send the MCP server a request without a token; return whether it demands a token.

    Return None if the response does not tell, because the server has a temporary problem. Raises
    RedirectRefused as `probe_server` does.
    """
    response = yield _probe_request(server)
    if _read_probe_challenge(server, response) is not None:
        return True
    return None if _is_busy(response) else False


def _probe_request(server: Server) -> Request:
    return _mcp_request(server, PROBE_STEP, _INITIALIZE_REQUEST)


def _is_busy(response: Response) -> bool:
    """True if a response says nothing about authorization: it reports a temporary problem of the server."""
    return response.status in _BUSY_STATUSES or response.status >= 500


def _read_probe_challenge(server: Server, response: Response) -> Challenge | None:
    lines = response.header_all("www-authenticate")
    challenge = read_challenge(lines)
    location = response.header("location")
    if response.status in REDIRECT_STATUSES and location is not None and not challenge.resource_metadata:
        if not challenge.has_scheme:
            raise _redirect_error(server.url, location)
        return challenge
    return challenge if lines or response.status in {401, 403} else None


REDIRECT_STATUSES = frozenset({301, 302, 303, 307, 308})
# RFC 9110 section 15.5.9 (timeout), RFC 8470 section 5.2 (too early), RFC 6585 section 4 (too many requests).
_BUSY_STATUSES = frozenset({408, 425, 429})


def token_probe_request(server: Server, authorization: Secret) -> Request:
    """Build a request that shows whether the server accepts a token; `authorization` is the header's value.

    MCP's `ping` begins no session and changes nothing. A server may answer that there is no session.
    """
    return _mcp_request(server, TOKEN_PROBE_STEP, _PING_REQUEST, ("authorization", authorization))


def _mcp_request(
    server: Server, step: str, message: Mapping[str, object], *own_headers: tuple[str, Secret]
) -> Request:
    request = post_json(server.url, step, message)
    accept = ("accept", "application/json, text/event-stream")
    own_names = {name for name, _ in own_headers}
    configured = (header for header in configured_headers(server.headers) if header[0] not in own_names)
    headers = (accept, *request.headers[1:], *own_headers, *configured)
    return replace(request, headers=headers, follow_redirects=False)


def _redirect_error(server_url: str, location: str) -> RedirectRefused:
    """Return the error for a redirected first request, with the address that the operator must configure."""
    host = host_of(server_url)
    try:
        url = safe_url(
            _with_own_scheme(urljoin(server_url, location[: MAX_URL_CHARS + 1]), server_url), "URL"
        )
    except (UnsafeUrl, ValueError):
        return RedirectRefused(f"{host} redirects the {PROBE_STEP} to an unsafe address.")
    parts = urlsplit(server_url)
    other_path = parts.path.rstrip("/") if parts.path.endswith("/") else f"{parts.path}/"
    # Show the operator's own URL with or without the last slash: it contains no text of the server. Do not
    # show a query, because it may contain a key.
    own_url = urlunsplit(parts._replace(path=other_path))
    if url == safe_url(own_url, "URL") and not parts.query:
        return RedirectRefused(
            f"{host} redirects the {PROBE_STEP} to {own_url}; a POST is never redirected.",
            f"Put that address into the configuration: `url: {own_url}`.",
        )
    return RedirectRefused(
        f"{host} redirects the {PROBE_STEP} to another address at {host_of(url)}.",
        "If you trust the address in the server's message, copy it exactly into the configuration.",
        server_message=url,
    )


def _with_own_scheme(url: str, server_url: str) -> str:
    # Behind a TLS proxy, a server may redirect to http on its own host.
    parts, own_parts = urlsplit(url), urlsplit(server_url)
    is_same_host = parts.netloc.lower() == own_parts.netloc.lower()
    return urlunsplit(parts._replace(scheme=own_parts.scheme)) if is_same_host else url


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
        f"{host_of(authorization_server.issuer)} offers no device flow.",
        "unsupported_grant_type",
        "Log in with the link instead: open it, and paste the address that the browser ends on.",
    )
